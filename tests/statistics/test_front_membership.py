"""Classes against every combination of values in the intervals, and their error by simulation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpbench.errors import ParameterError, ShapeError
from kfpbench.metrics.intervals import jackknife_interval
from kfpbench.statistics.front_membership import front_membership
from kfpbench.statistics.observation import Observation, observation
from kfpbench.statistics.paired_difference import mean_difference
from kfpbench.statistics.pairwise_bounds import pairwise_bounds
from kfpbench.statistics.pareto_front import pareto_front


def plain(value, half=math.nan):
    return [Observation("c", "m", 0, value, value - half, value + half)]


def halved(value, replicates, n=100, seed=0, **more):
    half = 2.093 * float(np.std(replicates, ddof=1))  # t(19); used where the cells are not paired
    return [Observation("c", "m", seed, value, value - half, value + half, n, replicates=tuple(replicates), **more)]


boxes = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 6), st.integers(0, 2)), min_size=2, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from(list(itertools.product(("lower", "higher"), repeat=2))))
def test_classes_are_what_all_combinations_of_values_say(rows, better) -> None:
    # Unpaired intervals of length 2 h; with an error of 0.025 J K each end stays where it is, so the intervals are
    # the boxes. Domination is decided in their corners.
    cells = len(rows)
    uncertain = [any(row[2 * k + 1] for row in rows) for k in range(2)]
    # A value without an interval makes its differences exact: rows of an objective with intervals all get one.
    objectives = [
        [plain(float(row[2 * k]), float(row[2 * k + 1] or 1e-9) if uncertain[k] else math.nan) for row in rows]
        for k in range(2)
    ]
    made = front_membership(objectives, better, error=0.025 * (cells - 1) * max(sum(uncertain), 1))
    corners = []
    for i in range(cells):
        ends = []
        for k in range(2):
            one = objectives[k][i][0]
            ends.append((one.low, one.high) if one.has_interval else (one.value, one.value))
        corners.append(list(itertools.product(*ends)))
    fronts = [pareto_front(points, better).members for points in itertools.product(*corners)]
    for i, own in enumerate(made.classes):
        share = np.mean([i in front for front in fronts])
        assert own == ("surely" if share == 1 else "not" if share == 0 else "possibly")


def test_exact_values_give_the_front_of_the_points() -> None:
    points = np.random.default_rng(0).integers(0, 5, (25, 3)).astype(float)
    objectives = [[plain(value) for value in column] for column in points.T]
    better = ("lower", "higher", "lower")
    made = front_membership(objectives, better)
    assert made.members("surely") == pareto_front(points.tolist(), better).members
    assert made.members("possibly") == ()


def test_a_class_is_wrong_as_seldom_as_stated() -> None:
    """Three cells in two objectives with correlated noise; cell 1 is dominated by cell 0 by little, cell 2 is not."""
    rng = np.random.default_rng(1)
    truth = np.array([[0.0, 0.0], [0.05, 0.05], [-0.4, 0.6]])
    on_front = [True, False, True]
    wrong, decided = np.zeros(3), np.zeros(3)
    for _ in range(500):
        shared, own = rng.normal(size=(20, 2)) * 0.2, rng.normal(size=(3, 20, 2)) * 0.05
        shift_shared, shift_own = rng.normal(size=2) * 0.2, rng.normal(size=(3, 2)) * 0.05
        values = truth + shift_shared + shift_own
        replicates = values[:, None, :] + shared + own
        objectives = [[halved(values[i, k], replicates[i, :, k]) for i in range(3)] for k in range(2)]
        classes = front_membership(objectives, ("lower", "lower")).classes
        for i in range(3):
            decided[i] += classes[i] != "possibly"
            wrong[i] += classes[i] == ("not" if on_front[i] else "surely")
    assert (wrong / 500 <= 0.025 + 3.5 * math.sqrt(0.025 * 0.975 / 500)).all()
    assert decided[2] > 450  # far off: the rule has power; the shared noise of 0.2 would hide it unpaired


def test_pairing_decides_what_separate_intervals_leave_open() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(size=20)
    cells = [halved(0.0, shared), halved(0.5, 0.5 + shared + 0.01 * rng.normal(size=20))]
    unpaired = [[Observation("c", "m", 0, one[0].value, one[0].low, one[0].high)] for one in cells]
    assert front_membership([cells], ("lower",)).classes == ("surely", "not")
    assert front_membership([unpaired], ("lower",)).classes == ("possibly", "possibly")


def test_more_rivals_need_clearer_differences() -> None:
    few = front_membership([[plain(0.0, 0.1), plain(0.21, 0.1)]], ("lower",))
    many = front_membership([[plain(0.0, 0.1), plain(0.21, 0.1), *([plain(9.0, 0.1)] * 8)]], ("lower",))
    assert few.classes == ("surely", "not")
    assert many.classes[:2] == ("possibly", "possibly")
    assert many.one_sided == pytest.approx(few.one_sided / 9)


def _kinds():
    rng = np.random.default_rng(3)
    values, replicates = rng.integers(0, 20, 6) / 101, rng.normal(size=(6, 20)) * 0.01
    seeds = [[halved(v + rng.normal(), rng.normal(size=20), n=101, seed=s)[0] for s in range(4)] for v in values]
    halves = [halved(v + 0.001, r, n=101) for v, r in zip(values, replicates, strict=True)]
    return {
        "seeds": seeds,
        "halves": halves,
        "another variance": [[replace(one[0], extra_sd=0.01 * i)] for i, one in enumerate(halves)],
        "fractions": [[replace(one[0], value=v, fraction=True)] for v, one in zip(values, halves, strict=True)],
        "intervals": [plain(float(v), 0.03) for v in values[:4]] + [plain(float(v)) for v in values[4:]],
        "mixed": [*halves[:3], plain(0.1, 0.1), seeds[0]],
    }


@pytest.mark.parametrize("kind", sorted(_kinds()))
def test_bounds_of_all_pairs_are_those_of_each(kind) -> None:
    cells = _kinds()[kind]
    low, high = pairwise_bounds(cells, 0.01)
    for i, j in itertools.permutations(range(len(cells)), 2):
        expected = mean_difference([(cells[i], cells[j])]).bounds(0.01)
        assert (low[i, j], high[i, j]) == pytest.approx(expected, abs=1e-12)


def test_cells_that_may_not_be_compared_leave_each_other_open() -> None:
    cells = [[Observation("a", "m", 0, 0.0, -0.1, 0.1, matched={"n": 100})],
             [Observation("b", "m", 0, 5.0, 4.9, 5.1, matched={"n": 50})]]  # fmt: skip
    assert front_membership([cells], ("lower",)).classes == ("possibly", "possibly")


def test_a_metric_that_could_give_no_interval_is_not_exact() -> None:
    few = jackknife_interval(0.0, np.empty(0), 6)  # as of six rows
    cells = [
        [observation("c", {}, 0, metric="m", value=v, low=math.nan, high=math.nan, n=6, better="lower",
                     details={"reference": "r", **few.details})]
        for v in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    assert front_membership([cells], ("lower",)).classes == ("possibly",) * 3
    assert front_membership([[*cells[:2], plain(9.0)]], ("lower",)).classes == ("possibly",) * 3
    exact = [[replace(one[0], unknown=False)] for one in cells]  # as a time that was taken once
    assert front_membership([exact], ("lower",)).classes == ("surely", "not", "not")


def test_one_cell_is_surely_on_the_front() -> None:
    assert front_membership([[plain(1.0, 0.5)]], ("lower",)).classes == ("surely",)
    assert front_membership([[]], ("lower",)).classes == ()


def test_directions_are_checked() -> None:
    with pytest.raises(ParameterError, match="neither"):
        front_membership([[plain(1.0)]], ("neither",))
    with pytest.raises(ShapeError):
        front_membership([[plain(1.0)]], ("lower", "lower"))
