from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from kfpbench.errors import ShapeError
from kfpbench.features.pca import PCA
from kfpbench.metrics import nearest_rows
from kfpbench.metrics.authenticity import Authenticity


@pytest.fixture(autouse=True)
def _cold_cache():
    nearest_rows._found.clear()
    nearest_rows._gaps.clear()


def evaluate(data, **parameters):
    return {m.metric: m for m in Authenticity(**parameters).evaluate(data)}


def test_a_hand_made_line(make_input):
    train = np.array([[0.0], [4.0], [5.0]])  # gaps to the nearest other row: 4, 1, 1
    reference = np.array([[-5.0], [2.5], [4.4], [7.0]])  # 5 > 4; 1.5 > 1; 0.4 < 1; 2 > 1
    samples = np.array([[-4.0], [-4.5], [4.1], [6.5]])  # 4 = 4 is not authentic; 4.5 > 4; 0.1 < 1; 1.5 > 1
    got = evaluate(make_input(samples, reference, train))
    assert got["authenticity"].value == 0.5
    assert got["authenticity"].details["held_out_authenticity"] == 0.75
    assert got["authenticity_loss"].value == 0.25


@pytest.mark.parametrize("d", [2, 25])
def test_against_an_independent_search(make_input, d):
    rng = np.random.default_rng(d)
    train, reference, samples = (rng.standard_normal((m, d)).astype(np.float32) for m in (300, 80, 80))
    samples[:30] = train[:30] + 0.01 * samples[:30]
    got = evaluate(make_input(samples, reference, train))
    search = NearestNeighbors().fit(train)
    gaps = search.kneighbors(train, 2)[0][:, 1]
    for rows, value in (
        (samples, got["authenticity"].value),
        (reference, got["authenticity"].value + got["authenticity_loss"].value),
    ):
        distance, index = search.kneighbors(rows, 1)
        assert value == pytest.approx(float(np.mean(distance[:, 0] > gaps[index[:, 0]])), abs=1e-12)


def test_copies_are_not_authentic_even_of_rows_that_occur_twice(make_input):
    rng = np.random.default_rng(0)
    train, reference = rng.standard_normal((200, 12)), rng.standard_normal((100, 12))
    train[100:] = train[:100]
    got = evaluate(make_input(train[:100], reference, train))
    assert got["authenticity"].value == 0.0
    assert got["authenticity"].ci_high == pytest.approx(1 - 0.025 ** (1 / 100))
    loss = got["authenticity_loss"]
    assert loss.ci_low > 0.8  # every gap is 0, so that every held-out row is authentic


def test_fresh_samples_lose_nothing(make_input):
    rng = np.random.default_rng(1)
    train, reference, samples = (rng.standard_normal((m, 20)) for m in (500, 400, 400))
    loss = evaluate(make_input(samples, reference, train))["authenticity_loss"]
    assert abs(loss.value) < 4.4 * loss.details["sd"]
    assert loss.details["sd"] == pytest.approx(np.sqrt(2 * 0.25 / 400), rel=0.6)


def test_a_point_closer_than_the_neighbour_of_its_training_row(make_input):
    """Halfway between a row and its nearest neighbour nothing is authentic; two gaps beyond the last, everything."""
    train = np.arange(12.0)[:, None] * np.ones((1, 10))
    reference = train + 0.7
    halfway = evaluate(make_input(train + 0.5, reference, train))
    assert halfway["authenticity"].value == 0.0
    beyond = evaluate(make_input(train[-1:] + np.arange(2.0, 14.0)[:, None], reference, train))
    assert beyond["authenticity"].value == 1.0


def test_features_and_record(make_input):
    rng = np.random.default_rng(2)
    train, reference, samples = (rng.standard_normal((m, 30)) for m in (100, 40, 40))
    details = evaluate(make_input(samples, reference, train), features=PCA(components=5))["authenticity"].details
    assert details["features_version"] == "pca-5/1"
    assert details["train_rows"] == 100
    assert len(details["replicate_values"]) == 20


def test_one_training_row_is_refused(make_input):
    with pytest.raises(ShapeError, match="no other one"):
        evaluate(make_input(np.ones((10, 2)), np.full((10, 2), 2.0), np.zeros((1, 2))))
