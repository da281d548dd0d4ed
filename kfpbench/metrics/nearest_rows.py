"""The nearest training rows of a cloud, and how near it comes to the segments between them, in feature space.

What a search finds is kept per process, by content: all metrics and pictures of a cell share one search. Where the
cache is in use it is kept on the disk too: the held-out rows of a data set are searched once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from kfpbench.cache.code_version import class_name, code_version
from kfpbench.cache.key import Key
from kfpbench.cache.use import Stored, current, remember
from kfpbench.data.row_identity import digest, training_key
from kfpbench.errors import ShapeError
from kfpbench.features.content_cache import ContentCache
from kfpbench.features.identity import Identity
from kfpbench.metrics.inputs import check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset
    from kfpbench.protocols import FeatureExtractor

NEIGHBOURS = 8  # training rows around a sample between which segments are looked at
_TREE_UP_TO = 8  # dimension up to which a k-d tree answers in O(log N) per row
_SAMPLE_TILE, _TRAIN_TILE = 2048, 4096
_EXACT_ELEMENTS = 2**22  # float64 numbers of a tile of differences: 32 MiB
_KEPT_BYTES = 2**28  # features of the training rows are kept up to this size, else computed again tile by tile

Transform = Callable[["NDArray[np.float32]"], "NDArray[np.floating[Any]]"]


@dataclass(frozen=True)
class Nearest:
    """Of n rows: the nearest training row's ``index``, its ``distance``, that of the ``second`` nearest one, and the
    distance to the nearest ``segment``.

    Shapes (n,). Where there is one training row alone, it is the second too. Segments are those between two of the
    row's 8 nearest training rows, ends included, so that segment <= distance.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    second: NDArray[np.float64]
    segment: NDArray[np.float64]

    def closeness(self) -> NDArray[np.float64]:
        """distance / second (n,): 0 for a copy of a training row, 1 for a row halfway between two."""
        return np.where(self.distance == 0, 0.0, self.distance / np.where(self.second == 0, 1.0, self.second))

    def betweenness(self) -> NDArray[np.float64]:
        """segment / distance (n,): 0 on a segment between two training rows, 1 for a copy of one and where no other
        training row helps.
        """
        copies = self.distance == 0
        return np.where(copies, 1.0, self.segment / np.where(copies, 1.0, self.distance))


_found: ContentCache[Nearest] = ContentCache(size=16)
_gaps: ContentCache[NDArray[np.float64]] = ContentCache(size=4)
_features: ContentCache[NDArray[np.float64]] = ContentCache(size=2)


class TrainingRows:
    """The training rows (N, d) as a fitted extractor sees them, with searches among them that are done once.

    ``key`` identifies rows and features, ``dimension`` is the number of features. Results are kept by content: those of
    the last 16 clouds, the gaps of the last 4 training sets, and the features of the last 2 where they take at most
    256 MiB.
    """

    def __init__(self, extractor: FeatureExtractor, train: NDArray[np.float32], dataset: Dataset) -> None:
        self._rows = train
        self._transform: Transform = np.asarray if isinstance(extractor, Identity) else extractor.transform
        fitted_on = dataset.train.shape
        self.key = (*training_key(dataset.fingerprint, train), fitted_on, extractor.version)
        first = extractor.transform(train[:1])
        self.dimension = first.shape[1]
        # a version does not name every parameter of a plugin: what it makes of a row tells it from another one
        self._seen_as, self._extractor = digest(first), type(extractor)

    def nearest(self, rows: NDArray[np.float32]) -> Nearest:
        """What `nearest_rows` finds for the rows (n, d)."""
        which = digest(rows)
        return _found.get(
            (*self.key, which), lambda: self._search(self._transform(rows)), lambda: self._stored("rows", which)
        )

    def gaps(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distance of each of these training rows to the nearest other one, (m,); 0 for a row that occurs twice.

        Computed for rows that no earlier call asked for. Raises ShapeError for fewer than two training rows.
        """
        if len(self._rows) < 2:
            raise ShapeError("a training row has no other one beside it", got=self._rows.shape, allowed="(N >= 2, d)")
        known = _gaps.get(self.key, lambda: np.full(len(self._rows), np.nan))
        wanted = np.unique(index)
        new = wanted[np.isnan(known[wanted])]
        if len(new):
            stored = self._stored("training rows", digest(new)) if current() is not None else None
            known[new] = remember(
                stored, lambda: self._search(self._transform(self._rows[new]), own=new)
            ).value.distance
        return known[index]

    def some_features(self, most: int) -> NDArray[np.floating[Any]]:
        """Features of at most ``most`` training rows, evenly spaced."""
        train, to_features = self._train_features()
        return to_features(train[:: -(-len(train) // most)])

    def features_of(self, rows: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Features of other rows (n, d), shape (n, c)."""
        return self._transform(rows)

    def _stored(self, what: str, which: str) -> Stored[Nearest]:
        code = {class_name(part): code_version(part) for part in (TrainingRows, self._extractor)}
        parts = {"among": self.key, "first": self._seen_as, what: which, "code": code}
        return Stored(Key("nearest", parts), Nearest)

    def _search(self, queries: NDArray[np.floating[Any]], own: NDArray[np.int64] | None = None) -> Nearest:
        return _nearest(queries, *self._train_features(), own)

    def _train_features(self) -> tuple[NDArray[Any], Transform]:
        """The features of all training rows where they are kept, else the rows, and what makes features of them."""
        if self._transform is np.asarray or 8 * len(self._rows) * self.dimension > _KEPT_BYTES:
            return self._rows, self._transform
        tiles = range(0, len(self._rows), _TRAIN_TILE)
        return _features.get(
            self.key,
            lambda: np.concatenate([self._transform(self._rows[start : start + _TRAIN_TILE]) for start in tiles]),
        ), np.asarray


def nearest_rows(
    samples: NDArray[np.float32], train: NDArray[np.float32], *, transform: Transform | None = None
) -> Nearest:
    """The nearest training row of each sample, and the nearest segment between two of its 8 nearest ones.

    Shapes: samples (n, d), train (N, d). ``transform`` maps rows to features first, tile by tile. For d <= 8 a k-d tree
    in float64. Beyond, |t|^2 - 2 s.t in float32 over tiles, about the mean training row, proposes eight candidates for
    each sample; their differences in float64 give the result: the distance returned is exact for the row returned,
    copies get 0, and that row is the nearest up to the rounding of float32 products (a squared distance of about 1e-6
    |s|^2). Equal distances: one of the nearest rows.

    The point of a segment nearest to s follows from the differences g_i = s - t_i alone: minimise |l g_i + (1 - l)
    g_j|^2 over l in [0, 1]. Cost O(n N d), or O(n log N) for d <= 8, plus O(64 n d) for the differences; memory: the
    queries once more in float32, a tile of 2048 x 4096 float32 and one of 32 MiB. Raises ShapeError for unequal d,
    NumericalError for NaN or infinity in the samples.
    """
    check_rows(samples, "samples", least=1)
    if train.ndim != 2 or len(train) < 1 or train.shape[1] != samples.shape[1]:
        raise ShapeError(
            "training rows do not match the samples",
            got=(samples.shape, train.shape),
            allowed="(n, d) and (N >= 1, d)",
        )
    to_features: Transform = transform if transform is not None else np.asarray
    return _nearest(to_features(samples), train, to_features)


def _nearest(
    queries: NDArray[np.floating[Any]],
    train: NDArray[Any],
    to_features: Transform,
    own: NDArray[np.int64] | None = None,
) -> Nearest:
    """`nearest_rows` of features (n, c); ``own`` (n,) names a training row that is not looked at for each query."""
    check_rows(queries, "features of the samples", least=1)
    if queries.shape[1] <= _TREE_UP_TO:
        train, to_features = np.asarray(to_features(train), dtype=np.float64), np.asarray
        candidates = _neighbours_in_tree(queries, train, own)
    else:
        candidates = _candidates(queries, train, to_features, own)
    return _refined(queries, train, candidates, to_features)


def _neighbours_in_tree(
    queries: NDArray[np.floating[Any]], train: NDArray[np.float64], own: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Indices (n, c) of the c nearest training rows, nearest first; c = min(8, the rows there are)."""
    count = min(NEIGHBOURS, len(train) - (own is not None))
    index = np.asarray(KDTree(train).query(queries, k=range(1, count + 1 + (own is not None)))[1], dtype=np.int64)
    if own is None:
        return index
    itself = index == own[:, None]
    itself[~itself.any(axis=1), -1] = True  # many copies of a row may push it out of its own list: any is as good
    return index[~itself].reshape(len(queries), count)


def _candidates(
    queries: NDArray[np.floating[Any]], train: NDArray[Any], to_features: Transform, own: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Indices (n, c) of the c nearest training rows according to float32 products; c = min(8, the rows there are)."""
    import torch

    n, count = len(queries), min(NEIGHBOURS, len(train) - (own is not None))
    some = to_features(train[:: max(1, len(train) // _TRAIN_TILE)])
    shift = some.mean(axis=0).astype(np.float32)  # near the mean is near enough: it only keeps norms small
    centred = torch.from_numpy((queries - shift).astype(np.float32, copy=False))
    best = torch.full((n, count), torch.inf)
    index = torch.zeros((n, count), dtype=torch.int64)
    for start in range(0, len(train), _TRAIN_TILE):
        features = to_features(train[start : start + _TRAIN_TILE])
        tile = torch.from_numpy((features - shift).astype(np.float32, copy=False))
        norms = tile.square().sum(dim=1)
        for first in range(0, n, _SAMPLE_TILE):
            rows = slice(first, first + _SAMPLE_TILE)
            relative = torch.addmm(norms, centred[rows], tile.T, alpha=-2.0)  # |t|^2 - 2 s.t
            if own is not None:
                column = own[rows] - start
                row = np.flatnonzero((column >= 0) & (column < len(tile)))
                relative[row, column[row]] = torch.inf
            found, where = relative.topk(min(count, len(tile)), dim=1, largest=False)
            merged, order = torch.cat([best[rows], found], dim=1).topk(count, dim=1, largest=False)
            best[rows] = merged
            index[rows] = torch.cat([index[rows], where + start], dim=1).gather(1, order)
    return index.numpy()


def _refined(
    queries: NDArray[np.floating[Any]], train: NDArray[Any], candidates: NDArray[np.int64], to_features: Transform
) -> Nearest:
    """Exact distances to the candidates (n, c) and to the segments between them."""
    n, count = candidates.shape
    index = np.empty(n, dtype=np.int64)
    distance, second, segment = np.empty(n), np.empty(n), np.empty(n)
    height = max(1, _EXACT_ELEMENTS // (count * queries.shape[1]))
    for first in range(0, n, height):
        rows = slice(first, first + height)
        around = to_features(train[candidates[rows].ravel()]).reshape(-1, count, queries.shape[1])
        gaps = queries[rows, None, :].astype(np.float64) - around  # (tile, c, features)
        products = gaps @ gaps.transpose(0, 2, 1)
        squared = np.einsum("nii->ni", products)
        nearest = squared.argmin(axis=1)
        every = np.arange(len(squared))
        index[rows] = candidates[rows][every, nearest]
        distance[rows] = np.sqrt(squared[every, nearest])
        second[rows] = np.sqrt(np.sort(squared, axis=1)[:, min(1, count - 1)])
        segment[rows] = np.sqrt(_squared_to_segments(products))
    return Nearest(index, distance, second, segment)


def _squared_to_segments(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least |l g_i + (1 - l) g_j|^2 over pairs i < j and l in [0, 1], (n,), from the products g_i.g_j (n, c, c)."""
    squared = np.einsum("nii->ni", products)
    least = squared.min(axis=1)
    for i in range(products.shape[1]):
        for j in range(i + 1, products.shape[1]):
            a, b, ab = squared[:, i], squared[:, j], products[:, i, j]
            length = a + b - 2 * ab  # |t_i - t_j|^2
            share = np.clip((b - ab) / np.where(length > 0, length, 1.0), 0.0, 1.0)
            value = share**2 * a + (1 - share) ** 2 * b + 2 * share * (1 - share) * ab
            least = np.minimum(least, value)
    return np.maximum(least, 0.0)
