"""Processes that compute cells use the run's cache: what one of them has fitted, another one reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfpbench import ExecutorOptions, registry
from kfpbench.cache.location import cache_folder
from kfpbench.cache.store import Store
from kfpbench.cache.use import using
from kfpbench.executors.setting import describe_setting, store_of
from kfpbench.runner.execute import run
from kfpbench.store.records import CellRecord

PLUGIN = """
import os, time
from pathlib import Path
import kfpbench

class Fitted:
    def __init__(self, problem, mean):
        self.problem, self.mean = problem, mean
    def sample(self, noise):
        return noise.normal(0) + self.mean
    def describe(self):
        return {"pid": os.getpid()}

@kfpbench.register("samplers", "costly")
class Costly:
    # Tells each fit in a file.
    def __init__(self, told: str):
        self.told = told
    def fit(self, problem):
        with open(self.told, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(0.2)
        return Fitted(problem, 0.25)
    def working_memory(self, size):
        return 1
"""


class Bench:
    """Two cells of one fit, which differ in the number of samples alone."""

    def __init__(self, folder: Path, cheap: Any) -> None:
        (folder / "plugin.py").write_text(PLUGIN)
        self.told = folder / "fits.txt"
        self.told.touch()
        samplers = [{"name": "costly", "told": str(self.told)}]
        grid = {"n_samples": [20, 30]}
        self.suite = cheap(folder, 1, samplers=samplers, grid=grid, plugins=["plugin.py"]).suite

    def run(self, out: Path, **options: Any) -> list[CellRecord]:
        """Both cells' records, that of the fit first."""
        records = run(self.suite, out=out, allow_plugins=True, **options).records
        assert [record.status for record in records] == ["ok", "ok"], [record.reason for record in records]
        return sorted(records, key=lambda record: "read" in record.details.get("cache", {}))

    def fits(self) -> list[int]:
        """The processes that have fitted."""
        return [int(line) for line in self.told.read_text().split()]


@pytest.fixture
def bench(tmp_path: Path, cheap: Any) -> Any:
    before = dict(registry._local)
    yield Bench(tmp_path, cheap)
    registry._local.clear()
    registry._local.update(before)


def _kinds(record: CellRecord, what: str) -> list[str]:
    return [entry["kind"] for entry in record.details.get("cache", {}).get(what, [])]


def _setup(record: CellRecord) -> float:
    return next(entry["value"] for entry in record.measurements if entry["metric"] == "setup_seconds")


@pytest.mark.parametrize(
    "executor",
    [
        ExecutorOptions("processes", workers=2),
        ExecutorOptions("serial", isolate=True),
        pytest.param(ExecutorOptions("dask", workers=2), id="dask"),
    ],
    ids=lambda options: f"{options.name}{'-isolated' if options.isolate else ''}",
)
def test_two_workers_share_a_fit(tmp_path: Path, bench: Bench, executor: ExecutorOptions) -> None:
    if executor.name == "dask":
        pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    fitted, read = bench.run(tmp_path / "run", executor=executor)
    assert _kinds(fitted, "written") == ["fit"]
    assert _kinds(read, "read") == ["fit"]
    pids = [record.details["sampler"]["pid"] for record in (fitted, read)]
    assert pids[0] != pids[1]
    assert bench.fits() == [pids[0]]
    assert _setup(read) == pytest.approx(_setup(fitted), rel=1e-9)  # it costs what it has cost
    assert {entry.kind for entry in Store(cache_folder()).entries()} == {"fit"}


def test_workers_keep_nothing_where_the_run_does_not(tmp_path: Path, bench: Bench) -> None:
    bench.run(tmp_path / "run", executor=ExecutorOptions("processes", workers=2), cache=False)
    assert len(bench.fits()) == 2
    assert not cache_folder().exists()


def test_times_under_load_are_not_kept(tmp_path: Path, bench: Bench) -> None:
    shared = ExecutorOptions("processes", workers=2, share_device=True)
    for record in bench.run(tmp_path / "run", executor=shared):
        assert "cache" not in record.details
    assert not cache_folder().exists()
    bench.run(tmp_path / "serial")
    assert [_kinds(record, "read") for record in bench.run(tmp_path / "again", executor=shared)] == [["fit"]] * 2


def test_the_cache_of_another_host_is_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    with using(Store(tmp_path / "here", refresh=True, worth=0.5)):
        setting = describe_setting(isolate=False, share_device=False).with_cache()
    assert json.loads(json.dumps(setting.as_plain())) == setting.as_plain()
    assert store_of(setting) == Store(tmp_path / "here", refresh=True, worth=0.5)
    monkeypatch.setattr("kfpbench.executors.setting.platform.node", lambda: "another")
    assert store_of(setting) == Store(cache_folder(), refresh=True, worth=0.5)
    assert store_of(setting.with_cache()) is None  # none is in use now
