"""The axes of the filter, what the small multiples begin with, and how costs grow."""

from __future__ import annotations

import math
from typing import Any

import made_up_run as made_up
import numpy as np
import pytest

from kfpbench.report.ablation_axes import ABSENT, ablation_axes
from kfpbench.report.ablation_section import BY_METRIC, build_ablation
from kfpbench.report.aggregate import Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import cost_columns, quality_columns
from kfpbench.report.scaling_section import build_scaling, exponent


def groups_of(records: list[dict[str, Any]]) -> list[Group]:
    return group_repeats(read_cells(records))


def grid(axes: list[dict[str, Any]], **values: list[float]) -> list[Group]:
    """A cell per mapping of axes, of one sampler; ``values`` replace measurements."""
    records = []
    for number, own in enumerate(axes):
        record = made_up.sample_record(number, "digits", "koopman rank 64", 0, np.random.default_rng(number))
        record.update(cell=f"c{number}", label="koopman", axes=own)
        for path, value in own.items():
            record["spec"]["sampler"][path.split(".")[-1]] = value
        for one in record["measurements"]:
            if one["metric"] in values:
                one.update(value=values[one["metric"]][number], ci_low=None, ci_high=None)
        records.append(record)
    return groups_of(records)


def test_axes_of_two_samplers_are_one() -> None:
    groups = grid([{"samplers.a.rank": 64}, {"samplers.a.rank": 8}, {"samplers.b.rank": 16}])
    (axis,) = ablation_axes(groups)
    assert (axis.name, axis.title, axis.levels, axis.numbers) == (
        "sampler.rank",
        "rank",
        ("8", "16", "64"),
        (8.0, 16.0, 64.0),
    )
    assert axis.level_of == (2, 0, 1)


def test_axes_that_vary_together_are_one_and_absent_values_are_told() -> None:
    axes = [{"data.x": "a", "score.y": 1}, {"data.x": "b", "score.y": 2}, {"data.z": 1}, {"data.z": 2}]
    found = {axis.name: axis for axis in ablation_axes(grid(axes))}
    assert set(found) == {"data.x", "data.z"}
    assert found["data.x"].levels == ("a", "b", ABSENT)
    assert found["data.z"].level_of == (2, 2, 0, 1)
    assert found["data.z"].numbers == (1.0, 2.0)


def test_a_grid_begins_with_its_numbers_and_a_list_of_samplers_with_its_cells() -> None:
    axes = [{"samplers.k.rank": r, "samplers.k.kernel": k} for r in (8, 16, 64) for k in ("rbf", "matern52")]
    groups = grid(axes)
    made = build_ablation("p", groups, quality_columns(groups), "recall")
    assert made is not None
    assert made.axes[made.start.along].title == "rank"
    assert made.start.colours is not None
    assert made.axes[made.start.colours].title == "kernel"
    assert (made.start.metric, made.start.panels) == ("recall", BY_METRIC)
    assert made.counts == ((2, 2, 2), (3, 3)) or made.counts == ((3, 3), (2, 2, 2))

    apart = [g for g in groups_of(made_up.records()) if g.ok and g.first.dataset == "digits"]
    made = build_ablation("p", apart, [*quality_columns(apart), *cost_columns(apart)], "coverage")
    assert made is not None
    rows = made.as_payload["metrics"]["coverage"]["rows"]
    for group, row in zip(apart, rows, strict=True):
        estimate = group.estimates["coverage"]
        assert row[:3] == [estimate.value, estimate.low, estimate.high]


def test_one_cell_is_no_ablation() -> None:
    groups = groups_of([made_up.sample_record(0, "digits", "heun 18", 0, np.random.default_rng(0))])
    assert build_ablation("p", groups, quality_columns(groups), None) is None


def test_exponent_of_a_power_law_and_of_noise() -> None:
    made = exponent([100, 200, 400, 800], [3 * n**2.5 for n in (100, 200, 400, 800)])
    assert made.value == pytest.approx(2.5)
    assert made.high - made.low < 1e-6
    # slope, and half-width by hand: sizes e^0..e^3, log values 0, 1, 1, 2: slope 0.6, s^2 = 0.1, t(2) = 4.3027
    made = exponent(np.exp(range(4)).tolist(), np.exp([0, 1, 1, 2]).tolist())
    assert made.value == pytest.approx(0.6)
    assert (made.high - made.low) / 2 == pytest.approx(4.30265 * math.sqrt(0.1 / 5), rel=1e-4)
    assert math.isnan(exponent([1, 2, 3], [1, 0, 2]).value)
    assert math.isnan(exponent([1, 2], [1, 4]).low)
    assert exponent([1, 2], [1, 4]).value == pytest.approx(2.0)


def test_costs_against_the_number_of_points() -> None:
    sizes = (500, 1000, 2000, 4000)
    axes = [{"samplers.k.operator.points": n, "samplers.k.kernel": k} for k in ("rbf", "matern52") for n in sizes]
    groups = grid(axes, setup_seconds=[1e-6 * n**2 for n in sizes] + [1e-9 * n**3 for n in sizes])
    (made,) = build_scaling("part-1", groups, quality_columns(groups))
    assert made.title == "points N"
    place = [column.metric for column in made.columns].index("setup_seconds")
    powers = {row.label: float(row.exponents[place][0]) for row in made.rows}
    assert powers == {"rbf": 2.0, "matern52": 3.0}
    figure = made.figures[f"{made.key}-setup_seconds"]
    assert [trace["x"] for trace in figure["data"]] == [list(sizes)] * 2
    np.testing.assert_allclose(figure["data"][1]["y"], [1e-9 * n**3 for n in sizes])
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_two_sizes_are_no_curve() -> None:
    groups = grid([{"samplers.k.operator.points": n} for n in (500, 1000)])
    assert build_scaling("part-1", groups, quality_columns(groups)) == []
