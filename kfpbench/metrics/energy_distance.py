"""Energy distance, unbiased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.metrics.inputs import Direction, check_pair, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.pairwise_distances import TILE_ELEMENTS, centred, row_tiles
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
    return float(_energies(x64, y64, ones[0], ones[1])[0])


class EnergyDistance:
    """Energy distance D = 2 E|X - Y| - E|X - X'| - E|Y - Y'| between samples and reference in feature space.

    The U-statistic of ``energy_distance``: unbiased for every n, 0 in expectation if and only if the laws are
    equal, in units of the features' distance. Distances and sums are float64, in tiles of 16 MiB; the
    replicates for the interval are sums over sub-blocks of the same tiles, so each distance is computed once.
    Cost O(n^2 (d + R)).

    The interval covers the population value (the statistic is unbiased). Between equal laws the statistic is
    degenerate and the interval about 1.7 times wider than needed (see ``intervals``): it then holds 0 more
    often than 95 %.

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
        values = _energies(x, y, halves.samples, halves.reference)
        interval = jackknife_interval(float(values[0]), values[1:], n)
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


def _energies(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
    elements: int = TILE_ELEMENTS,
) -> NDArray[np.float64]:
    """The statistic on each pair of subsets: parts_x (S, n), parts_y (S, m) boolean -> (S,)."""
    x, y = centred(x, y)
    in_x, in_y = parts_x.T.astype(np.float64), parts_y.T.astype(np.float64)
    size_x, size_y = in_x.sum(axis=0), in_y.sum(axis=0)
    across = _block_sums(x, y, in_x, in_y, elements) / (size_x * size_y)
    within_x = _block_sums(x, x, in_x, in_x, elements) / (size_x * (size_x - 1))
    within_y = _block_sums(y, y, in_y, in_y, elements) / (size_y * (size_y - 1))
    return 2.0 * across - within_x - within_y


def _block_sums(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    in_a: NDArray[np.float64],
    in_b: NDArray[np.float64],
    elements: int,
) -> NDArray[np.float64]:
    """sum_ij in_a[i, s] |a_i - b_j| in_b[j, s] for every subset s; the diagonal counts 0 when a is b."""
    same = a is b
    sums = np.zeros(in_a.shape[1])
    for start, tile in row_tiles(a, b, elements):
        if same:  # rounding of the product form would leave about 1e-8 |a| there
            rows = np.arange(len(tile))
            tile[rows, start + rows] = 0.0
        np.sqrt(tile, out=tile)
        sums += np.einsum("is,is->s", in_a[start : start + len(tile)], tile @ in_b)
    return sums
