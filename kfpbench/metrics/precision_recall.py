"""Improved precision and recall."""

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

OUTPUTS: dict[str, Direction] = {"precision": "higher", "recall": "higher"}


class PrecisionRecall:
    """Precision: share of samples in the reference's manifold; recall: share of reference in the samples'.

        f(z, Y) = 1 if |z - y| <= |y - NN_k(y, Y)| for some y in Y, else 0
        precision = (1/n) sum_i f(x_i, Y),   recall = (1/n) sum_j f(y_j, X)

    with samples X and reference Y (n, d) in feature space and NN_k the k-th nearest other row. Fractions in
    [0, 1]. Both depend on n, k and the features; one far outlier of Y opens a large ball (``DensityCoverage``
    is less sensitive).

    Intervals are for the expectation at this n, and too short where such outliers decide (see ``intervals``).
    Cost O(n^2 (d + R)), memory O(n R) and tiles of 16 MiB; R = 20 half-samples. Raises ParameterError for k <
    1 or k >= n; ShapeError, NumericalError for bad rows.

    Source: Kynkaanniemi, Karras, Laine, Lehtinen and Aila, "Improved precision and recall metric for
    assessing generative models", NeurIPS 2019, eq. (1) and (2).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, k: Annotated[int, Field(ge=1)] = 3, features: FeatureExtractor | str = "pca") -> None:
        check_neighbours(k, k + 1, "metrics.precision_recall")
        self.k = k
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``precision`` and ``recall``."""
        x, y, details = extract(self.features, data)
        n = len(x)
        check_neighbours(self.k, n, "metrics.precision_recall")
        halves = half_samples(n, data.seed, replicates_for(n, self.k)).with_whole()
        values = _precision_recall(x, y, self.k, halves.samples, halves.reference)
        measurements = []
        for name, of_subsets in zip(OUTPUTS, values, strict=True):
            interval = jackknife_interval(float(of_subsets[0]), of_subsets[1:], n, least=0.0, most=1.0)
            record = {**details, "k": self.k, **interval.details}
            measurements.append(Measurement(name, float(of_subsets[0]), interval.low, interval.high, n, details=record))
        return measurements


def _precision_recall(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    k: int,
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall on each pair of subsets, (S,) each."""
    x, y = centred(x, y)
    tolerance = rounding(x, y)
    in_reference = count_balls(x, y, squared_radii(y, k, parts_y), parts_x, tolerance=tolerance)
    in_samples = count_balls(y, x, squared_radii(x, k, parts_x), parts_y, tolerance=tolerance)
    precision = (in_reference.balls_of_point > 0).sum(axis=1) / parts_x.sum(axis=1)
    recall = (in_samples.balls_of_point > 0).sum(axis=1) / parts_y.sum(axis=1)
    return precision, recall
