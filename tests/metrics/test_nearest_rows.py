from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kfpbench.data.dataset import Dataset
from kfpbench.errors import NumericalError, ShapeError
from kfpbench.features.identity import Identity
from kfpbench.features.pca import PCA
from kfpbench.metrics import nearest_rows as module
from kfpbench.metrics.nearest_rows import TrainingRows, nearest_rows


@pytest.fixture(autouse=True)
def _cold_caches():
    for cache in (module._found, module._gaps, module._features):
        cache.clear()


def dataset_of(train, fingerprint=""):
    return Dataset("toy", train, train, train, fingerprint=fingerprint)


def distances(a, b):
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None].astype(np.float64), axis=2)


@pytest.mark.parametrize("d", [1, 2, 8, 9, 50])
def test_nearest_rows_against_brute_force(d, monkeypatch):
    monkeypatch.setattr(module, "_TRAIN_TILE", 37)
    monkeypatch.setattr(module, "_SAMPLE_TILE", 11)
    monkeypatch.setattr(module, "_EXACT_ELEMENTS", 3 * 8 * d)
    rng = np.random.default_rng(d)
    samples = (30 + rng.standard_normal((40, d))).astype(np.float32)  # far from 0: products would cancel
    train = (30 + rng.standard_normal((200, d))).astype(np.float32)
    samples[:5] = train[[7, 100, 3, 199, 36]]
    found = nearest_rows(samples, train)
    every = distances(samples, train)
    np.testing.assert_array_equal(found.index, every.argmin(axis=1))
    np.testing.assert_allclose(found.distance, every.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.second, np.sort(every, axis=1)[:, 1], rtol=1e-12)
    assert (found.distance[:5] == 0).all()


@pytest.mark.parametrize("d", [2, 20])
def test_segments_against_a_fine_walk_along_them(d):
    rng = np.random.default_rng(d)
    samples, train = rng.standard_normal((15, d)).astype(np.float32), rng.standard_normal((60, d)).astype(np.float32)
    found = nearest_rows(samples, train)
    shares = np.linspace(0, 1, 2001)[:, None]
    for sample, segment in zip(samples, found.segment, strict=True):
        near = train[np.linalg.norm(train - sample, axis=1).argsort()[:8]].astype(np.float64)
        walked = min(
            np.linalg.norm(sample - (shares * near[i] + (1 - shares) * near[j]), axis=1).min()
            for i in range(8)
            for j in range(i)
        )
        assert segment <= walked + 1e-9
        assert segment == pytest.approx(walked, abs=2e-3)
    assert (found.segment <= found.distance + 1e-12).all()


def test_betweenness_of_copies_blends_and_right_angles():
    train = np.zeros((4, 12), np.float32)
    train[[1, 2, 3], [0, 1, 2]] = 10, 1, 1
    samples = np.zeros((4, 12), np.float32)
    samples[0] = train[1]  # a copy
    samples[1, 0] = 3  # between rows 0 and 1
    samples[2, [1, 2]] = 1  # gaps to rows 2 and 3 are at right angles and equal
    samples[3, 5] = 4  # straight out from row 0
    found = nearest_rows(samples, train)
    np.testing.assert_allclose(found.betweenness(), [1, 0, np.sqrt(0.5), 1], atol=1e-9)
    np.testing.assert_allclose(found.closeness(), [0, 3 / np.sqrt(10), 1, 4 / np.sqrt(17)], rtol=1e-12)


def test_fewer_training_rows_than_candidates():
    found = nearest_rows(np.ones((3, 20), np.float32), np.zeros((2, 20), np.float32))
    np.testing.assert_allclose(found.distance, np.sqrt(20))
    assert set(found.index) <= {0, 1}
    alone = nearest_rows(np.ones((3, 20), np.float32), np.zeros((1, 20), np.float32))
    np.testing.assert_allclose(alone.segment, np.sqrt(20))
    np.testing.assert_allclose(alone.closeness(), 1)


@pytest.mark.parametrize("d", [3, 30])
def test_gaps_are_distances_to_other_rows(d, monkeypatch):
    monkeypatch.setattr(module, "_TRAIN_TILE", 16)
    rng = np.random.default_rng(d)
    train = rng.standard_normal((70, d)).astype(np.float32)
    train[[5, 6, 7, 60]] = train[4]  # one row five times
    every = distances(train, train)
    np.fill_diagonal(every, np.inf)
    asked = np.array([4, 5, 60, 8, 9, 9, 69])
    np.testing.assert_allclose(
        TrainingRows(Identity(), train, dataset_of(train)).gaps(asked), every.min(axis=1)[asked], rtol=1e-6, atol=1e-12
    )


def test_gaps_are_computed_once_for_the_rows_asked_for(monkeypatch):
    asked = []
    original = module._nearest

    def counting(queries, *rest):
        asked.append(len(queries))
        return original(queries, *rest)

    monkeypatch.setattr(module, "_nearest", counting)
    train = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
    first, second = (TrainingRows(Identity(), train.copy(), dataset_of(train, "abc")) for _ in range(2))
    first.gaps(np.array([3, 3, 8]))
    second.gaps(np.array([8, 3]))
    second.gaps(np.array([8, 20]))
    assert asked == [2, 1]


def test_more_copies_of_a_row_than_the_tree_returns():
    train = np.zeros((30, 2), np.float32)
    train[0] = 1
    search = TrainingRows(Identity(), train, dataset_of(train))
    np.testing.assert_allclose(search.gaps(np.arange(30)), [np.sqrt(2), *[0] * 29])


def test_one_training_row_has_no_gap():
    train = np.zeros((1, 3), np.float32)
    with pytest.raises(ShapeError, match="no other one"):
        TrainingRows(Identity(), train, dataset_of(train)).gaps(np.array([0]))


def test_features_are_kept_or_made_tile_by_tile_with_one_result(monkeypatch):
    rng = np.random.default_rng(0)
    train, rows = rng.standard_normal((300, 40)).astype(np.float32), rng.standard_normal((20, 40)).astype(np.float32)
    data = dataset_of(train, "abc")
    extractor = PCA(components=12).fit(data)
    kept = TrainingRows(extractor, train, data).nearest(rows)
    assert len(module._features) == 1
    module._found.clear()
    module._features.clear()
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    made = TrainingRows(extractor, train, data).nearest(rows)
    assert len(module._features) == 0
    np.testing.assert_array_equal(made.index, kept.index)
    np.testing.assert_allclose(made.distance, kept.distance, rtol=1e-9)


def test_bad_rows_are_refused():
    with pytest.raises(ShapeError):
        nearest_rows(np.zeros((2, 3), np.float32), np.zeros((5, 4), np.float32))
    with pytest.raises(NumericalError):
        nearest_rows(np.full((2, 3), np.nan, np.float32), np.zeros((5, 3), np.float32))


def test_memory_is_a_few_tiles():
    rng = np.random.default_rng(6)
    samples, train = (rng.standard_normal((m, 16), dtype=np.float32) for m in (3000, 30_000))
    tracemalloc.start()
    nearest_rows(samples, train)
    peak = tracemalloc.get_traced_memory()[1]  # numpy's share; torch holds one tile of 2048 x 4096 beside it
    tracemalloc.stop()
    assert peak < 20e6
