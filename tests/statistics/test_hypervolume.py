"""Volumes against brute force and closed forms; boxes; intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpbench.errors import CapabilityError, ParameterError, ShapeError
from kfpbench.statistics.hypervolume import MARGIN, frame_of, front_volume, hypervolume
from kfpbench.statistics.observation import Observation


def cell(value, replicates=(), *, seed=0, n=100):
    return Observation("c", "m", seed, value, n=n, replicates=tuple(replicates))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_agrees_with_monte_carlo(k) -> None:
    rng = np.random.default_rng(k)
    points = rng.uniform(-0.2, 1.2, (12, k))
    reference = np.ones(k)
    draws = rng.uniform(-0.2, 1.0, (200_000, k))
    hit = (points[None, :, :] <= draws[:, None, :]).all(axis=2).any(axis=1).mean() if k < 3 else None
    if hit is None:
        hit = np.mean([(points <= draw).all(axis=1).any() for draw in draws[:50_000]])
    box = 1.2**k
    tolerance = 4 * box * math.sqrt(hit * (1 - hit) / (200_000 if k < 3 else 50_000))
    assert hypervolume(points.tolist(), reference) == pytest.approx(hit * box, abs=tolerance)


grid = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=6)


@settings(max_examples=100, deadline=None)
@given(grid)
def test_is_the_number_of_unit_cubes_on_an_integer_grid(points) -> None:
    # With integer corners the volume is a count: exact, ties and duplicates included.
    cubes = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    expected = sum(any((np.array(point) <= cube).all() for point in points) for cube in cubes)
    assert hypervolume(points, (4, 4, 4)) == expected
    flat = {point[:2] for point in points}
    squares = cubes[cubes[:, 2] == 0][:, :2]
    count = sum(any((np.array(point) <= square).all() for point in flat) for square in squares)
    assert hypervolume(sorted(flat), (4, 4)) == count


def test_points_that_do_not_dominate_the_reference_count_nothing() -> None:
    assert hypervolume([(0.5, 2.0), (1.0, 0.0)], (1.0, 1.0)) == 0
    assert hypervolume([], (1.0, 1.0)) == 0
    assert hypervolume([(0.25, 0.5), (0.3, 5.0)], (1.0, 1.0)) == pytest.approx(0.375)


def test_bad_input_is_refused() -> None:
    with pytest.raises(CapabilityError):
        hypervolume([(0.0,) * 4], (1.0,) * 4)
    with pytest.raises(ShapeError):
        hypervolume([(0.0, 0.0)], (1.0, 1.0, 1.0))
    with pytest.raises(ParameterError):
        hypervolume([(math.nan, 0.0)], (1.0, 1.0))
    with pytest.raises(ParameterError):
        frame_of([(0.0, 1.0)], ("lower", "lower"), (True, False))  # the logarithm of no time


def test_box_and_its_logarithm() -> None:
    points = [(1.0, 0.9), (100.0, 0.5)]
    frame = frame_of(points, ("lower", "higher"), (True, False))
    assert frame.ideal == pytest.approx([0.0, -0.9])
    assert frame.reference == pytest.approx([math.log(100) * (1 + MARGIN), -0.5 + MARGIN * 0.4])
    # the first point is the ideal, so it dominates the whole box; a scale of the times changes nothing
    assert front_volume([[[cell(p[k])] for p in points] for k in range(2)], frame).value == pytest.approx(1.0)
    slower = [(7 * t, q) for t, q in points]
    other = frame_of(slower, ("lower", "higher"), (True, False))
    assert other.costs(np.array(slower)) == pytest.approx(frame.costs(np.array(points)))


def test_what_a_cell_adds() -> None:
    points = [(1.0, 3.0), (3.0, 1.0), (2.5, 2.5), (3.0, 3.0)]
    frame = frame_of(points, ("lower", "lower"), (False, False))
    objectives = [[[cell(p[k])] for p in points] for k in range(2)]
    side = 2 * (1 + MARGIN)
    assert front_volume(objectives, frame, [3]).value == 0
    assert front_volume(objectives, frame, [2]).value == pytest.approx(0.5**2 / side**2)
    whole = front_volume(objectives, frame)
    assert front_volume(objectives, frame, [0, 1, 2, 3]).value == pytest.approx(whole.value)
    assert math.isnan(whole.low)


def test_interval_covers_the_expected_volume() -> None:
    """Three cells whose qualities are means of n rows with shared noise; the volume is smooth where they are apart."""
    n, rng = 100, np.random.default_rng(0)
    times, truth = np.array([1.0, 10.0, 100.0]), np.array([0.5, 1.0, 2.0])
    frame = frame_of(np.c_[times, truth].tolist(), ("lower", "higher"), (True, False))

    def rows():
        return truth[:, None] + 0.6 * rng.normal(size=n) + 0.4 * rng.normal(size=(3, n))

    def volume(qualities, replicates):
        cells = [[cell(q, r)] for q, r in zip(qualities, replicates, strict=True)]
        return front_volume([[[cell(t)] for t in times], cells], frame)

    target = np.mean([volume(rows().mean(axis=1), ((),) * 3).value for _ in range(3000)])
    hits = []
    for _ in range(300):
        sample = rows()
        halves = [rng.permutation(n)[: n // 2] for _ in range(20)]
        made = volume(sample.mean(axis=1), np.array([sample[:, half].mean(axis=1) for half in halves]).T)
        hits.append(made.low <= target <= made.high)
    assert made.how == "delete-half jackknife, R = 20; the times are taken as exact"
    assert 0.90 <= np.mean(hits) <= 0.99


def test_the_bias_of_half_samples_does_not_hide_what_varies() -> None:
    """A Frechet distance is far larger at n/2: all half-sample values would lie beyond the box, and none would vary."""
    rng = np.random.default_rng(1)
    times, distances = [1.0, 10.0, 100.0], [9.0, 6.0, 4.0]
    frame = frame_of(np.c_[times, distances].tolist(), ("lower", "lower"), (True, False))
    replicates = np.array(distances)[:, None] + 0.2 * rng.normal(size=(3, 20))
    replicates += np.array(distances)[:, None] - replicates.mean(axis=1, keepdims=True)

    def volume(bias):
        cells = [[cell(q, r + bias)] for q, r in zip(distances, replicates, strict=True)]
        return front_volume([[[cell(t)] for t in times], cells], frame)

    unbiased = volume(0.0)
    assert unbiased.high - unbiased.low > 0.02
    assert (volume(6.0).low, volume(6.0).high) == pytest.approx((unbiased.low, unbiased.high))


def test_seeds_have_students_interval() -> None:
    qualities = [[1.0, 1.1, 0.9], [2.0, 2.2, 2.1]]
    times = [[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]
    objectives = [
        [[cell(v, seed=s) for s, v in enumerate(repeats)] for repeats in cells] for cells in (times, qualities)
    ]
    frame = frame_of([(1.0, 1.0), (4.0, 2.1)], ("lower", "higher"), (True, False))
    made = front_volume(objectives, frame)
    assert made.how == "t over 3 seeds"
    assert made.low < made.value < made.high
