"""Authenticity: the share of samples that are no closer variant of a training row than other training rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfpbench.metrics.held_out import check_held_out
from kfpbench.metrics.inputs import Direction, check_input, details, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.nearest_rows import Nearest, TrainingRows
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"authenticity": "higher", "authenticity_loss": "lower"}


class Authenticity:
    """Share of samples that lie farther from their nearest training row than that row's own nearest other one.

        authenticity      = A(X) = (1/n) #{i : |x_i - t(x_i)| > min over training rows s, not t(x_i), of |t(x_i) - s|}
        authenticity_loss = A(Y) - A(X)

    with t(z) the training row nearest to z, samples X and held-out reference rows Y (n, d each) in feature space. A
    copy is not authentic, and neither is a point halfway between a training row and its nearest neighbour. The
    comparison is strict, so that a copy of a training row that occurs twice (both distances 0) is no authentic sample.
    What independent draws of the data's law score is no constant (0.5 for the digits, 0.94 for the pixels of CIFAR-10,
    where few training rows are nearest to many), so the held-out rows' own score is measured with it: the loss is 0 for
    samples like held-out data and that score for copies.

    Intervals are conditional on the training rows. Searches are kept per process, by content, and shared with
    ``nearest_train`` and ``data_copying`` of the same features; the training rows' own gaps are computed for those rows
    alone that are nearest to some sample. Cost O(n N d) of each, memory O(2048 x 4096). Raises ShapeError for fewer
    than two training rows; ShapeError, NumericalError for bad rows; NumericalError when half or more of the reference
    are training rows.

    Source: Alaa, van Breugel, Saveliev and van der Schaar, "How faithful is your synthetic data? Sample-level metrics
    for evaluating and auditing generative models", ICML 2022, the authenticity score A. The published code searches
    the nearest sample of each training row instead; this is the definition of the text.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "identity") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``authenticity`` and ``authenticity_loss``."""
        n = check_input(data)
        extractor = self.features.fit(data.dataset)
        search = TrainingRows(extractor, data.train, data.dataset)
        nearest, reference = search.nearest(data.samples), search.nearest(data.reference)
        check_held_out(reference, data.reference_name, "metrics.authenticity")
        samples, held_out = _authentic(search, nearest), _authentic(search, reference)
        halves = half_samples(n, data.seed).with_whole()
        of_samples = (halves.samples @ samples) / halves.samples.sum(axis=1)
        of_held_out = (halves.reference @ held_out) / halves.reference.sum(axis=1)
        record = {
            **details(extractor, data, search.dimension),
            "train_rows": len(data.train),
            "held_out_authenticity": float(of_held_out[0]),
        }
        measurements = []
        for name, values, least in zip(OUTPUTS, (of_samples, of_held_out - of_samples), (0.0, -1.0), strict=True):
            interval = jackknife_interval(float(values[0]), values[1:], n, least=least, most=1.0)
            measurements.append(
                Measurement(
                    name, float(values[0]), interval.low, interval.high, n, details={**record, **interval.details}
                )
            )
        return measurements


def _authentic(search: TrainingRows, nearest: Nearest) -> NDArray[np.float64]:
    """1 for an authentic row, 0 for another, (n,)."""
    return (nearest.distance > search.gaps(nearest.index)).astype(np.float64)
