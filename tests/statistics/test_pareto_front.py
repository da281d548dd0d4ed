"""The front against its definition, point by point; ties, directions, and points that are not finite."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfpbench.errors import ParameterError, ShapeError
from kfpbench.statistics.pareto_front import pareto_front, staircase

DIRECTIONS = list(itertools.product(("lower", "higher"), repeat=2))
# Few distinct values, so that ties in one or both coordinates are common.
coordinate = st.one_of(st.integers(0, 5).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))
planes = st.lists(st.tuples(coordinate, coordinate), max_size=14)


def dominates(a: tuple[float, ...], b: tuple[float, ...], better: tuple[str, ...]) -> bool:
    def gain(x: float, y: float, way: str) -> float:
        return y - x if way == "lower" else x - y

    gains = [gain(x, y, way) for x, y, way in zip(a, b, better, strict=True)]
    return all(g >= 0 for g in gains) and any(g > 0 for g in gains)


@given(planes, st.sampled_from(DIRECTIONS))
def test_front_is_the_set_that_brute_force_finds(points, better) -> None:
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    expected = tuple(i for i in finite if not any(dominates(points[j], points[i], better) for j in finite))
    front = pareto_front(points, better)
    assert front.members == expected
    assert front.excluded == tuple(i for i in range(len(points)) if i not in finite)


def test_three_coordinates_agree_with_brute_force() -> None:
    points = [tuple(row) for row in np.random.default_rng(0).integers(0, 4, (60, 3)).astype(float)]
    better = ("lower", "higher", "lower")
    expected = tuple(i for i, p in enumerate(points) if not any(dominates(q, p, better) for q in points))
    assert pareto_front(points, better).members == expected


def test_equal_points_are_on_the_front_together() -> None:
    assert pareto_front([(1, 2), (1, 2), (2, 3)], ("lower", "lower")).members == (0, 1)


def test_a_tie_in_one_coordinate_is_decided_by_the_other() -> None:
    assert pareto_front([(1, 2), (1, 3)], ("lower", "higher")).members == (1,)


def test_nan_neither_wins_nor_hides_others() -> None:
    front = pareto_front([(0.0, math.nan), (1.0, 1.0)], ("lower", "lower"))
    assert (front.members, front.excluded) == ((1,), (0,))


def test_no_points_have_no_front() -> None:
    assert pareto_front([], ("lower", "lower")).members == ()
    assert staircase([], ("lower", "lower"), (1, 1)) == ([], [])


@pytest.mark.parametrize("better", DIRECTIONS)
def test_staircase_separates_what_the_front_attains(better) -> None:
    rng = np.random.default_rng(3)
    points = [(float(x), float(y)) for x, y in rng.uniform(0, 1, (40, 2))]
    worst = tuple(2.0 if way == "lower" else -1.0 for way in better)
    xs, ys = staircase(points, better, worst)
    front = pareto_front(points, better).members
    assert {points[i] for i in front} <= set(zip(xs, ys, strict=True))
    assert (ys[0], xs[-1]) == (worst[1], worst[0])
    steps = list(itertools.pairwise(zip(xs, ys, strict=True)))
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in steps)  # only along the axes
    # No corner of the line is strictly better than the front in both coordinates.
    for corner in zip(xs, ys, strict=True):
        assert any(dominates(points[i], corner, better) or points[i] == corner for i in front)


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(ParameterError, match="neither"):
        pareto_front([(1, 2)], ("lower", "neither"))


def test_one_direction_per_coordinate() -> None:
    with pytest.raises(ShapeError):
        pareto_front([(1, 2, 3)], ("lower", "lower"))
