"""The penultimate layer of a small classifier of CIFAR-10 as features."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.errors import CapabilityError, DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset
    from kfpbench.networks.classifier import Classifier

_WEIGHTS = Path(__file__).parent / "weights" / "cifar_cnn.safetensors"
_TILE = 500  # rows evaluated at a time
_SHAPE = (3, 32, 32)


class CifarCNN:
    """64 features of a convolutional classifier trained on CIFAR-10's training images (kfpbench.networks.classifier).

    A Frechet distance in them sees what separates the ten classes, not sharpness as such; it is no FID, and its numbers
    compare with each other alone. Shapes: (n, 3072) in [-1, 1] -> (n, 64) float64; values outside are clipped, as an
    image's would be. Cost about 0.13 GFLOP a row, in tiles of 500 rows. Raises CapabilityError for data that are not
    32 x 32 colour images, ShapeError for rows of another length, DataError when the shipped weights are missing.
    """

    @property
    def version(self) -> str:
        """Names the weights by their SHA-256."""
        return f"cifar_cnn/{_load()[1]}"

    def fit(self, dataset: Dataset) -> CifarCNN:
        """A copy; the weights are fixed."""
        if dataset.image_shape != _SHAPE:
            raise CapabilityError(
                "features cifar_cnn need colour images of 32 x 32 pixels",
                got=f"data set {dataset.name!r} with image shape {dataset.image_shape}",
                allowed=str(_SHAPE),
                remedy="Take features pca or identity.",
            )
        return copy.copy(self)

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (n, 64) of the rows (n, 3072)."""
        import torch

        if rows.ndim != 2 or rows.shape[1] != np.prod(_SHAPE):
            raise ShapeError("cifar_cnn takes flattened images", got=rows.shape, allowed=f"(n, {np.prod(_SHAPE)})")
        network = _load()[0]
        images = torch.from_numpy(np.clip(rows, -1.0, 1.0).astype(np.float32)).reshape(-1, *_SHAPE)
        with torch.inference_mode():
            parts = [
                network.features(part.contiguous(memory_format=torch.channels_last)) for part in images.split(_TILE)
            ]
        return torch.cat(parts).double().numpy() if parts else np.empty((0, 64))

    def describe(self) -> dict[str, Any]:
        """The features' name and version."""
        return {"features": "cifar_cnn", "version": self.version}


@functools.cache
def _load() -> tuple[Classifier, str]:
    import torch
    from safetensors import SafetensorError, safe_open

    from kfpbench.networks.classifier import Classifier

    try:
        digest = hashlib.sha256(_WEIGHTS.read_bytes()).hexdigest()[:12]
        with safe_open(_WEIGHTS, framework="pt") as file:
            record = json.loads((file.metadata() or {})["kfpbench"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise DataError(
            f"the weights of features cifar_cnn cannot be read: {error}",
            remedy="Reinstall kfpbench.",
            where=str(_WEIGHTS),
        ) from error
    network = Classifier(**record["architecture"])
    network.load_state_dict(weights)
    return network.eval().to(memory_format=torch.channels_last), digest  # type: ignore[call-overload]
