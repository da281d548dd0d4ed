from __future__ import annotations

import numpy as np
import pytest

from kfpbench.errors import NumericalError
from kfpbench.features.pca import PCA
from kfpbench.metrics import nearest_rows
from kfpbench.metrics.nearest_train import NearestTrain


@pytest.fixture(autouse=True)
def _cold_cache():
    nearest_rows._found.clear()


def evaluate(data, **parameters):
    return {m.metric: m for m in NearestTrain(**parameters).evaluate(data)}


def test_copies_give_ratio_zero_and_fraction_one(make_input):
    rng = np.random.default_rng(0)
    train, reference = rng.standard_normal((300, 30)), rng.standard_normal((100, 30))
    got = evaluate(make_input(train[:100], reference, train))
    assert got["nearest_train_ratio"].value == 0.0
    assert got["copied_fraction"].value == 1.0
    assert got["copied_fraction"].ci_low == pytest.approx(0.025 ** (1 / 100))
    assert got["memorised_fraction"].value == 1.0
    assert got["blended_fraction"].value == 0.0


def test_fresh_samples_look_like_held_out_rows(make_input):
    rng = np.random.default_rng(1)
    train, reference, samples = (rng.standard_normal((m, 30)) for m in (500, 400, 400))
    got = evaluate(make_input(samples, reference, train))
    ratio, copied = got["nearest_train_ratio"], got["copied_fraction"]
    assert abs(ratio.value - 1.0) < 4.4 * ratio.details["sd"]
    assert copied.value < 0.05
    assert got["memorised_fraction"].value < 0.05
    assert got["blended_fraction"].value < 0.05
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
    original = nearest_rows._nearest

    def counting(samples, *rest):
        calls.append(len(samples))
        return original(samples, *rest)

    monkeypatch.setattr(nearest_rows, "_nearest", counting)
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
    with pytest.raises(NumericalError, match="consists of training rows"):
        evaluate(make_input(rng.standard_normal((20, 3)), train[:20], train))


def test_blends_and_smoothing_are_told_apart(make_input):
    rng = np.random.default_rng(6)
    train, reference, fresh = (rng.standard_normal((m, 30)) for m in (400, 200, 200))
    gaps = np.linalg.norm(train[:200, None] - train[None], axis=2)
    neighbour = np.argsort(gaps, axis=1)[:, 1]
    midway = evaluate(make_input((train[:200] + train[neighbour]) / 2, reference, train))
    assert midway["blended_fraction"].value == 1.0
    assert midway["memorised_fraction"].value == 0.0  # as far from the one as from the other
    near = evaluate(make_input(0.9 * train[:200] + 0.1 * train[neighbour], reference, train))
    assert near["memorised_fraction"].value == 1.0
    smooth = evaluate(make_input(0.3 * fresh, reference, train))
    assert smooth["copied_fraction"].value > 0.5  # near to everything, a copy of nothing
    assert smooth["memorised_fraction"].value == smooth["blended_fraction"].value == 0.0


def test_in_one_dimension_nothing_is_a_blend(make_input):
    rng = np.random.default_rng(7)
    train, reference, samples = (rng.standard_normal((m, 1)) for m in (300, 100, 100))
    assert evaluate(make_input(samples, reference, train))["blended_fraction"].value == 0.0


@pytest.mark.slow
def test_intervals_of_fractions_cover_where_there_are_some(make_input):
    """Samples that are copies, blends and fresh rows in random numbers: the truth is the mean over the 200 repeats.

    Near 0 no interval of a count can cover in about 95 %: the exact binomial one then covers always.
    """
    d, n, runs = 10, 300, 200
    train = np.random.default_rng(0).standard_normal((1000, d)).astype(np.float32)
    neighbour = np.linalg.norm(train[:, None] - train[None], axis=2).argsort(axis=1)[:, 1]
    rows = {name: [] for name in NearestTrain.outputs}
    for run in range(runs):
        rng = np.random.default_rng([run, 1])
        samples, reference = rng.standard_normal((n, d)), rng.standard_normal((n, d))
        kind, source = rng.choice(3, size=n, p=(0.2, 0.2, 0.6)), rng.integers(len(train), size=n)
        samples[kind == 0] = train[source[kind == 0]] + 0.01 * samples[kind == 0]
        samples[kind == 1] = (train[source[kind == 1]] + train[neighbour[source[kind == 1]]]) / 2
        for name, found in evaluate(make_input(samples, reference, train, seed=run)).items():
            rows[name].append((found.ci_low, found.value, found.ci_high))
    for name, found in rows.items():
        low, value, high = np.array(found).T
        share = float(((low <= value.mean()) & (value.mean() <= high)).mean())
        print(f"{name}: {value.mean():.3f}, covered in {share:.3f}")
        assert 0.90 <= share <= 0.99, name


@pytest.mark.parametrize("copied", [0.0, 0.5])
def test_rows_that_the_law_itself_repeats_are_no_copies(make_input, copied):
    """A fifth of all rows, held-out ones too, are one blank row: only what the samples have beyond that is copied."""
    rng = np.random.default_rng(8)

    def draw(m):
        rows = rng.standard_normal((m, 10)).astype(np.float32)
        rows[: m // 5] = 0.0
        return rows

    train, reference, samples = draw(1000), draw(200), draw(200)
    samples[200 - int(200 * copied) :] = train[1000 - int(200 * copied) :]
    got = evaluate(make_input(samples, reference, train))
    for name in ("copied_fraction", "memorised_fraction"):
        assert got[name].value == pytest.approx(copied)
        assert (got[name].ci_low > 0.05) is (copied > 0)
