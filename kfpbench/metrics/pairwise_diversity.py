"""Mean distance between two samples, in features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfpbench.errors import NumericalError
from kfpbench.metrics.inputs import Direction, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.pairwise_distances import centred
from kfpbench.metrics.u_statistics import distance_block, kernel_means
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"pairwise_diversity": "neither", "pairwise_diversity_ratio": "neither"}


class PairwiseDiversity:
    """Mean distance E|X - X'| of two different samples in feature space, and its ratio to the reference's.

        pairwise_diversity       = mean of |x_i - x_j| over i != j
        pairwise_diversity_ratio = the same over that of the reference rows y

    Shapes (n, d). The first in units of the features' distance, unbiased for every n. Ratio: 1 as varied as the
    reference, below 1 less; noise is above 1, so neither direction is better. It sees spread, not modes: half of the
    modes may be as far apart as all of them (``Vendi``, ``ClassEntropy``, ``DensityCoverage`` see those). LPIPS
    diversity is this mean with another distance.

    Intervals by the delete-half jackknife. Cost O(n^2 (d + R)), memory O(n R) and tiles of 16 MiB; R = 20 half-samples.
    Raises ShapeError, NumericalError for bad rows, and for reference rows that are all equal.

    Source: Zhu et al., "Toward multimodal image-to-image translation", NeurIPS 2017 (diversity).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "pca") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``pairwise_diversity`` and ``pairwise_diversity_ratio``."""
        x, y, details = extract(self.features, data)
        n = len(x)
        x, y = centred(x, y)
        halves = half_samples(n, data.seed).with_whole()
        own = kernel_means(distance_block, x, x, halves.samples, halves.samples).of_subsets
        of_reference = kernel_means(distance_block, y, y, halves.reference, halves.reference).of_subsets
        if not of_reference[0] > 0:
            raise NumericalError(
                "all reference rows are equal in these features, so there is no spread to compare with",
                got="mean distance 0",
                allowed="> 0",
                where="metrics.pairwise_diversity",
            )
        details["reference_diversity"] = float(of_reference[0])
        measurements = []
        for name, values in zip(OUTPUTS, (own, own / of_reference), strict=True):
            value = float(values[0])
            interval = jackknife_interval(value, values[1:], n, least=0.0)
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, details={**details, **interval.details})
            )
        return measurements
