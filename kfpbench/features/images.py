"""Rows as colour images, for extractors that are networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.errors import CapabilityError, ParameterError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from kfpbench.data.dataset import Dataset

Shape = tuple[int, int, int]


def colour_shape(dataset: Dataset, name: str) -> Shape:
    """The shape (3, H, W) of a data set's images. Raises CapabilityError for data of another kind."""
    if dataset.image_shape is None or dataset.image_shape[0] != 3:
        raise CapabilityError(
            f"features {name} need colour images",
            got=f"data set {dataset.name!r} with image shape {dataset.image_shape}",
            allowed="(3, H, W)",
            remedy="Take features pca or identity.",
        )
    return dataset.image_shape


def require_fit(shape: Shape | None, name: str) -> Shape:
    """The shape that ``fit`` has found. Raises ParameterError where there was no fit."""
    if shape is None:
        raise ParameterError(
            f"features {name} have not been fitted", remedy="Use the extractor that fit(dataset) returns."
        )
    return shape


def images_of(rows: NDArray[np.float32], shape: Shape, name: str) -> Tensor:
    """Images (n, C, H, W) with values clipped to [-1, 1], as an image's would be. Raises ShapeError for other rows."""
    import torch

    length = int(np.prod(shape))
    if rows.ndim != 2 or rows.shape[1] != length:
        raise ShapeError(f"features {name} take flattened images", got=rows.shape, allowed=f"(n, {length})")
    return torch.from_numpy(np.clip(rows, -1.0, 1.0).astype(np.float32)).reshape(-1, *shape)


def in_tiles(images: Tensor, tile: int, width: int, network: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """``network`` of the images (n, C, H, W), ``tile`` at a time, without gradients: (n, width) float64 on the CPU."""
    import torch

    found = np.empty((len(images), width))
    with torch.inference_mode():
        for start in range(0, len(images), tile):
            found[start : start + tile] = network(images[start : start + tile]).double().cpu().numpy()
    return found


def sides(shape: Shape) -> str:
    """Height and width in words: 32 x 32."""
    return f"{shape[1]} x {shape[2]}"
