"""The Inception network of the FID as features, with torch-fidelity's code and weights that lie on this machine."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from kfpbench.errors import CapabilityError, DataError
from kfpbench.features.images import Shape, colour_shape, images_of, in_tiles, require_fit, sides
from kfpbench.features.weight_places import find_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kfpbench.data.dataset import Dataset

# one file under two names: of pytorch-fid, and of torch-fidelity
_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
_SHA256_STARTS = "6726825d"
_SIDE = 299
_WIDTH = 2048


class Inception:
    """The 2048 features of the FID: the last pooling layer of Inception v3 as converted from TensorFlow's weights.

    The Frechet distance in them is the FID, as torch-fidelity computes it; values that are published take n = 50,000
    samples and another reference set, often the training images. Rows (n, 3 H W) in [-1, 1] are rounded to 8 bits, as
    an image file would be, and resized to 299 x 299 pixels by TensorFlow 1's bilinear rule. Shapes: (n, 3 H W) ->
    (n, 2048) float64. Cost about 11 GFLOP a row, ``tile`` images at a time.

    ``weights`` is the file pt_inception-2015-12-05-6726825d.pth (or weights-inception-...), else it is looked for in
    $KFPBENCH_DATA_DIR, in its folder weights, in the user's cache and in that of torch.hub; it is read without running
    code from it, and its SHA-256 must begin with 6726825d. Raises CapabilityError without torch-fidelity (extra
    ``fid``, which installs torchvision), without the weights, and for data that are no colour images; DataError for
    another file; ShapeError for rows of another length.

    Source: Heusel et al., NeurIPS 2017; Szegedy et al., "Rethinking the inception architecture", CVPR 2016.
    """

    uses_training_rows: ClassVar[bool] = False

    def __init__(self, weights: str | None = None, tile: Annotated[int, Field(ge=1)] = 50, device: str = "cpu") -> None:
        self.weights, self.tile, self.device = weights, tile, device
        self._shape: Shape | None = None

    @property
    def version(self) -> str:
        """Names the weights by their SHA-256, and torch-fidelity by its version."""
        path = self._path()
        return f"inception/{_digest(path, path.stat().st_mtime_ns)[:12]}, torch-fidelity {_fidelity().__version__}"

    def fit(self, dataset: Dataset) -> Inception:
        """A copy that knows the shape of the images; the weights are fixed."""
        fitted = copy.copy(self)
        fitted._shape = colour_shape(dataset, "inception")
        self._network()
        return fitted

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (n, 2048) of the rows (n, 3 H W)."""
        import torch

        images = images_of(rows, require_fit(self._shape, "inception"), "inception")
        network = self._network()

        def features(part: Tensor) -> Tensor:
            pixels = ((part + 1.0) * 127.5).round().to(torch.uint8)
            found: Tensor = network(pixels.to(self.device))[0]
            return found

        return in_tiles(images, self.tile, _WIDTH, features)

    def describe(self) -> dict[str, Any]:
        """The features' name and version, and how images are brought to the network."""
        here = sides(require_fit(self._shape, "inception"))
        resize = f"8 bits, {here} to {_SIDE} x {_SIDE}, bilinear as in TensorFlow 1"
        return {"features": "inception", "version": self.version, "resize": resize}

    def _path(self) -> Path:
        _fidelity()
        import torch

        hub = Path(torch.hub.get_dir()) / "checkpoints"
        return find_weights(
            "inception",
            _NAMES,
            self.weights,
            more=(hub,),
            remedy="Put torch-fidelity's weights file there, or name it with `weights:`.",
        )

    def _network(self) -> nn.Module:
        path = self._path()
        return _load(path, path.stat().st_mtime_ns, self.device)


def _fidelity() -> Any:
    try:
        import torch_fidelity
    except ImportError as error:
        raise CapabilityError(
            f"features inception need torch-fidelity: {error}",
            remedy="pip install 'kfpbench[fid]', in an environment that may have torchvision.",
        ) from error
    return torch_fidelity


@functools.lru_cache(maxsize=4)
def _digest(path: Path, stamp: int) -> str:
    """SHA-256 of the weights; ``stamp`` changes with the file. Raises DataError unless it is that of the known file."""
    from kfpbench.networks.checkpoint import digest

    found = digest(path)
    if not found.startswith(_SHA256_STARTS):
        raise DataError(
            "this is not the file of the FID's weights, or it is damaged",
            got=f"sha256 {found[:16]}...",
            allowed=f"sha256 {_SHA256_STARTS}...",
            remedy="Put the file as it was published there.",
            where=str(path),
        )
    return found


@functools.lru_cache(maxsize=1)
def _load(path: Path, stamp: int, device: str) -> nn.Module:
    """torch-fidelity's network with these weights."""
    import torch

    from kfpbench.scores.weight_files import read_weights

    _digest(path, stamp)
    weights = read_weights(path)
    with tempfile.TemporaryDirectory() as folder:
        # its constructor unpickles whatever the file holds: it is given a copy of the tensors alone
        copied = Path(folder) / "weights.pth"
        torch.save(weights, copied)
        try:
            network: nn.Module = _fidelity().FeatureExtractorInceptionV3("inception", [str(_WIDTH)], str(copied))
        except RuntimeError as error:
            raise DataError(f"the weights are not those of the network: {error}", where=str(path)) from error
    return network.to(device).eval()
