"""Sliced Wasserstein distance of order 2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from kfpbench.errors import ParameterError
from kfpbench.metrics.inputs import Direction, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"sliced_wasserstein": "lower"}


class SlicedWasserstein:
    """Sliced 2-Wasserstein distance SW = (E_u W_2^2(u.X, u.Y))^(1/2), u uniform on the unit sphere.

    In one dimension W_2^2 between two samples of n points is (1/n) sum_i (x_(i) - y_(i))^2 over sorted
    values, exactly. The mean over u is taken over ``projections`` seeded directions, the same for every cell
    with the same seed and d. Units of the features' distance.

    A plug-in estimate: biased upwards by O(n^(-1/2)) between equal laws, so compare at equal n only. The
    interval adds the variance over directions to the jackknife's, and is for the expectation at this n. Cost
    O(P n (d + log n + R)), memory O(P n).

    Raises ParameterError for projections < 2; ShapeError, NumericalError for bad rows.
    Source: Bonneel, Rabin, Peyre and Pfister, "Sliced and Radon Wasserstein barycenters of measures", J.
    Math. Imaging Vis. 51:22 (2015).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(
        self,
        projections: Annotated[int, Field(ge=2)] = 128,
        features: FeatureExtractor | str = "identity",
    ) -> None:
        if projections < 2:
            raise ParameterError("too few projections to average over", got=projections, allowed=">= 2")
        self.projections = projections
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """One measurement, ``sliced_wasserstein``."""
        x, y, details = extract(self.features, data)
        n, d = x.shape
        directions = unit_directions(self.projections, d, data.seed)
        halves = half_samples(n, data.seed).with_whole()
        squared = _projected_costs(x @ directions.T, y @ directions.T, halves.samples, halves.reference)  # (S, P)
        values = np.sqrt(squared.mean(axis=1))
        value = float(values[0])
        # Var of the mean over directions, carried through the square root (delta method)
        variance = float(squared[0].var(ddof=1)) / self.projections
        direction_variance = variance / (4.0 * value**2) if value > 0 else 0.0
        interval = jackknife_interval(value, values[1:], n, least=0.0, extra_variance=direction_variance)
        record: dict[str, Any] = {
            **details,
            "order": 2,
            "projections": self.projections,
            "direction_sd": math.sqrt(direction_variance),
            **interval.details,
        }
        return [Measurement("sliced_wasserstein", value, interval.low, interval.high, n, details=record)]


def unit_directions(count: int, d: int, seed: int) -> NDArray[np.float64]:
    """Directions uniform on the unit sphere, shape (count, d); a function of (count, d, seed) alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed % 2**63, 0x5357]))  # apart from other uses of the seed
    normal = rng.standard_normal((count, d))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _projected_costs(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """W_2^2 of each projection (columns of x and y, (n, P)) on each pair of equally large subsets -> (S, P).

    A subset of sorted values is sorted: each projection is sorted once for all subsets.
    """
    costs = np.empty((len(parts_x), x.shape[1]))
    for p in range(x.shape[1]):
        order_x, order_y = np.argsort(x[:, p]), np.argsort(y[:, p])
        sorted_x, sorted_y = x[order_x, p], y[order_y, p]
        for s, (part_x, part_y) in enumerate(zip(parts_x, parts_y, strict=True)):
            gap = sorted_x[part_x[order_x]] - sorted_y[part_y[order_y]]
            costs[s, p] = gap @ gap / len(gap)
    return costs
