"""Energy distance, unbiased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.metrics.inputs import Direction, check_pair, extract, resolve_features
from kfpbench.metrics.intervals import discrepancy_interval, half_samples
from kfpbench.metrics.pairwise_distances import TILE_ELEMENTS, centred
from kfpbench.metrics.u_statistics import distance_block, two_sample_statistic
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"energy_distance": "lower"}


def energy_distance(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> float:
    """Unbiased estimate of 2 E|X - Y| - E|X - X'| - E|Y - Y'| from x (n, d) and y (m, d); 0 for equal laws.

    A U-statistic: the diagonals i = i' are left out, so it may be negative. Units of the data. Cost O((n +
    m)^2 d) time, O(n + m) memory. Raises ShapeError for fewer than two rows or unequal d, NumericalError for
    NaN or infinity.

    Source: Szekely and Rizzo, "Energy statistics", J. Stat. Plan. Inference 143(8):1249 (2013).
    """
    x64, y64 = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_pair(x64, y64)
    ones = [np.ones((1, len(z)), dtype=bool) for z in (x64, y64)]
    return float(energies(x64, y64, ones[0], ones[1])[0][0])


def energies(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
    elements: int = TILE_ELEMENTS,
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The statistic on each pair of subsets (S, n), (S, m) boolean -> (S,), and the two parts of its variance."""
    x, y = centred(x, y)
    statistics, variances = two_sample_statistic(distance_block, x, y, parts_x, parts_y, elements)
    return -statistics, variances


class EnergyDistance:
    """Energy distance D = 2 E|X - Y| - E|X - X'| - E|Y - Y'| between samples and reference in feature space.

    The U-statistic of ``energy_distance``: unbiased for every n, 0 in expectation if and only if the laws are
    equal, in units of the features' distance. Distances and sums are float64, in tiles of 16 MiB; values on
    R = 20 half-samples, which pair cells, are sums over sub-blocks of the same tiles, so each distance is
    computed once. Cost O(n^2 (d + R)).

    The interval covers the population value, between equal laws too (``intervals.discrepancy_interval``, with
    the variance of the U-statistic).

    Raises ShapeError, NumericalError for bad rows; UnknownComponentError for an unknown name of features.
    Source: Szekely and Rizzo, J. Stat. Plan. Inference 143(8):1249 (2013).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "identity") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """One measurement, ``energy_distance``."""
        x, y, details = extract(self.features, data)
        n = len(x)
        halves = half_samples(n, data.seed).with_whole()
        values, variances = energies(x, y, halves.samples, halves.reference)
        interval = discrepancy_interval(float(values[0]), *variances, values[1:], n)
        return [
            Measurement(
                "energy_distance",
                float(values[0]),
                interval.low,
                interval.high,
                n,
                details={**details, "estimator": "U-statistic", **interval.details},
            )
        ]
