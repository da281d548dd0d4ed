"""Precision, recall, density and coverage."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.metrics.density_coverage import DensityCoverage
from kfpbench.metrics.neighbour_balls import count_balls, replicates_for, squared_radii
from kfpbench.metrics.pairwise_distances import rounding, squared_distances
from kfpbench.metrics.precision_recall import PrecisionRecall


def evaluate(data, k):
    metrics = PrecisionRecall(k=k, features="identity"), DensityCoverage(k=k, features="identity")
    return {m.metric: m for metric in metrics for m in metric.evaluate(data)}


def values(data, k):
    return {name: measurement.value for name, measurement in evaluate(data, k).items()}


def brute_force(x, y, k):
    """The definitions, from the full matrices."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def distances(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    radius_x, radius_y = np.sort(distances(x, x))[:, k], np.sort(distances(y, y))[:, k]
    cross = distances(x, y)
    return {
        "precision": (cross <= radius_y[None]).any(axis=1).mean(),
        "recall": (cross <= radius_x[:, None]).any(axis=0).mean(),
        "density": (cross <= radius_y[None]).sum() / (k * len(x)),
        "coverage": (cross <= radius_y[None]).any(axis=0).mean(),
    }


@pytest.mark.parametrize(("n", "d", "k"), [(40, 2, 1), (40, 2, 3), (60, 12, 5), (60, 13, 5), (50, 40, 3)])
def test_equals_the_definitions(make_input, n, d, k):
    rng = np.random.default_rng(n + d)
    data = make_input(rng.standard_normal((n, d)) * 0.8 + 0.2, rng.standard_normal((n, d)))
    assert values(data, k) == pytest.approx(brute_force(data.samples, data.reference, k), abs=1e-12)


def test_hand_made_line(make_input):
    # reference 0 1 2 10 with k = 1: radii 1 1 1 8, balls [-1,1] [0,2] [1,3] [2,18]
    # samples -1.5 0.5 2.5 2.75 lie in 0 2 2 2 balls: precision 3/4, density 6/4; every ball holds one: coverage 1
    # sample radii 2 2 0.25 0.25, balls [-3.5,0.5] [-1.5,2.5] [2.25,2.75] [2.5,3] hold 0 1 2, not 10: recall 3/4
    data = make_input([[-1.5], [0.5], [2.5], [2.75]], [[0.0], [1.0], [2.0], [10.0]])
    assert values(data, 1) == {"precision": 0.75, "recall": 0.75, "density": 1.5, "coverage": 1.0}


def test_identical_clouds(make_input):
    rng = np.random.default_rng(0)
    for d in (2, 64):  # each closed ball holds its centre and k others, one of them on its boundary
        y = rng.standard_normal((100, d))
        got = values(make_input(rng.permutation(y), y), 5)
        assert got == {"precision": 1.0, "recall": 1.0, "density": pytest.approx(1.2), "coverage": 1.0}


def test_expected_coverage_of_equal_laws(make_input):
    # a ball stays empty if the k nearest of the 2n - 1 other rows are reference rows: prod_i (n - i) / (2n - i)
    rng = np.random.default_rng(1)
    n, k = 50, 3
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    runs = [values(make_input(rng.random((n, 2)), rng.random((n, 2))), k) for _ in range(200)]
    for name, truth in (("coverage", expected), ("density", 1.0)):
        got = np.array([run[name] for run in runs])
        assert abs(got.mean() - truth) < 4.4 * got.std(ddof=1) / math.sqrt(len(got))


def test_dropped_mode_lowers_recall_and_coverage_only(make_input):
    rng = np.random.default_rng(2)
    centres = np.array([[0.0, 0.0], [20.0, 0.0]])
    reference = np.repeat(centres, 100, axis=0) + rng.standard_normal((200, 2))
    dropped = centres[[0] * 200] + rng.standard_normal((200, 2))
    complete = np.repeat(centres, 100, axis=0) + rng.standard_normal((200, 2))
    bad, good = values(make_input(dropped, reference), 3), values(make_input(complete, reference), 3)
    assert good["recall"] > 0.9
    assert good["coverage"] > 0.8
    assert bad["recall"] < 0.55
    assert bad["coverage"] < 0.55
    assert bad["precision"] > 0.9
    assert bad["density"] > 0.8


def test_permutation_invariance_and_seed(make_input):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((80, 20)), rng.standard_normal((80, 20)) * 1.2
    assert values(make_input(rng.permutation(x), rng.permutation(y)), 3) == values(make_input(x, y), 3)
    first, again = evaluate(make_input(x, y, seed=5), 3), evaluate(make_input(x, y, seed=5), 3)
    other = evaluate(make_input(x, y, seed=6), 3)
    assert first == again
    assert other["recall"].value == first["recall"].value
    assert other["recall"].ci_low != first["recall"].ci_low


@pytest.mark.parametrize("d", [2, 30])
def test_tiles_and_subsets_equal_the_rows_themselves(d):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((45, d)), rng.standard_normal((45, d))
    parts = np.stack([np.ones(45, bool), rng.permutation(np.arange(45) < 22), rng.permutation(np.arange(45) < 22)])
    whole, tiled = squared_radii(y, 2, parts), squared_radii(y, 2, parts, elements=100)
    np.testing.assert_allclose(tiled, whole, rtol=1e-12)
    for part, radii in zip(parts, whole, strict=True):
        alone = squared_radii(y[part], 2, np.ones((1, part.sum()), bool))[0]
        np.testing.assert_allclose(radii[part], alone, rtol=1e-12)
        assert (radii[~part] == -np.inf).all()
    counts = [count_balls(x, y, whole, parts, tolerance=rounding(x, y), elements=elements) for elements in (100, 10**6)]
    np.testing.assert_array_equal(counts[0].balls_of_point, counts[1].balls_of_point)
    np.testing.assert_array_equal(counts[0].point_in_ball, counts[1].point_in_ball)
    inside = squared_distances(x[parts[1]], y[parts[1]]) <= whole[1, parts[1]]
    np.testing.assert_array_equal(counts[0].balls_of_point[1, parts[1]], inside.sum(axis=1))
    np.testing.assert_array_equal(counts[0].point_in_ball[1, parts[1]], inside.any(axis=0))


def test_equal_rows_are_defined(make_input):
    same = np.zeros((20, 3))
    got = evaluate(make_input(same, same), 3)
    assert got["precision"].value == got["recall"].value == got["coverage"].value == 1.0
    assert got["density"].value == pytest.approx(20 / 3)
    apart = values(make_input(same + 1, same), 3)
    assert set(apart.values()) == {0.0}


def test_interval_of_a_fraction_at_its_limit_is_not_empty(make_input):
    data = make_input(np.zeros((20, 1)), np.ones((20, 1)))
    precision = evaluate(data, 3)["precision"]
    assert (precision.value, precision.ci_low) == (0.0, 0.0)
    assert precision.ci_high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_too_many_neighbours(make_input):
    data = make_input(np.zeros((5, 1)), np.ones((5, 1)))
    with pytest.raises(ParameterError, match="k < n = 5"):
        PrecisionRecall(k=5, features="identity").evaluate(data)
    with pytest.raises(ParameterError):
        DensityCoverage(k=0)
    assert replicates_for(10, 5) == 0
    rng = np.random.default_rng(0)
    short = evaluate(make_input(rng.standard_normal((10, 1)), rng.standard_normal((10, 1))), 5)["density"]
    assert short.ci_low is None
    assert "none" in short.details["interval"]


def test_memory_stays_far_below_the_matrix_of_distances(make_input):
    rng = np.random.default_rng(5)
    n = 6000  # n x n doubles would be 288 MB
    y = rng.standard_normal((n, 2))
    tracemalloc.start()
    parts = np.ones((1, n), bool)
    count_balls(y, y, squared_radii(y, 3, parts), parts, tolerance=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
