"""Distance to the nearest training row, as a measure of memorisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.metrics.held_out import check_held_out
from kfpbench.metrics.inputs import Direction, check_input, details, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.nearest_rows import TrainingRows
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {
    "nearest_train_ratio": "neither",
    "copied_fraction": "lower",
    "memorised_fraction": "lower",
    "blended_fraction": "neither",
}

QUANTILE = 0.01
MEMORISED_MOST, BLEND_MOST = 1 / 3, 0.5  # thresholds, or the 1 % quantile of the held-out rows where that is lower


class NearestTrain:
    """How much nearer to the training rows, and to the lines between them, the samples are than held-out rows are.

        nearest_train_ratio = median_i D(x_i) / median_j D(y_j),   D(z) = min over training rows t of |z - t|
        copied_fraction     = (1/n) #{i : D(x_i) <= 1 % quantile of D(y_j)}
        memorised_fraction  = (1/n) #{i : D(x_i) / D_2(x_i) <= min(1/3, 1 % quantile of D(y_j) / D_2(y_j))}
        blended_fraction    = (1/n) #{i : S(x_i) / D(x_i) < min(1/2, 1 % quantile of S(y_j) / D(y_j))}

    for samples x_i and held-out reference rows y_j, (n, d) each, in feature space; D_2(z) is the distance to the second
    nearest training row, S(z) that to the nearest segment between two of the 8 nearest ones.

    - Ratio: 1 as far away as held-out data, far below 1 copying or smoothing, above 1 off the data.
    - Copied fraction: 0.01 for samples like held-out data, 1 for copies. Images that are smoother than the data count
      too: they are near to everything.
    - Memorised fraction: at most 0.01 for samples like held-out data, 1 for copies, and about 0 for smooth images and
      for blends, since it compares with the next training row. Blind to copies with noise of rows that occur twice.
    - Blended fraction: at most 0.01 for samples like held-out data, 1 for points between two training rows that lie
      near each other. A copy is no blend (S / D is taken as 1 at D = 0), and neither is a smooth or average sample:
      gaps to training rows that are at right angles give S / D = 0.71. Blends of rows so far apart that others are
      nearer to the middle are not seen, and in one dimension, where every point lies between two rows, none are.

    With fewer than 100 rows the 1 % quantile lies above the smallest: one of n held-out rows is below it, so read 1/n
    for 0.01.

    Where 1 % or more of the held-out rows are training rows themselves (blank images, few values), a threshold is 0;
    then the copied and the memorised fraction are the samples' share of such rows less that of the held-out rows, at
    least 0.

    The training rows are those of the cell, not resampled: intervals are conditional on them. What the search finds is
    kept per process, by content, and serves ``authenticity`` and ``data_copying`` with the same features too.

    Cost O(n N d) in float32 products, O(n log N) for d <= 8; memory O(2048 x 4096). Raises ShapeError,
    NumericalError for bad rows, and NumericalError when half or more of the reference are training rows: then
    there is no ratio.

    Source: the data-copying test of Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect
    data-copying in generative models", AISTATS 2020, compares the same two sets of distances, by ranks. The
    threshold 1/3 on D / D_2: Yoon, Choi, Kwon and Ryu, "Diffusion probabilistic models generalize when they fail to
    memorize", ICML 2023 workshop. The other numbers are this project's summary.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "identity") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Four measurements, those of ``outputs``."""
        n = check_input(data)
        extractor = self.features.fit(data.dataset)
        search = TrainingRows(extractor, data.train, data.dataset)
        samples, reference = search.nearest(data.samples), search.nearest(data.reference)
        near, held_out = samples.distance, reference.distance
        check_held_out(reference, data.reference_name, "metrics.nearest_train")
        close, held_close = samples.closeness(), reference.closeness()
        between, held_between = samples.betweenness(), reference.betweenness()
        halves = half_samples(n, data.seed).with_whole()
        values = np.array(
            [
                (
                    *_distances(near[a], held_out[b]),
                    _share(close[a], held_close[b], _threshold(held_close[b], MEMORISED_MOST)),
                    float(np.mean(between[a] < _threshold(held_between[b], BLEND_MOST))),
                )
                for a, b in zip(halves.samples, halves.reference, strict=True)
            ]
        )
        record: dict[str, Any] = {
            **details(extractor, data, search.dimension),
            "train_rows": len(data.train),
            "median_distance": float(np.median(near)),
            "median_held_out_distance": float(np.median(held_out)),
            "copy_threshold": float(np.quantile(held_out, QUANTILE)),
            "memorised_threshold": _threshold(held_close, MEMORISED_MOST),
            "blend_threshold": _threshold(held_between, BLEND_MOST),
        }
        measurements = []
        for column, (name, most) in enumerate(zip(OUTPUTS, (np.inf, 1.0, 1.0, 1.0), strict=True)):
            value = float(values[0, column])
            interval = jackknife_interval(value, values[1:, column], n, least=0.0, most=most)
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, details={**record, **interval.details})
            )
        return measurements


def _distances(near: NDArray[np.float64], held_out: NDArray[np.float64]) -> tuple[float, float]:
    """Ratio of medians (NaN for a held-out median of 0); fraction at or below the held-out 1 % quantile."""
    median = float(np.median(held_out))
    ratio = float(np.median(near)) / median if median > 0 else float("nan")
    return ratio, _share(near, held_out, float(np.quantile(held_out, QUANTILE)))


def _share(own: NDArray[np.float64], held_out: NDArray[np.float64], threshold: float) -> float:
    """Share of the samples at or below the threshold; above that of the held-out rows where the threshold is 0."""
    share = float(np.mean(own <= threshold))
    return share if threshold > 0 else max(share - float(np.mean(held_out <= threshold)), 0.0)


def _threshold(held_out: NDArray[np.float64], most: float) -> float:
    """The 1 % quantile of the held-out rows' ratios, at most ``most``.

    "Less" in the blended fraction, not "at most": where held-out rows lie on segments too (in one dimension), nothing
    is told.
    """
    return min(most, float(np.quantile(held_out, QUANTILE)))
