"""The data-copying test statistic C_T."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from kfpbench.errors import ParameterError
from kfpbench.features.content_cache import ContentCache
from kfpbench.metrics.held_out import check_held_out
from kfpbench.metrics.inputs import Direction, check_input, details, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.nearest_rows import TrainingRows
from kfpbench.metrics.pairwise_distances import squared_distances
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"data_copying": "neither"}

_HELD_OUT_PER_CELL = 20  # on average: below, a cell's normal law is none
_LEAST = 5  # rows of each kind that a cell needs
_FITTED_ROWS = 10_000  # training rows from which the cells are made, evenly spaced
_TILE_ROWS = 4096

_centres: ContentCache[NDArray[np.float64]] = ContentCache(size=8)


class DataCopying:
    """C_T: are samples nearer to the training rows than held-out rows are, cell by cell of the feature space?

        C_T = sum_c w_c Z_c / sum_c w_c
        Z_c = (U_c - m k / 2) / sd(U_c),   U_c = #{(i, j) : D(x_i) > D(y_j)} + 1/2 #{(i, j) : D(x_i) = D(y_j)}

    over the m samples x_i and the k held-out rows y_j that fall into cell c, where D(z) is the distance to the nearest
    of all training rows and w_c the share of held-out rows in the cell: the Mann-Whitney z-score of the two sets of
    distances, with sd^2 = m k (m + k + 1) / 12 less the usual correction for ties. Far below 0 is copying, about 0 is
    right, far above 0 is off the data. A z-score grows with n^(1/2): values compare at equal n alone.
    ``details["share_nearer"]``, the cells' mean of Pr[D(x) < D(y)], does not (1/2 for equal laws, 1 for copies).

    Cells are those of a k-means partition of at most 10,000 training rows' features (one k-means++ start of fixed
    seed): ``cells`` of them, fewer where there would be less than 20 held-out rows in one on average. Cells with fewer
    than 5 rows of either kind are left out; where none is left, the whole space is one cell.

    Null law: for samples of the data's law, C_T is asymptotically normal with mean 0 and the standard deviation
    ``details["null_sd"]`` = (sum_c w_c^2)^(1/2) / sum_c w_c. The interval is the jackknife's for the expectation at
    this n, conditional on training rows and cells; the z-scores of half-samples of m rows are multiplied by (n /
    m)^(1/2) first.

    Cost: a search O(n N d), shared with ``nearest_train`` of the same features, and k-means, O(10,000 cells d) a pass,
    once per training set. Raises ParameterError for cells < 1; ShapeError, NumericalError for bad rows; NumericalError
    when half or more of the reference are training rows.

    Source: Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in generative models",
    AISTATS 2020, the statistic C_T (their published code takes the nearest training row of the same cell; here it is
    that of all).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, cells: Annotated[int, Field(ge=1)] = 10, features: FeatureExtractor | str = "identity") -> None:
        if cells < 1:
            raise ParameterError("C_T needs a cell", got=cells, allowed=">= 1", where="metrics.data_copying")
        self.cells = cells
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """One measurement, ``data_copying``."""
        n = check_input(data)
        extractor = self.features.fit(data.dataset)
        search = TrainingRows(extractor, data.train, data.dataset)
        reference = search.nearest(data.reference)
        check_held_out(reference, data.reference_name, "metrics.data_copying")
        near, held_out = search.nearest(data.samples).distance, reference.distance
        centres = _cell_centres(search, max(1, min(self.cells, n // _HELD_OUT_PER_CELL, len(data.train))))
        cell_x, cell_y = (_cells_of(search, rows, centres) for rows in (data.samples, data.reference))
        count_x, count_y = (np.bincount(cells, minlength=len(centres)) for cells in (cell_x, cell_y))
        used = np.flatnonzero((count_x >= _LEAST) & (count_y >= _LEAST))
        if not len(used):
            cell_x, cell_y, used = np.zeros(n, np.int64), np.zeros(n, np.int64), np.array([0])
            count_y = np.array([n])
        halves = half_samples(n, data.seed).with_whole()
        values = np.array(
            [
                _c_t(near[a], held_out[b], cell_x[a], cell_y[b], used) * math.sqrt(n / a.sum())
                for a, b in zip(halves.samples, halves.reference, strict=True)
            ]
        )
        interval = jackknife_interval(float(values[0]), values[1:], n)
        weights = count_y[used] / count_y[used].sum()
        record: dict[str, Any] = {
            **details(extractor, data, search.dimension),
            "train_rows": len(data.train),
            "cells": len(used),
            "cells_asked": self.cells,
            "cells_left_out": len(centres) - len(used),
            "null_sd": float(np.sqrt((weights**2).sum())),
            "share_nearer": _share_nearer(near, held_out, cell_x, cell_y, used),
            "lowest_cell": float(min(_z_score(near[cell_x == c], held_out[cell_y == c]) for c in used)),
            **interval.details,
        }
        return [Measurement("data_copying", float(values[0]), interval.low, interval.high, n, details=record)]


def _cell_centres(search: TrainingRows, count: int) -> NDArray[np.float64]:
    """Centres (count, c) of a k-means partition of the training rows' features; the mean for count = 1."""
    return _centres.get((search.key, count), lambda: _k_means(search.some_features(_FITTED_ROWS), count))


def _k_means(features: NDArray[np.floating[Any]], count: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans

    if count == 1:
        return features.mean(axis=0, keepdims=True, dtype=np.float64)
    fitted = KMeans(count, n_init=1, max_iter=50, random_state=0).fit(features)
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)


def _cells_of(search: TrainingRows, rows: NDArray[np.float32], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the nearest centre of each row, (n,)."""
    tiles = (rows[start : start + _TILE_ROWS] for start in range(0, len(rows), _TILE_ROWS))
    found = []
    for tile in tiles:
        features = np.asarray(search.features_of(tile), dtype=np.float64)
        found.append(squared_distances(features - centres[0], centres - centres[0]).argmin(axis=1))
    return np.concatenate(found)


def _c_t(
    near: NDArray[np.float64],
    held_out: NDArray[np.float64],
    cell_x: NDArray[np.int64],
    cell_y: NDArray[np.int64],
    used: NDArray[np.int64],
) -> float:
    """C_T over the cells ``used``; a cell without rows of both kinds (in a half-sample) has no weight."""
    total = weight = 0.0
    for c in used:
        x, y = near[cell_x == c], held_out[cell_y == c]
        if len(x) and len(y):
            total += len(y) * _z_score(x, y)
            weight += len(y)
    return total / weight if weight else float("nan")


def _z_score(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Mann-Whitney z-score of x against y: negative where x tends to be smaller; 0 where all are equal."""
    m, k = len(x), len(y)
    u = _larger_pairs(x, y)
    size = m + k
    _, ties = np.unique(np.concatenate([x, y]), return_counts=True)
    variance = m * k / 12 * (size + 1 - float((ties**3 - ties).sum()) / (size * (size - 1)))
    return (u - m * k / 2) / math.sqrt(variance) if variance > 0 else 0.0


def _larger_pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pairs with x_i > y_j, equal ones counted half."""
    ordered = np.sort(y)
    below, up_to = (np.searchsorted(ordered, x, side) for side in ("left", "right"))
    return float((below + up_to).sum()) / 2


def _share_nearer(
    near: NDArray[np.float64],
    held_out: NDArray[np.float64],
    cell_x: NDArray[np.int64],
    cell_y: NDArray[np.int64],
    used: NDArray[np.int64],
) -> float:
    """Mean over the cells of Pr[D(x) < D(y)], weighted as C_T is."""
    pairs = [(near[cell_x == c], held_out[cell_y == c]) for c in used]
    weights = [len(y) for _, y in pairs]
    shares = [1.0 - _larger_pairs(x, y) / (len(x) * len(y)) for x, y in pairs]
    return float(np.average(shares, weights=weights))
