"""The samples of a cell that come nearest to a training image, beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.errors import CapabilityError
from kfpbench.metrics.authenticity import Authenticity
from kfpbench.metrics.data_copying import DataCopying
from kfpbench.metrics.inputs import resolve_features
from kfpbench.metrics.nearest_rows import TrainingRows
from kfpbench.metrics.nearest_train import NearestTrain
from kfpbench.store.pair_grid import pair_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset
    from kfpbench.protocols import FeatureExtractor

PAIRS = 8
_SEARCHING = (NearestTrain, Authenticity, DataCopying)


def nearest_pairs(
    metrics: Sequence[Any], dataset: Dataset, samples: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[dict[str, Any], bytes] | None:
    """The record and the PNG of the 8 samples (n, d) nearest to a training image, nearest first; None for other data.

    The features are those of the first metric that searches the training rows, so that its search serves here too;
    where the cell has none, principal components, in which a search costs little. None for a cell without metrics: it
    asks for speed alone. ``reference`` (n, d) gives the median held-out distance, to which the ratios are.
    """
    if dataset.image_shape is None or not metrics:
        return None
    extractor = _fitted(metrics, dataset)
    search = TrainingRows(extractor, dataset.train, dataset)
    found, held_out = search.nearest(samples), float(np.median(search.nearest(reference).distance))
    chosen = np.argsort(found.distance, kind="stable")[:PAIRS]
    distance, train = found.distance[chosen], found.index[chosen]
    ratio = distance / held_out if held_out > 0 else np.full(len(chosen), np.nan)
    texts = [(f"{d:.3g}", f"ratio {r:.2f}" if np.isfinite(r) else "") for d, r in zip(distance, ratio, strict=True)]
    shape = (-1, *dataset.image_shape)
    picture = pair_picture(samples[chosen].reshape(shape), dataset.train[train].reshape(shape), texts)
    record = {
        "features": type(extractor).__name__.lower(),
        "features_version": extractor.version,
        "sample": chosen.tolist(),
        "train": train.tolist(),
        "distance": distance.tolist(),
        "ratio": [float(value) if np.isfinite(value) else None for value in ratio],
        "median_held_out_distance": held_out,
    }
    return record, picture


def _fitted(metrics: Sequence[Any], dataset: Dataset) -> FeatureExtractor:
    for metric in metrics:
        if isinstance(metric, _SEARCHING):
            try:
                return metric.features.fit(dataset)
            except CapabilityError:  # the metric was left out for the same reason
                continue
    return resolve_features("pca" if len(dataset.train) > 1 else "identity").fit(dataset)
