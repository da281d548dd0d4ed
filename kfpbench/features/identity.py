"""The rows themselves as features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset


class Identity:
    """Features phi(x) = x: distances are Euclidean distances between rows (pixels), in the units of the data.

    Shapes: (n, d) -> (n, d) float64. Cost O(n d). Nothing is fitted and nothing is raised.
    """

    version = "identity/1"

    def fit(self, dataset: Dataset) -> Identity:
        """Return this extractor; no statistic of the data is used."""
        return self

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The rows in float64, shape (n, d)."""
        return np.asarray(rows, dtype=np.float64)

    def describe(self) -> dict[str, float | str]:
        """What the features are, for the record of a run."""
        return {"features": "identity", "version": self.version}
