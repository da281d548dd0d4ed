"""The penultimate layer of a small classifier of CIFAR-10 as features."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kfpbench.errors import CapabilityError, DataError
from kfpbench.features.images import images_of, in_tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset
    from kfpbench.networks.classifier_checkpoint import ClassifierCheckpoint

_WEIGHTS = Path(__file__).parent / "weights" / "cifar_cnn.safetensors"
_TILE = 500  # rows evaluated at a time


class CifarCNN:
    """64 features of a convolutional classifier trained on CIFAR-10's training images (kfpbench.networks.classifier).

    A Frechet distance in them sees what separates the ten classes, not sharpness as such; it is no FID, and its numbers
    compare with each other alone. ``weights`` names a file that `kfpbench train` with `kind: classifier` has written,
    for other images or other features; the shipped one takes colour images of 32 x 32 pixels.

    Shapes: (n, 3072) in [-1, 1] -> (n, 64) float64; values outside are clipped, as an image's would be. Cost about 0.13
    GFLOP a row, in tiles of 500 rows. Raises CapabilityError for data of another shape, ShapeError for rows of another
    length, DataError for weights that are missing, or are no classifier's.
    """

    uses_training_rows: ClassVar[bool] = False

    def __init__(self, weights: str | None = None) -> None:
        self.weights = weights

    @property
    def version(self) -> str:
        """Names the weights by their SHA-256."""
        return f"cifar_cnn/{self._classifier().sha256[:12]}"

    def fit(self, dataset: Dataset) -> CifarCNN:
        """A copy; the weights are fixed."""
        shape = self._classifier().architecture.image_shape
        if dataset.image_shape != shape:
            raise CapabilityError(
                f"features cifar_cnn need images of {shape[1]} x {shape[2]} pixels with {shape[0]} channels",
                got=f"data set {dataset.name!r} with image shape {dataset.image_shape}",
                allowed=str(shape),
                remedy="Take features pca or identity.",
            )
        return copy.copy(self)

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (n, 64) of the rows (n, 3072)."""
        import torch

        loaded = self._classifier()
        images = images_of(rows, loaded.architecture.image_shape, "cifar_cnn")
        return in_tiles(
            images,
            _TILE,
            loaded.architecture.width,
            lambda part: loaded.network.features(part.contiguous(memory_format=torch.channels_last)),
        )

    def describe(self) -> dict[str, Any]:
        """The features' name and version, and how images are brought to the network."""
        return {"features": "cifar_cnn", "version": self.version, "resize": "none"}

    def _classifier(self) -> ClassifierCheckpoint:
        path = _WEIGHTS if self.weights is None else Path(self.weights).expanduser()
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            stamp = 0
        return _load(path, stamp)


@functools.lru_cache(maxsize=4)
def _load(path: Path, stamp: int) -> ClassifierCheckpoint:
    """The classifier of a file; ``stamp`` changes with the file."""
    import torch

    from kfpbench.networks.classifier_checkpoint import load_classifier

    try:
        loaded = load_classifier(path)
    except DataError as error:
        raise DataError(
            f"the weights of features cifar_cnn cannot be read: {error.what}",
            got=error.got,
            remedy="Reinstall kfpbench." if path == _WEIGHTS else error.remedy,
            where=str(path),
        ) from error
    loaded.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    return loaded
