from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kfpbench.errors import NumericalError, ShapeError
from kfpbench.features.pca import PCA
from kfpbench.metrics import nearest_train
from kfpbench.metrics.nearest_train import NearestTrain, nearest_rows


@pytest.fixture(autouse=True)
def _cold_cache():
    nearest_train._held_out.clear()


def evaluate(data, **parameters):
    return {m.metric: m for m in NearestTrain(**parameters).evaluate(data)}


@pytest.mark.parametrize("d", [1, 2, 8, 9, 50])
def test_nearest_rows_against_brute_force(d, monkeypatch):
    monkeypatch.setattr(nearest_train, "_TRAIN_TILE", 37)
    monkeypatch.setattr(nearest_train, "_SAMPLE_TILE", 11)
    rng = np.random.default_rng(d)
    samples = (30 + rng.standard_normal((40, d))).astype(np.float32)  # far from 0: products would cancel
    train = (30 + rng.standard_normal((200, d))).astype(np.float32)
    samples[:5] = train[[7, 100, 3, 199, 36]]
    index, distance = nearest_rows(samples, train)
    every = np.linalg.norm(samples[:, None].astype(np.float64) - train[None].astype(np.float64), axis=2)
    np.testing.assert_array_equal(index, every.argmin(axis=1))
    np.testing.assert_allclose(distance, every.min(axis=1), rtol=1e-12)
    assert (distance[:5] == 0).all()


def test_fewer_training_rows_than_candidates():
    index, distance = nearest_rows(np.ones((3, 20), np.float32), np.zeros((2, 20), np.float32))
    np.testing.assert_allclose(distance, np.sqrt(20))
    assert set(index) <= {0, 1}


def test_copies_give_ratio_zero_and_fraction_one(make_input):
    rng = np.random.default_rng(0)
    train, reference = rng.standard_normal((300, 30)), rng.standard_normal((100, 30))
    got = evaluate(make_input(train[:100], reference, train))
    assert got["nearest_train_ratio"].value == 0.0
    assert got["copied_fraction"].value == 1.0
    assert got["copied_fraction"].ci_low == pytest.approx(0.025 ** (1 / 100))


def test_fresh_samples_look_like_held_out_rows(make_input):
    rng = np.random.default_rng(1)
    train, reference, samples = (rng.standard_normal((m, 30)) for m in (500, 400, 400))
    got = evaluate(make_input(samples, reference, train))
    ratio, copied = got["nearest_train_ratio"], got["copied_fraction"]
    assert abs(ratio.value - 1.0) < 4.4 * ratio.details["sd"]
    assert copied.value < 0.05
    far = evaluate(make_input(samples * 3, reference, train))["nearest_train_ratio"]
    assert far.value > 1.5


def test_ratio_of_a_hand_made_line(make_input):
    train = np.array([[0.0], [10.0]])
    reference = np.array([[1.0], [2.0], [3.0], [14.0]])  # distances 1 2 3 4, median 2.5, 1 % quantile 1.03
    samples = np.array([[0.5], [1.0], [9.0], [12.0]])  # distances 0.5 1 1 2, median 1
    got = evaluate(make_input(samples, reference, train))
    assert got["nearest_train_ratio"].value == pytest.approx(0.4)
    assert got["copied_fraction"].value == 0.75
    assert got["copied_fraction"].details["copy_threshold"] == pytest.approx(1.03)


def test_permutation_invariance(make_input):
    rng = np.random.default_rng(2)
    train, reference, samples = (rng.standard_normal((m, 12)) for m in (200, 50, 50))
    first = evaluate(make_input(samples, reference, train))
    shuffled = evaluate(make_input(*(rng.permutation(z) for z in (samples, reference, train))))
    for name in first:
        assert shuffled[name].value == pytest.approx(first[name].value, rel=1e-12)


def test_held_out_distances_are_shared_by_content(make_input, monkeypatch):
    calls = []
    original = nearest_train.nearest_rows

    def counting(samples, train, **options):
        calls.append(len(samples))
        return original(samples, train, **options)

    monkeypatch.setattr(nearest_train, "nearest_rows", counting)
    rng = np.random.default_rng(3)
    train, reference = rng.standard_normal((100, 10)), rng.standard_normal((20, 10))
    for fingerprint in ("", "abc"):
        calls.clear()
        for _ in range(3):
            evaluate(make_input(rng.standard_normal((20, 10)), reference.copy(), train.copy(), fingerprint=fingerprint))
        assert len(calls) == 4  # the reference once, the samples three times
    calls.clear()
    # fewer training rows under the same fingerprint are other training rows
    evaluate(make_input(reference + 1, reference, train[:50], fingerprint="abc"))
    assert len(calls) == 2


def test_features(make_input):
    rng = np.random.default_rng(4)
    train, reference, samples = (rng.standard_normal((m, 40)) for m in (200, 50, 50))
    data = make_input(samples, reference, train)
    got = evaluate(data, features=PCA(components=10))["nearest_train_ratio"]
    fitted = PCA(components=10).fit(data.dataset)
    distances = [
        np.linalg.norm(fitted.transform(z)[:, None] - fitted.transform(data.train)[None], axis=2).min(axis=1)
        for z in (data.samples, data.reference)
    ]
    assert got.value == pytest.approx(np.median(distances[0]) / np.median(distances[1]), rel=1e-9)
    assert got.details["features_version"] == "pca-10/1"
    assert got.details["feature_dimension"] == 10


def test_reference_inside_the_training_set_is_refused(make_input):
    rng = np.random.default_rng(5)
    train = rng.standard_normal((50, 3))
    with pytest.raises(NumericalError, match="median held-out row equals a training row"):
        evaluate(make_input(rng.standard_normal((20, 3)), train[:20], train))
    with pytest.raises(ShapeError):
        nearest_rows(np.zeros((2, 3), np.float32), np.zeros((5, 4), np.float32))


def test_memory_is_a_few_tiles():
    rng = np.random.default_rng(6)
    samples, train = (rng.standard_normal((m, 16), dtype=np.float32) for m in (3000, 30_000))
    tracemalloc.start()
    nearest_rows(samples, train)
    peak = tracemalloc.get_traced_memory()[1]  # numpy's share; torch holds one tile of 2048 x 4096 beside it
    tracemalloc.stop()
    assert peak < 20e6
