"""Cells in other processes: the same results, and whatever ends a process ends no run."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from kfpbench import registry
from kfpbench.errors import ParameterError
from kfpbench.runner.execute import run
from kfpbench.runner.executor_options import ExecutorOptions
from kfpbench.runner.post_mortem import post_mortem

PLUGIN = """
import ctypes, os, signal, time
from pathlib import Path
import kfpbench
import torch

class Fitted:
    def __init__(self, problem):
        self.problem = problem
    def sample(self, noise):
        return noise.normal(0)
    def describe(self):
        return {}

class Base:
    def working_memory(self, size):
        return 1

@kfpbench.register("samplers", "segfault")
class Segfault(Base):
    def fit(self, problem):
        ctypes.string_at(0)

@kfpbench.register("samplers", "hang")
class Hang(Base):
    def fit(self, problem):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as a long call into C: no timer gets through
        time.sleep(600)

@kfpbench.register("samplers", "hog")
class Hog(Base):
    # Private memory, which the limit of the process sees, or shared memory, which only its size shows.
    def __init__(self, shared: bool = False):
        self.shared = shared
    def fit(self, problem):
        if not self.shared:
            self.rows = torch.ones(2**30)  # 4 GiB at once: gone before anyone could look
        else:
            import mmap
            self.rows = [mmap.mmap(-1, 2**26) for _ in range(12)]
            for row in self.rows:
                row.write(b"x" * 2**26)
            time.sleep(60)

@kfpbench.register("samplers", "nan")
class Nan(Base):
    def fit(self, problem):
        fitted = Fitted(problem)
        fitted.sample = lambda noise: noise.normal(0) * torch.nan
        return fitted

@kfpbench.register("samplers", "once")
class Once(Base):
    # Ends its process the first time that it is fitted.
    def __init__(self, folder: str):
        self.folder = Path(folder)
    def fit(self, problem):
        mark = self.folder / "fitted"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Fitted(problem)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Any:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    before = dict(registry._local)
    yield {"plugins": ["plugin.py"]}
    registry._local.clear()
    registry._local.update(before)


def test_two_processes_give_what_one_gives(tmp_path: Path, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 8)
    run(bench.suite, out=tmp_path / "serial")
    run(bench.suite, out=tmp_path / "processes", executor=ExecutorOptions("processes", workers=2))
    same(tmp_path / "serial", tmp_path / "processes", 8)


def test_whatever_ends_a_cell_is_its_reason_and_the_others_go_on(tmp_path: Path, cheap: Any, plugin: Any) -> None:
    samplers = [
        {"name": "segfault"},
        {"name": "hang"},
        {"name": "hog", "label": "private"},
        {"name": "hog", "label": "shared", "shared": True},
        {"name": "nan"},
        {"name": "once", "folder": str(tmp_path)},
        {"name": "gaussian"},
    ]
    budget = {"seconds": 10.0, "memory_gib": 0.4}
    bench = cheap(tmp_path, 1, samplers=samplers, budget=budget, isolate=True, **plugin)
    result = run(bench.suite, out=tmp_path / "run", allow_plugins=True)
    found = {record.label: record for record in result.records}
    assert {label: record.status for label, record in found.items()} == {
        "segfault": "failed",
        "hang": "timeout",
        "private": "failed",
        "shared": "failed",
        "nan": "failed",
        "once": "ok",
        "gaussian": "ok",
    }
    assert "SIGSEGV" in found["segfault"].reason
    assert "died twice" in found["segfault"].reason
    assert "ctypes" in found["segfault"].traceback  # where it was
    assert "time budget of 10 s" in found["hang"].reason
    assert 12 <= found["hang"].seconds < 60
    assert found["private"].reason.startswith("out of memory within its budget of 0.4 GiB")
    assert "more than its budget of 0.4 GiB" in found["shared"].reason
    assert "NaN" in found["nan"].reason
    assert any("run a second time" in note for note in found["once"].details["notes"])
    assert result.exit_code == 1


def test_a_device_runs_one_cell_at_a_time(tmp_path: Path, cheap: Any) -> None:
    bench = cheap(tmp_path, 6)
    result = run(bench.suite, out=tmp_path / "run", executor=ExecutorOptions("processes", workers=2))
    spans = sorted((record.started, record.finished) for record in result.records)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_shared_devices_are_marked_in_every_time(tmp_path: Path, cheap: Any) -> None:
    bench = cheap(tmp_path, 4)
    options = ExecutorOptions("processes", workers=2, share_device=True)
    result = run(bench.suite, out=tmp_path / "run", executor=options)
    for record in result.records:
        times = [entry for entry in record.measurements if entry["metric"].startswith("seconds")]
        assert times
        assert all("under load" in entry["details"]["load"] for entry in times)
    assert "under load" in json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"][-1]


def test_hooks_are_refused_where_cells_run_elsewhere(tmp_path: Path, cheap: Any) -> None:
    bench = cheap(tmp_path, 1, isolate=True)
    with pytest.raises(ParameterError, match="in this process alone"):
        run(bench.suite, out=tmp_path / "run", around=[post_mortem])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "threads"}, "no such executor"),
        ({"name": "processes", "workers": 0}, "1 or more"),
        ({"workers": 2}, "one cell at a time"),
        ({"name": "processes", "scheduler": "tcp://head:1"}, "no scheduler"),
        ({"name": "dask", "scheduler": "tcp://head:1", "workers": 2}, "its own workers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ExecutorOptions(**options)


def test_a_run_of_processes_that_is_killed_goes_on(tmp_path: Path, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 30)
    bench.run(tmp_path / "whole")
    options = ("--executor", "processes", "--workers", "2")
    assert bench.killed_until_done(tmp_path / "killed", 1, random.Random(3), 0.05, *options) == 1
    same(tmp_path / "whole", tmp_path / "killed", 30)
