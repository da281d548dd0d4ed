"""The rows themselves as features."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kfpbench.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset


class Identity:
    """Features phi(x) = x: distances are Euclidean distances between rows (pixels), in the units of the data.

    Shapes: (n, d) -> (n, d) float64. Cost O(n d). No statistic of the data is used. Raises ShapeError for rows of
    another dimension than the data set's.
    """

    version = "identity/1"
    uses_training_rows: ClassVar[bool] = False
    costs_nothing: ClassVar[bool] = True

    def __init__(self) -> None:
        self._dimension: int | None = None

    def fit(self, dataset: Dataset) -> Identity:
        """A copy that knows the dimension of the data."""
        fitted = copy.copy(self)
        fitted._dimension = dataset.dimension
        return fitted

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The rows in float64, shape (n, d)."""
        if rows.ndim != 2 or self._dimension not in (None, rows.shape[1]):
            raise ShapeError("rows of another shape", got=rows.shape, allowed=f"(n, {self._dimension or 'd'})")
        return np.asarray(rows, dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """What the features are, for the record of a run."""
        return {"features": "identity", "version": self.version, "resize": "none"}
