"""Squared Euclidean distances between two clouds, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_ELEMENTS = 2**21  # 16 MiB of float64: stays near the caches, and is all the memory that a pass needs
_DIRECT_UP_TO = 12  # coordinates up to which differences are as fast as a matrix product


def centred(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both clouds shifted by their common mean: distances stay, norms that cancel in them become small."""
    shift = (x.sum(axis=0) + y.sum(axis=0)) / (len(x) + len(y))
    return x - shift, y - shift


def squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """|a_i - b_j|^2, shape (len(a), len(b)), float64; cost O(len(a) len(b) d).

    For d <= 12 from differences, exact to rounding. Beyond, |a|^2 + |b|^2 - 2 a.b by a matrix product,
    clipped at 0, with an absolute error below ``rounding(a, b)``: pass centred clouds.
    """
    if a.shape[1] <= _DIRECT_UP_TO:
        return np.asarray(cdist(a, b, "sqeuclidean"))
    squared = a @ b.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", a, a)[:, None]
    squared += np.einsum("ij,ij->i", b, b)
    return np.maximum(squared, 0.0, out=squared)


def rounding(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Bound of the absolute error of ``squared_distances``: 0 for d <= 12, else 4 d eps max |.|^2."""
    d = x.shape[1]
    if d <= _DIRECT_UP_TO:
        return 0.0
    largest = max(float(np.einsum("ij,ij->i", z, z).max()) for z in (x, y))
    return 4.0 * d * float(np.finfo(np.float64).eps) * largest


def row_tiles(
    a: NDArray[np.float64], b: NDArray[np.float64], elements: int = TILE_ELEMENTS
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (first row, squared distances of some rows of ``a`` to all of ``b``). Memory O(elements + m)."""
    rows = max(1, elements // len(b))
    for start in range(0, len(a), rows):
        yield start, squared_distances(a[start : start + rows], b)
