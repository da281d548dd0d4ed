"""Density and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from kfpbench.metrics.inputs import Direction, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.neighbour_balls import check_neighbours, count_balls, replicates_for, squared_radii
from kfpbench.metrics.pairwise_distances import centred, rounding
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"density": "higher", "coverage": "higher"}


class DensityCoverage:
    """Density: mean number of reference balls around a sample, over k; coverage: share of balls holding one.

        density  = 1/(k n) sum_i sum_j 1[x_i in B(y_j, NND_k(y_j))]
        coverage = 1/n sum_j 1[some x_i in B(y_j, NND_k(y_j))]

    with closed balls B whose radius NND_k(y_j) is the distance from y_j to its k-th nearest other reference
    row. Shapes (n, d) in feature space. Density is 1 in expectation for equal laws, may exceed 1 (samples
    crowded where the reference is dense), and lies in [0, n / k]; coverage lies in [0, 1] and is about 1 -
    2^-k for equal laws.

    Intervals are for the expectation at this n; that of density is too short where a few outliers of the
    reference own large balls (see ``intervals``). Cost O(n^2 (d + R)), memory O(n R) and tiles of 16 MiB; R =
    20 half-samples. Raises ParameterError for k < 1 or k >= n; ShapeError, NumericalError for bad rows.

    Source: Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and diversity metrics for generative models", ICML
    2020, the definitions of density and coverage.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, k: Annotated[int, Field(ge=1)] = 5, features: FeatureExtractor | str = "pca") -> None:
        check_neighbours(k, k + 1, "metrics.density_coverage")
        self.k = k
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``density`` and ``coverage``."""
        x, y, details = extract(self.features, data)
        n = len(x)
        check_neighbours(self.k, n, "metrics.density_coverage")
        halves = half_samples(n, data.seed, replicates_for(n, self.k)).with_whole()
        density, coverage = _density_coverage(x, y, self.k, halves.samples, halves.reference)
        measurements = []
        for name, of_subsets, most in (("density", density, n / self.k), ("coverage", coverage, 1.0)):
            interval = jackknife_interval(float(of_subsets[0]), of_subsets[1:], n, least=0.0, most=most)
            record = {**details, "k": self.k, **interval.details}
            measurements.append(Measurement(name, float(of_subsets[0]), interval.low, interval.high, n, details=record))
        return measurements


def _density_coverage(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    k: int,
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density and coverage on each pair of subsets, (S,) each."""
    x, y = centred(x, y)
    counts = count_balls(x, y, squared_radii(y, k, parts_y), parts_x, tolerance=rounding(x, y))
    density = counts.balls_of_point.sum(axis=1) / (k * parts_x.sum(axis=1))
    coverage = counts.point_in_ball.sum(axis=1) / parts_y.sum(axis=1)
    return density, coverage
