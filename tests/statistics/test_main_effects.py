"""Effects on grids with a known answer, balanced or not; multiplicity; joint axes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kfpbench.errors import ShapeError
from kfpbench.metrics.intervals import half_samples
from kfpbench.statistics.main_effects import holm, main_effects
from kfpbench.statistics.observation import Observation

N = 100


def grid_cells(rng, rows, value, *, seeds=(0,)):
    """Cells whose value is ``value(row)`` plus the mean of N rows of noise, most of it shared by all cells."""
    cells = [[] for _ in rows]
    for seed in seeds:
        halves = half_samples(N, seed).samples
        shared = rng.normal(size=N)
        for own, row in zip(cells, rows, strict=True):
            noise = shared + 0.3 * rng.normal(size=N)
            replicates = tuple(value(row) + halves @ noise / (N // 2))
            own.append(Observation("c", "m", seed, value(row) + noise.mean(), n=N, replicates=replicates))
    return cells


def two_by_three():
    return [{"a": a, "b": b} for a, b in itertools.product(("x", "y"), (1, 2, 3))]


def test_additive_effects_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    rows = two_by_three()
    made = main_effects(rows, ["s"] * 6, grid_cells(rng, rows, lambda row: 0.5 * (row["a"] == "y")))
    found = {(effect.axes, effect.level): effect for effect in made}
    assert list(found) == [(("a",), ("y",)), (("b",), (2,)), (("b",), (3,))]
    a = found[("a",), ("y",)]
    assert (a.pairs, a.unmatched, a.base) == (3, 0, ("x",))
    assert a.difference.low < 0.5 < a.difference.high
    assert a.is_told
    assert a.difference.high - a.difference.low < 0.2  # the shared noise, of sd 0.1, would make it wider
    assert not any(effect.is_told for key, effect in found.items() if key[0] == ("b",))


def test_unbalanced_grids_compare_matched_cells_only() -> None:
    rng = np.random.default_rng(1)
    # b = 3 is far better and was run with a = y only: a difference of the levels' means would show an effect of a.
    rows = [row for row in two_by_three() if row != {"a": "x", "b": 3}]
    made = main_effects(rows, ["s"] * 5, grid_cells(rng, rows, lambda row: 5.0 * (row["b"] == 3)))
    effect = next(one for one in made if one.axes == ("a",))
    assert (effect.pairs, effect.unmatched) == (2, 1)
    assert abs(effect.difference.value) < 0.3
    assert not effect.is_told
    third = next(one for one in made if one.level == (3,))
    assert (third.pairs, third.unmatched) == (1, 1)
    assert third.is_told


def test_cells_of_other_entries_are_no_partners() -> None:
    rng = np.random.default_rng(2)
    rows = [{"a": 1}, {"a": 2}]
    assert main_effects(rows, ["s", "t"], grid_cells(rng, rows, lambda _: 0.0)) == []


def test_axes_that_vary_together_are_one() -> None:
    rng = np.random.default_rng(3)
    rows = [{"d": d, "f": f, "b": b} for (d, f), b in itertools.product((("p", 1.0), ("q", 0.2)), (1, 2))]
    made = main_effects(rows, ["s"] * 4, grid_cells(rng, rows, lambda row: row["f"]))
    assert [(effect.axes, effect.level, effect.pairs) for effect in made] == [
        (("d", "f"), ("q", 0.2), 2),
        (("b",), (2,), 2),
    ]


def test_seeds_are_the_unit_of_students_t() -> None:
    rng = np.random.default_rng(4)
    rows = [{"a": a, "b": b} for a, b in itertools.product((1, 2), (1, 2))]
    cells = grid_cells(rng, rows, lambda row: row["a"], seeds=range(5))
    made = next(one for one in main_effects(rows, ["s"] * 4, cells) if one.axes == ("a",))
    values = np.array([[one.value for one in own] for own in cells])  # (cells, seeds)
    per_seed = (values[2] - values[0] + values[3] - values[1]) / 2
    expected = stats.ttest_1samp(per_seed, 0.0)
    assert made.difference.p_value == pytest.approx(expected.pvalue)
    assert made.difference.how == "paired t over 5 seeds"


def test_interval_covers_the_mean_effect() -> None:
    rng = np.random.default_rng(5)
    rows = [{"a": a, "b": b} for a, b in itertools.product((1, 2), (1, 2, 3))]
    truth = {1: 0.1, 2: 0.4, 3: -0.2}  # an interaction: the effect of a depends on b; the mean effect is 0.1
    hits = []
    for seed in range(300):
        cells = grid_cells(rng, rows, lambda row: truth[row["b"]] * (row["a"] == 2), seeds=(seed,))
        effect = main_effects(rows, ["s"] * 6, cells)[0].difference
        hits.append(effect.low <= 0.1 <= effect.high)
    assert 0.90 <= np.mean(hits) <= 0.99


def test_false_claims_are_as_seldom_as_holm_says() -> None:
    rng = np.random.default_rng(6)
    rows = two_by_three()
    claims = 0
    for seed in range(300):
        made = main_effects(rows, ["s"] * 6, grid_cells(rng, rows, lambda _: 0.0, seeds=(seed,)))
        claims += any(effect.is_told for effect in made)
    assert claims / 300 <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 300)


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_that_may_not_be_compared_are_counted() -> None:
    cells = [[Observation("c", "m", 0, 1.0, 0.9, 1.1, n, matched={"n": n})] for n in (10, 20)]
    assert main_effects([{"a": 1}, {"a": 2}], ["s", "s"], cells) == []
    rows = [{"a": a, "b": b} for b in (1, 2) for a in (1, 2)]
    cells += [[Observation("c", "m", 0, 1.0, 0.9, 1.1, 10, matched={"n": 10})] for _ in range(2)]
    effect = next(one for one in main_effects(rows, ["s"] * 4, cells) if one.axes == ("a",))
    assert (effect.pairs, effect.refused) == (1, 1)


def test_every_block_has_a_base_of_its_own() -> None:
    """Rank 8 to 16 of one sampler and 32 to 64 of another: neither has the other's smallest rank."""
    rows = [{"rank": rank} for rank in (8, 16, 32, 64, 32, 64)]
    blocks = ["a", "a", "b", "b", "c", "c"]
    cells = [
        [Observation(block, "m", 0, value, value - 0.1, value + 0.1, 10)]
        for block, value in zip(blocks, (1.0, 2.0, 5.0, 7.0, 5.0, 9.0), strict=True)
    ]
    made = main_effects(rows, blocks, cells)
    found = [(one.base, one.level, one.pairs, one.unmatched) for one in made]
    assert found == [((8,), (16,), 1, 0), ((32,), (64,), 2, 0)]
    assert [one.difference.value for one in made] == [1.0, 3.0]


def test_lengths_are_checked() -> None:
    with pytest.raises(ShapeError):
        main_effects([{}], ["s", "t"], [[]])
