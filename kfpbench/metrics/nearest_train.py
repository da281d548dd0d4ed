"""Distance to the nearest training row, as a measure of memorisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from kfpbench.errors import NumericalError, ShapeError
from kfpbench.features.content_cache import ContentCache, digest, training_key
from kfpbench.features.identity import Identity
from kfpbench.metrics.inputs import Direction, check_input, check_rows, details, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"nearest_train_ratio": "neither", "copied_fraction": "lower"}

COPY_QUANTILE = 0.01
_TREE_UP_TO = 8  # dimension up to which a k-d tree answers in O(log N) per row
_SAMPLE_TILE, _TRAIN_TILE = 2048, 4096
_CANDIDATES = 4

_held_out: ContentCache[NDArray[np.float64]] = ContentCache(size=16)

Transform = Callable[["NDArray[np.float32]"], "NDArray[np.floating[Any]]"]


class NearestTrain:
    """How much nearer to the training rows the samples are than held-out rows are.

        nearest_train_ratio = median_i D(x_i) / median_j D(y_j),   D(z) = min over training rows t of |z - t|
        copied_fraction     = (1/n) #{i : D(x_i) <= 1 % quantile of D(y_j)}

    for samples x_i and held-out reference rows y_j, (n, d) each, in feature space. Ratio: 1 as far away as
    held-out data, far below 1 copying, above 1 off the data. Copied fraction: 0.01 for samples like held-out
    data, 1 for copies. The training rows are those of the cell, not resampled: intervals are conditional on
    them. The reference's distances are the same in many cells and are kept per process, by content (the last
    16).

    Cost O(n N d) in float32 products, O(n log N) for d <= 8; memory O(2048 x 4096). Raises ShapeError,
    NumericalError for bad rows, and NumericalError when the reference's median distance is 0 (the reference
    is in the training set): then there is no ratio.

    Source: the data-copying test of Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect
    data-copying in generative models", AISTATS 2020, compares the same two sets of distances, by ranks; the
    ratio and the fraction are this project's summary.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "identity") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``nearest_train_ratio`` and ``copied_fraction``."""
        n = check_input(data)
        extractor = self.features.fit(data.dataset)
        # rows are their own features: no float64 copy of every training row
        transform = None if isinstance(extractor, Identity) else extractor.transform
        key = (
            *training_key(data.dataset.fingerprint, data.train),
            data.dataset.train.shape,  # what the features were fitted on
            digest(data.reference),
            extractor.version,
        )
        held_out = _held_out.get(key, lambda: nearest_rows(data.reference, data.train, transform=transform)[1])
        near = nearest_rows(data.samples, data.train, transform=transform)[1]
        if not np.median(held_out) > 0:
            raise NumericalError(
                "the median held-out row equals a training row, so there is no distance to compare with",
                got=f"median distance {float(np.median(held_out))}",
                allowed="> 0",
                remedy=f"Check that the {data.reference_name} rows are not training rows.",
                where="metrics.nearest_train",
            )
        halves = half_samples(n, data.seed).with_whole()
        values = np.array(
            [_summary(near[a], held_out[b]) for a, b in zip(halves.samples, halves.reference, strict=True)]
        )
        dimension = extractor.transform(data.samples[:1]).shape[1]
        record: dict[str, Any] = {
            **details(extractor, data, dimension),
            "train_rows": len(data.train),
            "median_distance": float(np.median(near)),
            "median_held_out_distance": float(np.median(held_out)),
            "copy_threshold": float(np.quantile(held_out, COPY_QUANTILE)),
        }
        measurements = []
        for column, (name, most) in enumerate((("nearest_train_ratio", np.inf), ("copied_fraction", 1.0))):
            value = float(values[0, column])
            interval = jackknife_interval(value, values[1:, column], n, least=0.0, most=most)
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, details={**record, **interval.details})
            )
        return measurements


def nearest_rows(
    samples: NDArray[np.float32], train: NDArray[np.float32], *, transform: Transform | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index of the nearest training row of each sample, and the Euclidean distance to it.

    Shapes: samples (n, d), train (N, d) -> (n,), (n,). ``transform`` maps rows to features first, tile by
    tile. For d <= 8 a k-d tree in float64. Beyond, |t|^2 - 2 s.t in float32 over tiles, about the mean
    training row, proposes four candidates for each sample, and their distances are recomputed from
    differences in float64: the distance returned is exact for the row returned, copies get 0, and that row is
    the nearest up to the rounding of float32 products (a squared distance of about 1e-6 |s|^2). Equal
    distances: one of the nearest rows. Cost O(n N d), or O(n log N) for d <= 8. Raises ShapeError for unequal
    d, NumericalError for NaN or infinity in the samples.
    """
    check_rows(samples, "samples", least=1)
    if train.ndim != 2 or len(train) < 1 or train.shape[1] != samples.shape[1]:
        raise ShapeError(
            "training rows do not match the samples",
            got=(samples.shape, train.shape),
            allowed="(n, d) and (N >= 1, d)",
        )
    to_features: Transform = transform if transform is not None else np.asarray
    queries = np.asarray(to_features(samples), dtype=np.float64)
    check_rows(queries, "features of the samples", least=1)
    if queries.shape[1] <= _TREE_UP_TO:
        distance, index = KDTree(to_features(train)).query(queries)
        return np.asarray(index, dtype=np.int64), np.asarray(distance, dtype=np.float64)
    candidates = _candidates(queries, train, to_features)
    return _nearest_candidate(queries, train, candidates, to_features)


def _candidates(queries: NDArray[np.float64], train: NDArray[np.float32], to_features: Transform) -> NDArray[np.int64]:
    """Indices (n, c) of the c = min(4, N) nearest training rows according to float32 products."""
    import torch

    n, count = len(queries), min(_CANDIDATES, len(train))
    some = to_features(train[:: max(1, len(train) // _TRAIN_TILE)])
    shift = some.mean(axis=0).astype(np.float32)  # near the mean is near enough: it only keeps norms small
    centred = torch.from_numpy((queries - shift).astype(np.float32))
    best = torch.full((n, count), torch.inf)
    index = torch.zeros((n, count), dtype=torch.int64)
    for start in range(0, len(train), _TRAIN_TILE):
        features = to_features(train[start : start + _TRAIN_TILE])
        tile = torch.from_numpy((features - shift).astype(np.float32, copy=False))
        norms = tile.square().sum(dim=1)
        for first in range(0, n, _SAMPLE_TILE):
            rows = slice(first, first + _SAMPLE_TILE)
            relative = torch.addmm(norms, centred[rows], tile.T, alpha=-2.0)  # |t|^2 - 2 s.t
            found, where = relative.topk(min(count, len(tile)), dim=1, largest=False)
            merged, order = torch.cat([best[rows], found], dim=1).topk(count, dim=1, largest=False)
            best[rows] = merged
            index[rows] = torch.cat([index[rows], where + start], dim=1).gather(1, order)
    return index.numpy()


def _nearest_candidate(
    queries: NDArray[np.float64],
    train: NDArray[np.float32],
    candidates: NDArray[np.int64],
    to_features: Transform,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact distances to the candidates, and the nearest of them."""
    squared = np.empty(candidates.shape)
    for first in range(0, len(queries), _SAMPLE_TILE):
        rows = slice(first, first + _SAMPLE_TILE)
        for c in range(candidates.shape[1]):
            gap = queries[rows] - to_features(train[candidates[rows, c]])
            squared[rows, c] = np.einsum("ij,ij->i", gap, gap)
    nearest = squared.argmin(axis=1)
    every = np.arange(len(queries))
    return candidates[every, nearest], np.sqrt(squared[every, nearest])


def _summary(near: NDArray[np.float64], held_out: NDArray[np.float64]) -> tuple[float, float]:
    """Ratio of medians (NaN for a held-out median of 0); fraction at or below the held-out 1 % quantile."""
    median = float(np.median(held_out))
    ratio = float(np.median(near)) / median if median > 0 else float("nan")
    return ratio, float(np.mean(near <= np.quantile(held_out, COPY_QUANTILE)))
