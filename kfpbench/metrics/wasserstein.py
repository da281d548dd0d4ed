"""Exact Wasserstein distances between two clouds, in low dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from kfpbench.errors import CapabilityError, ParameterError, ShapeError
from kfpbench.metrics.inputs import Direction, check_pair, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.pairwise_distances import centred, squared_distances
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"wasserstein_1": "lower", "wasserstein_2": "lower"}


def wasserstein(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]], order: int) -> float:
    """W_p = (min over permutations s of (1/n) sum_i |x_i - y_s(i)|^p)^(1/p) of clouds x, y (n, d), p = ``order``.

    In one dimension the sorted rows are matched, O(n log n); else an assignment problem is solved, O(n^3) time and
    O(n^2) memory. Exact to rounding. Raises ShapeError for unequal n or d, NumericalError for NaN or infinity.

    Source: Peyre and Cuturi, "Computational Optimal Transport", 2019, sections 2.2 and 2.6.
    """
    x64, y64 = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_pair(x64, y64)
    if len(x64) != len(y64):
        raise ShapeError("the clouds hold different numbers of rows", got=(len(x64), len(y64)), allowed="equal n")
    whole = np.ones((1, len(x64)), dtype=bool)
    return float(_distances(x64, y64, whole, whole)[order - 1, 0])


class Wasserstein:
    """Wasserstein distances of order 1 and 2 between the empirical laws of samples and reference, exactly.

        W_p = (min_s (1/n) sum_i |x_i - y_s(i)|^p)^(1/p)   over all permutations s of the n rows, p = 1, 2

    Shapes (n, d) in feature space; units of the features' distance. Sorted rows in one dimension, else an assignment
    problem. A plug-in estimate: biased upwards, by O(n^(-1/d)) for d > 2, so that in more than a few dimensions it says
    more about n than about the samples; compare at equal n only. The interval is for the expectation at this n.

    Cost O(n log n) for d = 1, else O(n^3) with 2 n^2 numbers of memory, and 5 times that for R = 20 half-samples.
    Raises CapabilityError, so that the cell keeps its other metrics, above ``max_dimension`` and, for d > 1, above
    ``max_rows``; ParameterError for limits below 1; ShapeError, NumericalError for bad rows.

    Source: Peyre and Cuturi, "Computational Optimal Transport", 2019, section 2.2; Fournier and Guillin, Probab. Theory
    Relat. Fields 162:707 (2015), theorem 1, for the rate.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(
        self,
        max_dimension: Annotated[int, Field(ge=1)] = 16,
        max_rows: Annotated[int, Field(ge=1)] = 2000,
        features: FeatureExtractor | str = "identity",
    ) -> None:
        if max_dimension < 1 or max_rows < 1:
            raise ParameterError(
                "no distance is allowed", got=(max_dimension, max_rows), allowed=">= 1", where="metrics.wasserstein"
            )
        self.max_dimension, self.max_rows = max_dimension, max_rows
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``wasserstein_1`` and ``wasserstein_2``."""
        x, y, details = extract(self.features, data)
        n, d = x.shape
        self._check_size(n, d)
        halves = half_samples(n, data.seed).with_whole()
        measurements = []
        for name, values in zip(OUTPUTS, _distances(x, y, halves.samples, halves.reference), strict=True):
            value = float(values[0])
            interval = jackknife_interval(value, values[1:], n, least=0.0)
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, details={**details, **interval.details})
            )
        return measurements

    def _check_size(self, n: int, d: int) -> None:
        if d > self.max_dimension:
            raise CapabilityError(
                "in so many dimensions an empirical Wasserstein distance shows n, not the samples",
                got=f"{d} features",
                allowed=f"up to max_dimension = {self.max_dimension}",
                remedy="Take fewer features, as features: {name: pca, components: 8}, or sliced_wasserstein.",
                where="metrics.wasserstein",
            )
        if d > 1 and n > self.max_rows:
            raise CapabilityError(
                "an assignment of so many rows takes minutes and n^2 numbers",
                got=f"n = {n}",
                allowed=f"up to max_rows = {self.max_rows} for more than one dimension",
                remedy="Draw fewer samples, raise max_rows, or take sliced_wasserstein.",
                where="metrics.wasserstein",
            )


def _distances(
    x: NDArray[np.float64], y: NDArray[np.float64], parts_x: NDArray[np.bool_], parts_y: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """W_1 and W_2 on each pair of equally large subsets, (2, S)."""
    pairs = list(zip(parts_x, parts_y, strict=True))
    if x.shape[1] == 1:
        gaps = [np.sort(x[a, 0]) - np.sort(y[b, 0]) for a, b in pairs]
        return np.array([[np.abs(gap).mean() for gap in gaps], [np.sqrt(np.square(gap).mean()) for gap in gaps]])
    x, y = centred(x, y)
    squared = squared_distances(x, y)
    second = np.sqrt([_least_mean_cost(squared[np.ix_(a, b)]) for a, b in pairs])
    distances = np.sqrt(squared, out=squared)
    first = np.array([_least_mean_cost(distances[np.ix_(a, b)]) for a, b in pairs])
    return np.stack([first, second])


def _least_mean_cost(costs: NDArray[np.float64]) -> float:
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())
