"""DINOv2's class token as features, with transformers and a folder of weights on this machine."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from kfpbench.errors import CapabilityError, DataError, ParameterError
from kfpbench.features.images import Shape, colour_shape, images_of, in_tiles, require_fit, sides
from kfpbench.features.weight_places import find_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kfpbench.data.dataset import Dataset

_NAMES = ("dinov2-small", "dinov2_vits14", "dinov2")
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, with which it was trained


class Dinov2:
    """The class token of a DINOv2 vision transformer after its last normalisation: 384 features for ViT-S/14.

    Rows (n, 3 H W) in [-1, 1] become images of ``side`` x ``side`` pixels (bicubic, with antialiasing where that is
    smaller), normalised by ImageNet's mean and standard deviation. Shapes: (n, 3 H W) -> (n, c) float64. Cost of ViT-S
    at side 224 about 11 GFLOP a row, ``tile`` images at a time.

    ``folder`` holds config.json and model.safetensors, as transformers saves a Dinov2Model (facebook/dinov2-small);
    else a folder dinov2-small, dinov2_vits14 or dinov2 is looked for in $KFPBENCH_DATA_DIR, in its folder weights, and
    in the user's cache. Nothing is downloaded, and no code from it is run. Raises CapabilityError without transformers
    (extra ``dinov2``), without the weights, and for data that are no colour images; ParameterError for a side that the
    patches do not divide; DataError for another folder; ShapeError for rows of another length.

    Source: Oquab et al., "DINOv2: learning robust visual features without supervision", TMLR 2024; for its use in
    evaluation Stein et al., "Exposing flaws of generative model evaluation metrics", NeurIPS 2023.
    """

    uses_training_rows: ClassVar[bool] = False

    def __init__(
        self,
        folder: str | None = None,
        side: Annotated[int, Field(ge=1)] = 224,
        tile: Annotated[int, Field(ge=1)] = 32,
        device: str = "cpu",
    ) -> None:
        self.folder, self.side, self.tile, self.device = folder, side, tile, device
        self._shape: Shape | None = None

    @property
    def version(self) -> str:
        """Names configuration and weights by their SHA-256, and the side of the images."""
        folder = self._folder()
        return f"dinov2-{self.side}/{_fingerprint(folder, _stamps(folder))[:12]}"

    def fit(self, dataset: Dataset) -> Dinov2:
        """A copy that knows the shape of the images; the weights are fixed."""
        fitted = copy.copy(self)
        fitted._shape = colour_shape(dataset, "dinov2")
        patch = self._network().config.patch_size
        if self.side % int(patch):
            raise ParameterError(
                "patches do not divide the side of the images",
                got=self.side,
                allowed=f"a multiple of {patch}",
                where="features.dinov2",
            )
        return fitted

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (n, c) of the rows (n, 3 H W)."""
        import torch
        from torch.nn import functional

        images = images_of(rows, require_fit(self._shape, "dinov2"), "dinov2")
        network: Any = self._network()
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))

        def features(part: Tensor) -> Tensor:
            size = (self.side, self.side)
            large = functional.interpolate((part + 1.0) / 2.0, size, mode="bicubic", antialias=True)
            pixels = (large.clamp(0.0, 1.0) - mean) / std
            token: Tensor = network(pixel_values=pixels.to(self.device)).last_hidden_state[:, 0]
            return token

        return in_tiles(images, self.tile, int(network.config.hidden_size), features)

    def describe(self) -> dict[str, Any]:
        """The features' name and version, and how images are brought to the network."""
        here = sides(require_fit(self._shape, "dinov2"))
        resize = f"{here} to {self.side} x {self.side}, bicubic with antialiasing"
        return {"features": "dinov2", "version": self.version, "resize": resize}

    def _folder(self) -> Path:
        _transformers()
        return find_weights(
            "dinov2",
            _NAMES,
            self.folder,
            remedy=f"Put a folder with {_CONFIG} and {_WEIGHTS} there, as of facebook/dinov2-small, or name it with "
            "`folder:`.",
        )

    def _network(self) -> Any:
        folder = self._folder()
        return _load(folder, _stamps(folder), self.device)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CapabilityError(
            f"features dinov2 need transformers: {error}", remedy="pip install 'kfpbench[dinov2]'"
        ) from error
    return transformers


def _stamps(folder: Path) -> tuple[int, ...]:
    """What changes with the files. Raises DataError where one is missing."""
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"no DINOv2 network there: {' and '.join(missing)} not found",
            got=str(folder),
            allowed=f"a folder with {_CONFIG} and {_WEIGHTS}, as save_pretrained writes it",
            remedy="Put those files there; pickles (.bin, .pth) are not read.",
        )
    return tuple((folder / name).stat().st_mtime_ns for name in (_CONFIG, _WEIGHTS))


@functools.lru_cache(maxsize=4)
def _fingerprint(folder: Path, stamps: tuple[int, ...]) -> str:
    from kfpbench.scores.weight_files import fingerprint

    found = fingerprint(folder / _CONFIG, folder / _WEIGHTS)
    if found is None:
        raise DataError("the weights cannot be read", where=str(folder))
    return found


@functools.lru_cache(maxsize=1)
def _load(folder: Path, stamps: tuple[int, ...], device: str) -> nn.Module:
    """The network of a folder, every tensor from its file."""
    path = folder / _CONFIG
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    if kind != "dinov2":
        raise DataError("a network of another kind", got=kind, allowed="model_type dinov2", where=str(path))
    try:
        network, found = _transformers().Dinov2Model.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"transformers cannot read it: {error}", where=str(folder)) from error
    wrong = {what: sorted(map(str, found.get(what) or ())) for what in ("missing_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise DataError("the weights are not those of the network", got=wrong, where=str(folder))
    loaded: nn.Module = network.float().to(device).eval().requires_grad_(False)
    return loaded
