"""How configurations are chosen: every sampler, conditional parameters, and the budgets of a study and of a cell."""

from __future__ import annotations

import html
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from kfpbench.statistics.hypervolume import hypervolume
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.command import work_on
from kfpbench.study.opened import Opened, existing
from kfpbench.study.options import StudyOptions
from kfpbench.study.report import render_study
from kfpbench.study.results import Row, frame_of_rows, front_of, rows_of
from kfpbench.study.trials import tally

DIGITS = Path(__file__).parents[2] / "suites" / "study_digits.yaml"
GRID = "study.space={samplers.x.a: [0.0, 0.5, 1.0], samplers.x.b: {low: 0.0, high: 1.0, step: 0.5}}"
KINDS = (
    "study.space={samplers.x.kind: [plain, broken, other], samplers.x.a: {low: 0.0, high: 1.0}, "
    "samplers.x.extra: {low: 0.0, high: 1.0, when: {samplers.x.kind: other}}}"
)


def second_value(a: float) -> float:
    """f2 of the planted problem at b = c = d = 0.5 without ``extra``."""
    return 5.5 * (1 - math.sqrt(a / 5.5))


def studied(suite: Path, *overrides: str, out: str = "out") -> tuple[Opened, list[Row]]:
    options = StudyOptions(suite.parent / out, None, None, overrides, True)
    assert work_on(suite, options) == 0
    opened = existing(suite, options)
    return opened, rows_of(opened.study, opened.definition)


@pytest.mark.parametrize(
    "sampler",
    [
        "tpe",
        "{name: tpe, startup: 3}",
        "{name: nsga2, population: 4}",
        "random",
        "qmc",
        "{name: qmc, sequence: halton}",
        "grid",
    ],
)
def test_every_sampler_runs_as_many_trials_as_are_asked_for(planted: Path, sampler: str) -> None:
    space = [GRID] if sampler == "grid" else []
    opened, rows = studied(planted, *space, f"study.sampler={sampler}", "study.budget.trials=9")
    assert tally(opened.study.get_trials(deepcopy=False)).total == 9
    assert [row.what for row in rows] == ["ok"] * 9
    assert len({tuple(row.params.values()) for row in rows}) == 9  # no point twice
    for row in rows:
        assert row.values is not None
        assert row.values[0] == row.params["samplers.x.a"]  # what was drawn is what was run
        assert all(0 <= value <= 1 for value in row.params.values())


def test_a_grid_covers_every_point_once_without_a_budget(planted: Path) -> None:
    _, rows = studied(planted, GRID, "study.sampler=grid", "study.budget={}")
    wanted = sorted(itertools.product([0.0, 0.5, 1.0], repeat=2))
    assert sorted((row.params["samplers.x.a"], row.params["samplers.x.b"]) for row in rows) == wanted


def test_later_generations_of_nsga2_inherit_their_values(planted: Path) -> None:
    _, rows = studied(planted, "study.sampler={name: nsga2, population: 6}", "study.budget.trials=18")
    values = [set(row.params.values()) for row in rows]
    assert len(set().union(*values[:6])) == 24  # the first generation is drawn
    inherited = [value in set().union(*values[:k]) for k in range(6, 18) for value in values[k]]
    assert sum(inherited) > len(inherited) / 2


def test_a_low_discrepancy_sequence_fills_every_quarter_alike(planted: Path) -> None:
    """Sixteen consecutive points do, after one trial that is drawn because Optuna does not know the space yet."""
    _, rows = studied(planted, "study.sampler=qmc", "study.budget.trials=17")
    for name in "abcd":
        quarters = [int(4 * row.params[f"samplers.x.{name}"]) for row in rows[1:]]
        assert [quarters.count(k) for k in range(4)] == [4, 4, 4, 4]


def test_a_conditional_parameter_is_there_only_where_its_condition_holds(planted: Path) -> None:
    opened, rows = studied(planted, KINDS, "study.budget.trials=16")
    kinds = [row.params["samplers.x.kind"] for row in rows]
    assert set(kinds) == {"plain", "other", "broken"}
    for row, kind in zip(rows, kinds, strict=True):
        assert ("samplers.x.extra" in row.params) == (kind == "other")
        assert "samplers.x.a" in row.params
    stored = opened.study.get_trials(deepcopy=False)
    assert [set(trial.params) for trial in stored] == [set(row.params) for row in rows]
    for row in rows:  # and reaches its sampler: f2 has it as a summand
        if row.what == "ok":
            assert row.values is not None
            extra = row.params.get("samplers.x.extra", 0.0)
            assert row.values[1] == pytest.approx(second_value(row.params["samplers.x.a"]) + extra)


def test_a_grid_has_no_two_points_that_differ_in_an_inactive_parameter(planted: Path) -> None:
    extra = "samplers.x.extra: {choices: [0.0, 1.0, 2.0], when: {samplers.x.kind: other}}"
    space = f"study.space={{samplers.x.kind: [plain, other], {extra}}}"
    _, rows = studied(planted, space, "study.sampler=grid", "study.budget={}")
    points = [(row.params["samplers.x.kind"], row.params.get("samplers.x.extra")) for row in rows]
    assert sorted(points, key=str) == [("other", 0.0), ("other", 1.0), ("other", 2.0), ("plain", None)]


def test_no_trial_begins_once_the_time_of_the_study_is_used_up(planted: Path) -> None:
    slow = "samplers.x.sleep=0.3"
    opened, first = studied(planted, slow, "study.budget={trials: 40, seconds: 1.0}")
    assert 1 <= len(first) <= 4  # of at least 0.3 s each
    assert sum(row.seconds for row in first) >= 1.0
    assert sum(row.seconds for row in first[:-1]) < 1.0
    now = tally(opened.study.get_trials(deepcopy=False))
    assert (now.finished, now.running, now.waiting) == (len(first), 0, 0)
    _, again = studied(planted, slow, "study.budget={seconds: 1.0}")
    assert again == first
    _, more = studied(planted, slow, f"study.budget={{trials: {len(first) + 1}, seconds: 1000}}")
    assert more[:-1] == first


@pytest.mark.parametrize(
    ("axis", "limit", "what", "reason"),
    [
        ("samplers.x.sleep: [0.0, 60.0]", "budget.seconds=3", "timeout", "at most 3 s"),
        ("samplers.x.gib: [0.0, 64.0]", "budget.memory_gib=8", "skipped", "at most 8.00 GiB"),
    ],
)
def test_a_trial_beyond_the_budget_of_its_cell_is_kept_with_its_reason(
    planted: Path, axis: str, limit: str, what: str, reason: str
) -> None:
    command = (f"study.space={{{axis}}}", "study.sampler=grid", "study.budget={}", limit)
    opened, rows = studied(planted, *command)
    path = axis.partition(":")[0]
    within, beyond = sorted(rows, key=lambda row: row.params[path])
    assert (within.what, within.reason) == ("ok", "")
    assert (beyond.what, beyond.values) == (what, None)
    assert reason in beyond.reason
    assert [row.number for row in front_of(opened.study, opened.definition)] == [within.number]
    assert beyond.reason in html.unescape(render_study(opened))
    records = RunFolder(opened.folder).log.read().records
    assert {record.details["trial"]: record.status for record in records} == {
        within.number: "ok",
        beyond.number: what,
    }
    _, again = studied(planted, *command)  # it counts: the study is complete and nothing is run again
    assert again == rows
    assert RunFolder(opened.folder).log.read().records == records


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tpe_reaches_what_random_search_does_on_the_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The study of suites/study_digits.yaml by both samplers with five seeds: forty trials each, Frechet distance and
    evaluations of the score, neither of which depends on the machine's load. The volumes are shares of one box: its
    reference point is the worst of all ten fronts, a tenth of their range further.
    """
    fronts: dict[str, list[list[Row]]] = {"tpe": [], "random": []}
    for name, found in fronts.items():
        for seed in range(5):
            # the memory of the process depends on what ran in it before, and no objective is a latency
            fixed = ("study.constraints=[]", "latency_repeats=1", f"study.sampler.name={name}", f"study.seed={seed}")
            options = StudyOptions(tmp_path / f"{name}{seed}", overrides=fixed)
            assert work_on(DIGITS, options) == 0
            opened = existing(DIGITS, options)
            assert [one.metric for one in opened.definition.objectives] == ["frechet", "nfe"]
            assert tally(opened.study.get_trials(deepcopy=False)).finished == 40
            found.append(front_of(opened.study, opened.definition))
    objectives = opened.definition.objectives
    frame = frame_of_rows([row for found in fronts.values() for front in found for row in front], objectives)
    volumes = {
        name: [
            hypervolume(frame.costs(np.array([row.values for row in front])).tolist(), [1.0, 1.0]) for front in found
        ]
        for name, found in fronts.items()
    }
    medians = {name: float(np.median(found)) for name, found in volumes.items()}
    with capsys.disabled():
        for name, found in volumes.items():
            print(f"\n{name}: hypervolumes {[round(one, 4) for one in found]}, median {medians[name]:.4f}")
        print(f"ratio {medians['tpe'] / medians['random']:.4f}")
    assert medians["tpe"] >= 0.98 * medians["random"]
