"""What a study does with a configuration, its stages and failures, and what is made of the results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kfpbench.errors import StoreError, SuiteError
from kfpbench.runner.execute import run
from kfpbench.runner.run_cell import lost_record
from kfpbench.statistics.hypervolume import hypervolume
from kfpbench.store.records import CellRecord, utc_now
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.command import work_on
from kfpbench.study.export import write_suite
from kfpbench.study.figures import front_figures
from kfpbench.study.objectives import Objective, Reading, clearly_dominated
from kfpbench.study.opened import Opened, existing, open_all
from kfpbench.study.options import StudyOptions
from kfpbench.study.report import render_study
from kfpbench.study.results import frame_of_rows, front_of, importances, rows_of, volume_history
from kfpbench.study.storage import Place
from kfpbench.study.trials import tally
from kfpbench.study.views import show_front, show_importance
from kfpbench.study.worker import work
from kfpbench.suite.cell import Cell
from kfpbench.suite.load import load_suite


def studied(suite: Path, *overrides: str, out: str = "out") -> Opened:
    options = StudyOptions(suite.parent / out, None, None, overrides, True)
    assert work_on(suite, options) == 0
    return existing(suite, options)


@pytest.mark.parametrize(
    ("override", "where", "said"),
    [
        ("study.objectives=[f3]", "study.objectives", "no cell of this suite reports"),
        ("study.space.samplers.x.a={low: 1, high: 0}", "samplers.x.a", "high is not above low"),
        (f"study.space.samplers.x.a={{low: {10**399}, high: 1}}", "samplers.x.a", "the integer is too large"),
        ("study.space.samplers.x.a={low: 0.0, high: 2.0}", "samplers.x.a", "where samplers.x.a = 2.0"),
        ("study.space.samplers.x.a={low: 0, high: 1, logs: true}", "samplers.x.a", "unknown key"),
        ("study.space.samplers.x.q=[1]", "samplers.x.q", "unknown path"),
        ("study.space.samplers.x.extra={low: 0, high: 1, when: {samplers.x.kin: plain}}", "extra", "no parameter"),
        ("study.space.seed=[1, 2]", "seed", "a trial's seed"),
        ("study.stages=[8]", "study.stages", "less than n_samples"),
        ("study.sampler=grid", "suite.yaml:15:", "a grid needs choices"),
        ("study.budget={}", "study", "no budget"),
        ("study.target=y", "study.target", "no entry"),
        ("study.sampler=tpes", "study.sampler", "'tpe'"),
    ],
)
def test_a_fault_is_named_with_its_place(planted: Path, override: str, where: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(planted, overrides=[override], allow_plugins=True)
    assert said in str(caught.value)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("kernel.factor: ", "kernel.facter: ", "kernel.facter: ", "Did you mean 'samplers.koopman.kernel.factor'?"),
        (", when: {samplers.koopman.kernel: rational_quadratic}", "", "kernel.alpha: ", "say by `when` which do"),
        ("operator.segments: ", "operator.segmnts: ", "operator.segmnts: ", "'samplers.koopman.operator.segments'"),
        ("[{name: rational_quadratic}", "[{name: rational_quadratc}", "when: ", "Did you mean 'rational_quadratc'?"),
    ],
)
def test_a_slip_in_a_search_over_kernels_is_named_in_its_own_line(
    tmp_path: Path, old: str, new: str, line: str, said: str
) -> None:
    """Where a path does not fit, the choice that is tried first is not at fault."""
    text = (Path(__file__).parents[2] / "examples" / "my_kernel_study.yaml").read_text()
    text = text.replace("plugins: [my_kernel.py]\n", "").replace("kernel.a: ", "kernel.alpha: ")
    text = text.replace("my_rational_quadratic", "rational_quadratic")
    suite = tmp_path / "suite.yaml"
    suite.write_text(text)
    assert load_suite(suite).model.study is not None
    assert text.count(old) == 1
    text = text.replace(old, new)
    suite.write_text(text)
    with pytest.raises(SuiteError) as caught:
        load_suite(suite)
    (number,) = (k for k, one in enumerate(text.splitlines(), start=1) if line in one)
    assert f"suite.yaml:{number}:" in str(caught.value)
    assert said in str(caught.value)


def test_resume_stage_failure_export_and_report(planted: Path) -> None:
    space = "study.space.samplers.x.kind=[plain, broken]"
    first = studied(planted, space, "study.budget.trials=4")
    before = [row.params for row in rows_of(first.study, first.definition)]
    opened = studied(planted, space, "study.budget.trials=9")
    rows = rows_of(opened.study, opened.definition)
    assert len(rows) == 9  # four of the first command, and five more
    assert [row.params for row in rows[:4]] == before
    failed = [row for row in rows if row.params["samplers.x.kind"] == "broken"]
    assert failed
    assert all(row.what == "failed" and "planted failure" in row.reason for row in failed)
    good = [row for row in rows if row.what == "ok"]
    frame = frame_of_rows(good, opened.definition.objectives)
    costs = frame.costs(np.array([row.values for row in good]))
    assert volume_history(rows, frame)[-1] == pytest.approx(hypervolume(costs.tolist(), [1.0, 1.0]))
    assert "planted failure" in render_study(opened)
    best = write_suite(opened, planted.with_name("best.yaml"))
    exported = load_suite(best, allow_plugins=True)
    assert [cell.label for cell in exported.cells] == [
        f"x_t{row.number}" for row in front_of(opened.study, opened.definition)
    ]
    assert {cell.seed for cell in exported.cells} == {1000}
    with pytest.raises(StoreError, match=r"searches something else: changed is study\.space;"):
        open_all(planted, StudyOptions(planted.parent / "out", overrides=(), allow_plugins=True), create=True)


def test_an_isolated_trial_that_kills_its_process_is_a_failed_trial(planted: Path) -> None:
    opened = studied(
        planted, "isolate=true", "study.space.samplers.x.kind=[plain, crash]", "study.budget.trials=4", "study.seed=1"
    )
    told = {row.params["samplers.x.kind"]: (row.what, row.reason) for row in rows_of(opened.study, opened.definition)}
    assert told["plain"] == ("ok", "")
    what, reason = told["crash"]
    assert what == "failed"
    assert "its process died twice" in reason


def test_a_folder_is_that_of_a_run_or_of_a_study(planted: Path) -> None:
    out = planted.parent / "out"
    run(planted, out=out, allow_plugins=True)
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match="holds a run, not a study"):
        studied(planted)
    assert (out / "manifest.json").read_bytes() == before
    studied(planted, "study.budget.trials=1", out="studied")
    with pytest.raises(StoreError, match="holds a study, not a run"):
        run(planted, out=planted.parent / "studied", allow_plugins=True)


def test_the_page_has_no_id_twice_and_its_line_passes_through_the_front(planted: Path) -> None:
    opened = studied(planted, "study.budget.trials=12")
    page = render_study(opened)
    ids = re.findall(r'<\w+[^>]*? id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    payload = re.search(r'id="payload">(.*?)</script>', page, re.DOTALL)
    assert payload is not None
    for key in json.loads(payload[1])["figures"]:
        assert f'<div class="canvas" id="{key}"' in page
    front = front_of(opened.study, opened.definition)
    assert len(front) > 1
    traces = front_figures(rows_of(opened.study, opened.definition), front, opened.definition.objectives)["pair-1"][
        "data"
    ]
    line = next(trace for trace in traces if trace["mode"] == "lines")
    assert {tuple(row.values) for row in front} <= set(zip(line["x"], line["y"], strict=True))


def test_a_configuration_that_is_clearly_dominated_stops_at_its_stage(planted: Path) -> None:
    space = "study.space={samplers.x.extra: [0.0, 5.0], samplers.x.b: [0.0, 0.5]}"
    opened = studied(planted, space, "study.sampler=grid", "study.budget={}", "study.stages=[4]")
    rows = rows_of(opened.study, opened.definition)
    assert {tuple(row.params.values()): row.what for row in rows} == {
        (0.0, 0.0): "ok", (0.0, 0.5): "stopped", (5.0, 0.0): "stopped", (5.0, 0.5): "stopped",
    }  # fmt: skip
    assert {row.stage for row in rows if row.what == "stopped"} == {4}


def test_a_constraint_keeps_off_the_front(planted: Path) -> None:
    opened = studied(planted, "study.constraints=[{metric: f1, at_least: 0.5}]")
    assert all(row.values[0] >= 0.5 for row in front_of(opened.study, opened.definition))
    assert {row.what for row in rows_of(opened.study, opened.definition)} == {"ok", "infeasible"}


def test_intervals_that_meet_do_not_stop_a_trial() -> None:
    both = [Objective("a", "minimize"), Objective("b", "maximize")]
    good = Reading([1.0, 5.0], [0.5, 4.0], [1.5, 6.0], {})
    assert clearly_dominated(Reading([2.0, 3.0], [1.6, 2.0], [3.0, 3.9], {}), [good], both)
    assert not clearly_dominated(Reading([2.0, 3.0], [1.4, 2.0], [3.0, 3.9], {}), [good], both)
    assert not clearly_dominated(Reading([2.0, 3.0], [1.6, 2.0], [3.0, 4.1], {}), [good], both)
    broken = Reading(good.values, good.low, good.high, {"memory": 1.0})
    assert not clearly_dominated(Reading([2.0, 3.0], [1.6, 2.0], [3.0, 3.9], {}), [broken], both)


@pytest.mark.parametrize("force", [False, True])
def test_an_export_never_replaces_what_is_no_ordinary_file(planted: Path, force: bool) -> None:
    opened = studied(planted, "study.budget.trials=2")
    target = planted.with_name("target.yaml")
    target.write_text("kept")
    link, folder = planted.with_name("link.yaml"), planted.with_name("folder")
    link.symlink_to(target)
    folder.mkdir()
    for path in (link, folder):
        with pytest.raises(StoreError, match="no ordinary file"):
            write_suite(opened, path, overwrite=force)
    assert target.read_text() == "kept"
    assert link.is_symlink()


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    place = Place.of("postgresql://me:secret@host:5432/studies", tmp_path)
    assert place.url == "postgresql+psycopg://me:secret@host:5432/studies"
    assert "secret" not in place.shown
    with pytest.raises(StoreError, match="not a storage"):
        Place.of("mysql://host/studies", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tpe_beats_random_search_where_the_front_is_known(planted: Path) -> None:
    volumes: dict[str, list[float]] = {"tpe": [], "random": []}
    for name, found in volumes.items():
        for seed in range(5):
            sampler = f"study.sampler={name}"
            opened = studied(planted, sampler, f"study.seed={seed}", "study.budget.trials=40", out=f"{name}{seed}")
            assert tally(opened.study.get_trials(deepcopy=False)).finished == 40
            points = [row.values for row in rows_of(opened.study, opened.definition)]
            found.append(hypervolume(points, [1.1, 6.0]))
    print(f"median hypervolume: tpe {np.median(volumes['tpe']):.3f}, random {np.median(volumes['random']):.3f}")
    assert np.median(volumes["tpe"]) > np.median(volumes["random"])


def test_a_time_taken_under_load_is_marked_wherever_it_is_shown(planted: Path) -> None:
    """Every second trial's times are made ones that the meter found disturbed, as the records of such cells say it."""

    def planted_load(number: int, cells: Sequence[Cell], folder: RunFolder) -> list[CellRecord]:
        entries = [
            {"metric": "f1", "value": 0.1 * number, "ci_low": None, "ci_high": None, "details": {}},
            {
                "metric": "seconds_per_image",
                "value": 1.0 - 0.1 * number,
                "ci_low": 0.9 - 0.1 * number,
                "ci_high": 1.2 - 0.1 * number,
                "details": {"load": "taken under load"} if number % 2 else {},
            },
        ]
        (cell,) = cells
        return [replace(lost_record(cell, "ok", "", utc_now(), 0.0), measurements=entries)]

    overrides = ("study.objectives=[f1, seconds_per_image]", "study.budget.trials=4")
    opened = open_all(planted, StudyOptions(planted.parent / "out", None, None, overrides, True), create=True)
    work(opened.definition, opened.study, opened.claims, opened.folder, evaluate=planted_load)
    time_metric = ["seconds_per_image"]
    assert [row.under_load for row in rows_of(opened.study, opened.definition)] == [[], time_metric, [], time_metric]
    lines = show_front(opened, as_json=False).splitlines()[1:]
    assert len(lines) == 4
    assert [("seconds_per_image" in line, "(under load)" in line) for line in lines] == [
        (True, k % 2 == 1) for k in range(4)
    ]
    page = render_study(opened)
    assert "The times of 2 of 4 trials were taken while other programs" in page
    assert "trials 1, 3." in page
    assert page.count('<small class="note">under load</small>') == 4  # two trials in two tables
    rows, objectives = rows_of(opened.study, opened.definition), opened.definition.objectives
    (figure,) = front_figures(rows, front_of(opened.study, opened.definition), objectives).values()
    (trace,) = (one for one in figure["data"] if one.get("name") == "on the front")
    assert trace["error_y"]["array"] == pytest.approx([0.2] * 4)  # upwards: from the value to the interval's end
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.1] * 4)
    assert "error_x" not in trace  # f1 has no interval


def test_importances_need_twenty_results(planted: Path) -> None:
    opened = studied(planted, "study.budget.trials=19")
    assert importances(opened.study, opened.definition) == {}
    with pytest.raises(StoreError, match="fewer than 20 trials"):
        show_importance(opened, as_json=False)
    assert "Too few results: importances are told from 20 trials on." in render_study(opened)
    opened = studied(planted, "study.budget.trials=20")
    assert set(importances(opened.study, opened.definition)) == {"f1", "f2"}


def test_of_a_block_that_is_chosen_what_tells_it_from_the_others_is_shown(planted: Path) -> None:
    text = (Path(__file__).parents[2] / "suites" / "study_digits.yaml").read_text()
    planted.write_text(text)
    space = open_all(planted, StudyOptions(planted.parent / "out", None, None, (), False), create=True).definition.space
    kernel, solver = "samplers.spectral.start.kernel", "samplers.spectral.start.eigensolver"
    dense = {"name": "dense", "truncation": 1.0e-6, "max_rank": 150}
    shown = space.shown({kernel: {"name": "rbf", "bandwidth": "median"}, solver: dense, f"{kernel}.factor": 2.00004})
    assert shown[kernel] == {"name": "rbf"}  # all three have the bandwidth
    assert shown[solver] == dense  # the other choice is no block
    assert shown[f"{kernel}.factor"] == 2.0


def test_trials_of_a_plugin_that_has_changed_are_not_gone_on_with(planted: Path) -> None:
    studied(planted, "study.budget.trials=1")
    plugin = planted.with_name("planted.py")
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    with pytest.raises(StoreError, match=r"has changed since .* Name another folder with --out") as caught:
        studied(planted, "study.budget.trials=2")
    assert "--force" not in str(caught.value)  # no verb of a study has it
