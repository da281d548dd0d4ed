"""Runs in this process: what becomes of cells that fail, of folders that are continued, of suites that change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import kfpbench
from kfpbench import registry
from kfpbench.errors import ParameterError, StoreError, SuiteError
from kfpbench.runner.execute import RunResult, run
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.load import load_suite

PLUGIN = """
import sys, time
from pathlib import Path
import kfpbench
import torch
from kfpbench.errors import CapabilityError

class Fitted:
    def __init__(self, problem, change=lambda rows: rows, about=None):
        self.problem, self.change, self.about = problem, change, about

    def sample(self, noise):
        return self.change(noise.normal(0))

    def describe(self):
        return {"about": self.about}

class Base:
    def working_memory(self, size):
        return 1

@kfpbench.register("samplers", "raises")
class Raises(Base):
    def fit(self, problem):
        raise ValueError("nothing fits")

@kfpbench.register("samplers", "leaves")
class Leaves(Base):
    def fit(self, problem):
        sys.exit("out of here")

@kfpbench.register("samplers", "nan")
class Nan(Base):
    def fit(self, problem):
        return Fitted(problem, lambda rows: rows.masked_fill(torch.arange(len(rows))[:, None] == 0, torch.nan))

@kfpbench.register("samplers", "wide")
class Wide(Base):
    def fit(self, problem):
        return Fitted(problem, lambda rows: torch.cat([rows, rows], dim=1))

@kfpbench.register("samplers", "short")
class Short(Base):
    def fit(self, problem):
        return Fitted(problem, lambda rows: rows[: max(1, len(rows) - 1)])

@kfpbench.register("samplers", "arrays")
class Arrays(Base):
    def fit(self, problem):
        return Fitted(problem, lambda rows: rows.numpy())

@kfpbench.register("samplers", "hangs")
class Hangs(Base):
    def fit(self, problem):
        time.sleep(300)

@kfpbench.register("samplers", "unable")
class Unable(Base):
    def fit(self, problem):
        raise CapabilityError("not in this plane", got=problem.dataset.dimension, allowed="3")

@kfpbench.register("samplers", "secretive")
class Secretive(Base):
    def fit(self, problem):
        return Fitted(problem, about=object())

@kfpbench.register("samplers", "vandal")
class Vandal(Base):
    def fit(self, problem):
        problem.dataset.train[:] = 0.0

@kfpbench.register("samplers", "silent")
class Silent(Base):
    def fit(self, problem):
        raise CapabilityError("")

@kfpbench.register("metrics", "twice")
class Twice:
    outputs = {"same": "lower"}

    def evaluate(self, data):
        from kfpbench.protocols import Measurement
        return [Measurement("same", 1.0), Measurement("same", 2.0)]

@kfpbench.register("samplers", "switched")
class Switched(Base):
    # Writes a line whenever it is fitted; does what the switch says.
    def __init__(self, folder: str, number: int = 0):
        self.folder, self.number = Path(folder), number

    def fit(self, problem):
        with (self.folder / "fitted").open("a") as log:
            log.write(f"{self.number}\\n")
        switch = self.folder / "switch"
        order = switch.read_text() if switch.exists() else ""
        if order == "fail":
            raise RuntimeError("switched off")
        if order == "interrupt":
            raise KeyboardInterrupt
        return Fitted(problem, lambda rows: rows + self.number)
"""
SUITE: dict[str, Any] = {
    "schema_version": 1,
    "name": "execute",
    "plugins": ["plugin.py"],
    "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": ["gaussian"],
    "metrics": ["energy_distance"],
    "n_samples": 40,
    "batch_size": 16,
    "latency_repeats": 2,
    "device": "cpu",
}
BROKEN = ("raises", "leaves", "nan", "wide", "short", "arrays", "hangs", "secretive", "vandal")


@contextmanager
def registrations_undone() -> Iterator[None]:
    """Every test has a plugin file of its own, and two files may not bring the same names."""
    before = dict(registry._local)
    try:
        yield
    finally:
        registry._local.clear()
        registry._local.update(before)


@pytest.fixture(autouse=True)
def _registrations() -> Iterator[None]:
    with registrations_undone():
        yield


class Bench:
    """A folder with the plugin file, a suite file, and a run folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "run"
        (folder / "plugin.py").write_text(PLUGIN)

    def run(self, samplers: list[Any] | None = None, changes: dict[str, Any] | None = None, **how: Any) -> RunResult:
        """Write the suite (JSON is YAML) and run it."""
        content = {**SUITE, **({} if samplers is None else {"samplers": samplers}), **(changes or {})}
        (self.folder / "suite.yaml").write_text(json.dumps(content))
        with registrations_undone():
            return run(self.folder / "suite.yaml", out=self.out, allow_plugins=True, **how)

    def switched(self, *numbers: int) -> list[Any]:
        """One sampler for each number, which counts its fits and obeys the switch."""
        return [
            {"name": "switched", "label": f"s{number}", "folder": str(self.folder), "number": number}
            for number in numbers
        ]

    def switch(self, order: str) -> None:
        (self.folder / "switch").write_text(order)

    @property
    def fitted(self) -> list[int]:
        """The numbers of the fits since the last look."""
        log = self.folder / "fitted"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return [int(line) for line in lines]

    @property
    def log(self) -> bytes:
        return (self.out / "cells.jsonl").read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, RunResult]:
    """One run with every way to fail, and sound samplers before and after."""
    bench = Bench(tmp_path_factory.mktemp("broken"))
    Bench(tmp_path_factory.mktemp("first")).run()  # imports what the first cell of a process imports
    samplers = ["gaussian", *BROKEN, "unable", "silent", {"name": "pf_ode_heun", "steps": 2}]
    return bench, bench.run(samplers, {"budget": {"seconds": 3.0}})


def by_label(result: RunResult) -> dict[str, Any]:
    return {record.label: record for record in result.records}


def test_failures_stop_no_other_cell(broken: tuple[Bench, RunResult]) -> None:
    _, result = broken
    assert {record.label: record.status for record in result.records} == {
        "gaussian": "ok",
        **dict.fromkeys(BROKEN, "failed"),
        "hangs": "timeout",
        "unable": "skipped",
        "silent": "skipped",
        "pf_ode_heun": "ok",
    }
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("raises", "ValueError: nothing fits"),
        ("leaves", "SystemExit: out of here"),
        ("nan", "NumericalError: samples hold NaN or infinity; got '3 of 40 rows'"),
        ("wide", "PluginError: the sampler returned rows of the wrong shape; got (16, 4); allowed: (16, 2)"),
        ("short", "PluginError: the sampler returned rows of the wrong shape; got (15, 2)"),
        ("arrays", "PluginError: the sampler returned no tensor; got 'ndarray'"),
        ("secretive", "StoreError: details.sampler.about: a value cannot be stored; got 'object'"),
        ("vandal", "ValueError: assignment destination is read-only"),
        ("hangs", "cell hangs ran longer than its time budget"),
        ("unable", "not in this plane; got 2; allowed: 3"),
        ("silent", "no reason was given"),
    ],
)
def test_the_reason_of_each_is_told(broken: tuple[Bench, RunResult], label: str, reason: str) -> None:
    record = by_label(broken[1])[label]
    assert record.reason.startswith(reason)
    assert record.measurements == []
    assert record.files == {}
    assert ("Traceback" in record.traceback) == (record.status == "failed")
    assert record.seconds < 20


def test_the_traceback_shows_the_plugin(broken: tuple[Bench, RunResult]) -> None:
    assert "plugin.py" in by_label(broken[1])["raises"].traceback


def test_failures_are_in_the_table_and_the_report(broken: tuple[Bench, RunResult]) -> None:
    bench, result = broken
    frame = kfpbench.load_run(bench.out)
    failed = frame[frame["label"] == "raises"]
    assert failed[["status", "reason"]].to_numpy().tolist() == [["failed", "ValueError: nothing fits"]]
    assert failed["metric"].isna().all()
    report = result.report.read_text()
    for text in ("nothing fits", "not in this plane", "longer than its time budget"):
        assert text in report


def test_a_failed_cell_keeps_the_phases_it_got_through(broken: tuple[Bench, RunResult]) -> None:
    records = by_label(broken[1])
    assert set(records["nan"].phases) == {"setup", "warm_up", "latency", "sampling", "metrics"}
    assert set(records["raises"].phases) == {"setup"}


def test_a_metric_twice_fails_the_cell_alone(bench: Bench) -> None:
    result = bench.run(changes={"metrics": ["twice"], "spectrum": [{"label": "modes", "operator": {"points": 20}}]})
    records = by_label(result)
    assert records["gaussian"].status == "failed"
    assert "each metric once a cell" in records["gaussian"].reason
    assert "Traceback" in records["gaussian"].traceback
    assert records["modes"].status == "ok"


def test_a_memory_budget_skips_with_its_reason(bench: Bench) -> None:
    result = bench.run(bench.switched(1), {"budget": {"memory_gib": 1e-6}})
    (record,) = result.records
    assert record.status == "skipped"
    assert record.reason.startswith("cell s1 would need more memory than its budget")
    assert bench.fitted == []
    assert result.exit_code == 0


def test_nothing_is_run_twice(bench: Bench) -> None:
    first = bench.run(bench.switched(1, 2))
    log = bench.log
    assert bench.fitted == [1, 2]
    second = bench.run(bench.switched(1, 2))
    assert bench.fitted == []
    assert bench.log == log
    assert second.records == first.records
    assert "earlier" not in RunFolder.open(bench.out).read_manifest()  # a command with nothing to do writes nothing


def test_force_runs_all_again(bench: Bench) -> None:
    bench.run(bench.switched(1, 2))
    log = bench.log
    result = bench.run(bench.switched(1, 2), force=True)
    assert bench.fitted == [1, 2, 1, 2]
    assert bench.log.startswith(log)
    assert len(bench.log.splitlines()) == 4
    assert len(result.records) == 2
    assert result.frame["cell"].nunique() == 2


def test_a_failed_cell_is_run_again_only_when_told(bench: Bench) -> None:
    bench.switch("fail")
    assert [record.status for record in bench.run(bench.switched(1)).records] == ["failed"]
    bench.switch("")
    again = bench.run(bench.switched(1))
    assert (bench.fitted, again.exit_code) == ([1], 1)
    mended = bench.run(bench.switched(1), retry_failed=True)
    assert bench.fitted == [1]
    assert [record.status for record in mended.records] == ["ok"]
    assert mended.exit_code == 0
    assert set(mended.frame["status"]) == {"ok"}
    bench.run(bench.switched(1), retry_failed=True)
    assert bench.fitted == []


def test_a_timed_out_cell_is_run_again_only_when_told(bench: Bench) -> None:
    changes = {"budget": {"seconds": 0.3}}
    first = bench.run(["hangs"], changes)
    assert [record.status for record in first.records] == ["timeout"]
    lines = len(bench.log.splitlines())
    bench.run(["hangs"], changes)
    assert len(bench.log.splitlines()) == lines
    bench.run(["hangs"], changes, retry_failed=True)
    assert len(bench.log.splitlines()) == lines + 1


def test_an_interrupt_keeps_what_is_finished(bench: Bench) -> None:
    samplers = ["gaussian", *bench.switched(1)]
    bench.switch("interrupt")
    with pytest.raises(KeyboardInterrupt):
        bench.run(samplers)
    assert set(kfpbench.load_run(bench.out)["label"]) == {"gaussian"}
    assert "gaussian" in (bench.out / "report.html").read_text()
    assert RunFolder.open(bench.out).read_manifest()["interrupted"] is True
    bench.switch("")
    log = bench.log
    result = bench.run(samplers)
    assert [record.label for record in result.records] == ["gaussian", "s1"]
    assert result.exit_code == 0
    assert RunFolder.open(bench.out).read_manifest()["interrupted"] is False
    assert bench.log.startswith(log)
    assert len(bench.log.splitlines()) == 2


def test_an_edited_plugin_makes_the_folder_out_of_date(bench: Bench) -> None:
    bench.run(bench.switched(1))
    before = snapshot(bench.out)
    (bench.folder / "plugin.py").write_text(PLUGIN + "# edited\n")
    with pytest.raises(StoreError, match=r"the plugin plugin\.py has changed"):
        bench.run(bench.switched(1))
    assert snapshot(bench.out) == before
    bench.run(bench.switched(1), force=True)
    assert bench.fitted == [1, 1]
    bench.run(bench.switched(1))
    assert bench.fitted == []


def test_a_larger_budget_makes_no_other_cell(bench: Bench) -> None:
    bench.run(bench.switched(1))
    bench.run(bench.switched(1), {"budget": {"seconds": 1000.0}})
    assert bench.fitted == [1]


def test_a_half_written_line_is_dropped_and_its_cell_run_again(bench: Bench) -> None:
    bench.run(bench.switched(1, 2))
    whole = bench.log
    (bench.out / "cells.jsonl").write_bytes(whole[:-50])
    assert bench.fitted == [1, 2]
    with pytest.warns(UserWarning, match="dropped a half-written last line"):
        result = bench.run(bench.switched(1, 2))
    assert bench.fitted == [2]
    assert [record.status for record in result.records] == ["ok", "ok"]
    assert bench.log.startswith(whole.splitlines(keepends=True)[0])
    assert len(bench.log.splitlines()) == 2


def test_a_new_cell_leaves_the_others_as_they_were(bench: Bench) -> None:
    before = bench.run(bench.switched(1, 2))
    log = bench.log
    result = bench.run(bench.switched(3, 1, 2))  # before the others: their places in the plan change
    assert bench.fitted == [1, 2, 3]
    assert bench.log.startswith(log)
    assert [(record.label, record.index) for record in result.records] == [("s3", 0), ("s1", 1), ("s2", 2)]
    assert [record.measurements for record in result.records[1:]] == [record.measurements for record in before.records]


def test_a_removed_cell_leaves_the_results(bench: Bench) -> None:
    bench.run(bench.switched(1, 2))
    result = bench.run(bench.switched(2))
    assert set(result.frame["label"]) == {"s2"}
    assert "s1" not in {record.label for record in result.records}
    assert len(bench.log.splitlines()) == 2  # but not the log
    bench.run(bench.switched(1, 2))
    assert bench.fitted == [1, 2]


def test_a_new_label_is_shown_without_another_run(bench: Bench) -> None:
    samplers = bench.switched(1)
    first = bench.run(samplers)
    samplers[0]["label"] = "renamed"
    result = bench.run(samplers)
    assert bench.fitted == [1]
    assert [record.label for record in result.records] == ["renamed"]
    assert result.records[0].measurements == first.records[0].measurements
    assert set(result.frame["label"]) == {"renamed"}
    log = bench.log
    bench.run(samplers)
    assert bench.log == log


def test_select_runs_a_part_and_the_rest_later(bench: Bench) -> None:
    part = bench.run(bench.switched(1, 2, 3), select=["label=s2"])
    assert bench.fitted == [2]
    assert [record.label for record in part.records] == ["s2"]
    whole = bench.run(bench.switched(1, 2, 3))
    assert bench.fitted == [1, 3]
    assert [record.label for record in whole.records] == ["s1", "s2", "s3"]


def test_the_exit_code_is_that_of_the_selected_cells(bench: Bench) -> None:
    assert bench.run(["gaussian", "raises"]).exit_code == 1
    assert bench.run(["gaussian", "raises"], select=["label=gaussian"]).exit_code == 0


def test_a_selection_that_matches_nothing_makes_no_folder(bench: Bench) -> None:
    with pytest.raises(SuiteError, match="no cell has this value"):
        bench.run(select=["label=absent"])
    assert not bench.out.exists()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_another_suite_is_refused(bench: Bench) -> None:
    bench.run()
    before = snapshot(bench.out)
    with pytest.raises(StoreError, match="run of another suite") as caught:
        bench.run(changes={"name": "other"})
    assert (caught.value.got, caught.value.allowed) == ("execute", "other")
    assert snapshot(bench.out) == before


def test_a_folder_with_other_files_is_refused(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="the path is not free"):
        bench.run()
    assert snapshot(bench.out) == {"thesis.tex": b"years of work"}


def test_a_loaded_suite_runs_and_takes_no_overrides(bench: Bench) -> None:
    bench.run()
    suite = load_suite(bench.folder / "suite.yaml", allow_plugins=True)
    assert run(suite, out=bench.out).exit_code == 0
    with pytest.raises(ParameterError, match="loaded already"):
        run(suite, out=bench.out, overrides=["n_samples=20"])


def test_a_mapping_runs_in_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run({key: value for key, value in SUITE.items() if key != "plugins"}, overrides=["n_samples=20"])
    assert result.folder == Path("reports/runs/execute")
    assert result.report.is_file()
    assert result.records[0].spec["n_samples"] == 20
    assert RunFolder.open(result.folder).read_manifest()["suite"]["overrides"] == ["n_samples=20"]


def test_progress_is_told_of_every_cell(bench: Bench) -> None:
    told: list[tuple[Any, ...]] = []

    class Listener:
        def begin(self, total: int, done: int) -> None:
            told.append(("begin", total, done))

        def started(self, cell: Any) -> None:
            told.append(("started", cell.label))

        def finished(self, cell: Any, record: Any) -> None:
            told.append(("finished", cell.label, record.status))

        def note(self, text: str) -> None:
            told.append(("note", text))

    bench.run(["gaussian"])
    bench.run(["gaussian", "raises"], progress=Listener())
    assert told == [("begin", 2, 1), ("started", "raises"), ("finished", "raises", "failed")]


def test_an_absent_device_skips_the_cell(bench: Bench) -> None:
    index = torch.cuda.device_count() + 7
    result = bench.run(changes={"device": f"cuda:{index}"})
    (record,) = result.records
    assert record.status == "skipped"
    assert "no such CUDA device" in record.reason
    assert result.exit_code == 0
