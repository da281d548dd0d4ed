"""Repeats: intervals that cover as often as they say, grouping by specification, comparison by overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kfpbench.errors import ParameterError, StoreError
from kfpbench.report.aggregate import Estimate, best_set, combine, group_repeats
from kfpbench.report.cells import Measured, read_cells
from kfpbench.report.payoff import break_even, images_to_pay
from kfpbench.statistics.mean_interval import mean_interval


def record(ident: str, seed: int = 0, value: float | None = 1.0, **more) -> dict:
    spec = {"data": {"name": "digits"}, "sampler": {"name": "heun"}, "seed": seed, **more.pop("spec", {})}
    measurements = [{"metric": "coverage", "value": value, "ci_low": 0.9, "ci_high": 1.1, "better": "higher"}]
    return {"cell": ident, "label": "heun", "kind": "sample", "status": "ok", "spec": spec,
            "measurements": measurements, **more}  # fmt: skip


def test_interval_is_student_t() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(expected)


def test_interval_covers_the_mean_in_95_percent_of_trials() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 2.0 <= high for _, low, high in (mean_interval(rng.normal(2, 3, 3)) for _ in range(4000))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_interval_needs_two_finite_values(values) -> None:
    with pytest.raises(ParameterError):
        mean_interval(values)


def test_one_repeat_keeps_its_own_interval() -> None:
    made = combine([Measured("m", 1.0, 0.5, 2.0, n=10, better="lower")])
    assert (made.value, made.low, made.high, made.n, made.repeats) == (1.0, 0.5, 2.0, 10, 1)


def test_repeats_that_are_not_finite_are_left_out_and_counted() -> None:
    made = combine([Measured("m", v) for v in (1.0, math.nan, 3.0, math.inf)])
    assert (made.value, made.repeats, made.excluded) == (2.0, 2, 2)
    nothing = combine([Measured("m", math.nan)] * 2)
    assert math.isnan(nothing.value)
    assert nothing.excluded == 2


def test_cells_that_differ_in_their_seed_only_are_one_group() -> None:
    records = [record("a", 0, 1.0), record("b", 1, 3.0), record("c", 0, spec={"dtype": "float64"})]
    groups = group_repeats(read_cells(records))
    assert [[cell.ident for cell in group.cells] for group in groups] == [["a", "b"], ["c"]]
    assert groups[0].estimates["coverage"].value == 2.0
    assert groups[0].estimates["coverage"].repeats == 2


def test_a_failed_repeat_is_counted_but_not_averaged() -> None:
    failed = record("b", 1, 99.0, status="failed", reason="no")
    (group,) = group_repeats(read_cells([record("a"), failed]))
    assert (group.ok, len(group.cells)) == (1, 2)
    assert group.estimates["coverage"].value == 1.0


def test_a_retry_replaces_the_earlier_record() -> None:
    cells = read_cells([record("a", status="failed", reason="no"), record("a")])
    assert [cell.status for cell in cells] == ["ok"]


def test_best_set_holds_all_that_overlap_with_the_best() -> None:
    estimates = {
        "best": Estimate(0.90, 0.88, 0.92),
        "tied": Estimate(0.87, 0.85, 0.89),
        "chained": Estimate(0.84, 0.82, 0.86),  # overlaps with tied, not with best
        "nan": Estimate(math.nan),
    }
    made = best_set(estimates, "higher")
    assert made.members == {"best", "tied"}
    assert not made.alone
    assert best_set(estimates, "lower").members == {"chained", "tied"}
    assert best_set(estimates, "neither").members == frozenset()


def test_the_best_stands_alone_when_nothing_overlaps() -> None:
    made = best_set({"a": Estimate(1, 0.9, 1.1), "b": Estimate(2, 1.9, 2.1)}, "lower")
    assert (made.members, made.alone) == ({"a"}, True)


def test_values_without_intervals_tie_only_when_equal() -> None:
    made = best_set({"a": Estimate(3.0), "b": Estimate(3.0), "c": Estimate(3.5)}, "lower")
    assert made.members == {"a", "b"}


def test_both_cost_the_same_at_the_break_even() -> None:
    setup, fast, slow, own = 6.0, 0.001, 0.02, 0.5
    n = images_to_pay(setup, fast, slow, own)
    assert setup + n * fast == pytest.approx(own + n * slow)
    assert images_to_pay(setup, fast, slow) == pytest.approx(setup / (slow - fast))


def test_setup_of_a_slower_sampler_never_pays() -> None:
    assert images_to_pay(6.0, 0.02, 0.001) == math.inf
    assert images_to_pay(6.0, 0.02, 0.02) == math.inf
    assert images_to_pay(0.1, 0.001, 0.02, 0.5) == 0.0
    assert math.isnan(images_to_pay(math.nan, 0.001, 0.02))


def test_break_even_range_holds_the_estimate() -> None:
    made = break_even(Estimate(6.0), Estimate(0.001, 0.0009, 0.0011), Estimate(0.02, 0.018, 0.022))
    assert made.low < made.images < made.high
    touching = break_even(Estimate(6.0), Estimate(0.01, 0.005, 0.015), Estimate(0.012, 0.011, 0.013))
    assert touching.high == math.inf


@pytest.mark.parametrize("change", [{"status": "fine"}, {"kind": "dance"}, {"cell": "", "id": ""}])
def test_records_that_are_none_are_refused(change) -> None:
    with pytest.raises(StoreError):
        read_cells([{**record("a"), **change}])
