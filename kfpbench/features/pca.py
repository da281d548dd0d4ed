"""Principal components of the training rows as features."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, eigsh

from kfpbench.cache.code_version import code_version
from kfpbench.cache.key import Key
from kfpbench.cache.use import Stored
from kfpbench.data.row_identity import training_key
from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.features.content_cache import ContentCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset

_TILE_ROWS = 4096
_SINGLE_PRECISION_ABOVE = 3e10  # multiply-adds N d^2 / 2 from which products are taken in float32 (1 s in float64)
_LANCZOS_ABOVE = 1024  # dimension from which a few leading eigenvectors are cheaper by Lanczos than by a full eigh


@dataclass(frozen=True)
class _Axes:
    """Mean (d,), axes (d, c) with orthonormal columns, and the share of variance on each axis (c,)."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    explained: NDArray[np.float64]


_fitted: ContentCache[_Axes] = ContentCache(size=4)


class PCA:
    """Scores on the leading principal components of the training rows, not whitened: phi(x) = U^T (x - mean).

    U holds the leading eigenvectors of the training covariance C = sum_i (x_i - mean)(x_i - mean)^T / (N -
    1), so distances are lower bounds of the distances between rows, in the units of the data. Each axis is
    signed so that its entry of largest magnitude is positive. At most min(components, d, N - 1) components
    exist; when fewer than asked for are used ``describe()`` says so and why.

    Shapes: (n, d) -> (n, c) float64. Cost of a fit O(N d^2) + O(d^2 c), once per training set and process
    (the last four fits are kept, and on the disk where the cache is in use); of a transform O(n d c). Products
    are in float32 with float64 sums over tiles of 4096 rows when N d^2 / 2 > 3e10, else in float64. Raises
    ShapeError for fewer than two training
    rows or a wrong d, NumericalError for NaN or infinity in the training rows, ParameterError when used
    before ``fit``.

    Source: K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
    """

    def __init__(self, components: Annotated[int, Field(ge=1)] = 64) -> None:
        if components < 1:
            raise ParameterError("PCA needs at least one component", got=components, allowed=">= 1")
        self.components = components
        self._axes: _Axes | None = None

    @property
    def version(self) -> str:
        """Names the features: the number of components asked for, and the version of this definition."""
        return f"pca-{self.components}/1"

    def fit(self, dataset: Dataset) -> PCA:
        """A copy fitted on ``dataset.train`` (N, d); see the class for cost and errors."""
        fitted = copy.copy(self)
        key = (*training_key(dataset.fingerprint, dataset.train), self.components)

        def stored() -> Stored[_Axes]:
            return Stored(Key("axes", {"fit": key, "code": code_version(PCA)}), _Axes)

        fitted._axes = _fitted.get(key, lambda: _principal_axes(dataset.train, self.components), stored)
        return fitted

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores U^T (x - mean) of the rows (n, d), shape (n, c) float64."""
        fitted = self._require_fit()
        if rows.ndim != 2 or rows.shape[1] != len(fitted.mean):
            raise ShapeError("PCA was fitted on other columns", got=rows.shape, allowed=f"(n, {len(fitted.mean)})")
        return (np.asarray(rows, dtype=np.float64) - fitted.mean) @ fitted.axes

    def describe(self) -> dict[str, float | str]:
        """Components used, their share of the training variance, and why there are fewer than asked for."""
        fitted = self._require_fit()
        used = fitted.axes.shape[1]
        record: dict[str, float | str] = {
            "features": "pca",
            "version": self.version,
            "resize": "none",
            "components": used,
            "explained_variance": float(fitted.explained.sum()),
        }
        if used < self.components:
            record["components_note"] = (
                f"{self.components} asked for, {used} exist: min(components, d, N - 1) with d = {len(fitted.mean)}"
            )
        return record

    def _require_fit(self) -> _Axes:
        if self._axes is None:
            raise ParameterError("PCA has not been fitted", remedy="Use the extractor that fit(dataset) returns.")
        return self._axes


def _principal_axes(train: NDArray[np.float32], components: int) -> _Axes:
    n, d = train.shape
    if n < 2:
        raise ShapeError("PCA needs at least two training rows", got=train.shape, allowed="(N >= 2, d)")
    mean = train.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise NumericalError("training rows hold NaN or infinity", where="features.pca", remedy="Repair the data set.")
    covariance = _covariance(train, mean)
    used = min(components, d, n - 1)
    values, axes = _leading_eigenvectors(covariance, used)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(used)])
    total = float(np.trace(covariance))
    explained = np.maximum(values, 0.0) / total if total > 0 else np.zeros(used)
    return _Axes(mean, axes * signs, explained)


def _covariance(train: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    n, d = train.shape
    single = n * d**2 / 2 > _SINGLE_PRECISION_ABOVE
    total = np.zeros((d, d))
    for start in range(0, n, _TILE_ROWS):
        rows = train[start : start + _TILE_ROWS]
        tile: NDArray[np.floating[Any]] = rows - (mean.astype(np.float32) if single else mean)
        total += tile.T @ tile
    return total / (n - 1)


def _leading_eigenvectors(
    covariance: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ``count`` largest eigenvalues, descending, and their eigenvectors in columns."""
    d = len(covariance)
    if d > _LANCZOS_ABOVE and count <= d // 16:
        start = np.random.default_rng(0).standard_normal(d)  # a fixed start: the same axes in every process
        try:
            values, vectors = eigsh(covariance, k=count, v0=start)
        except ArpackError:  # constant rows, or a spectrum too flat for Lanczos: pay for the direct solver
            values, vectors = eigh(covariance, subset_by_index=(d - count, d - 1))
    else:
        values, vectors = eigh(covariance, subset_by_index=(d - count, d - 1))
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order]
