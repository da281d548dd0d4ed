"""A Dask cluster of two workers gives what one process gives, also when its workers are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kfpbench.errors import CapabilityError
from kfpbench.runner.execute import run
from kfpbench.runner.executor_options import ExecutorOptions

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")


def test_a_local_cluster_gives_what_one_process_gives(tmp_path: Path, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 6)
    run(bench.suite, out=tmp_path / "serial")
    run(bench.suite, out=tmp_path / "dask", executor=ExecutorOptions("dask", workers=2))
    same(tmp_path / "serial", tmp_path / "dask", 6)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, cheap: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kfpbench.executors.dask_cluster._WAIT", "1s")
    options = ExecutorOptions("dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(CapabilityError, match="no Dask scheduler answers"):
        run(cheap(tmp_path, 1).suite, out=tmp_path / "run", executor=options)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_workers_that_are_killed_lose_no_cell(tmp_path: Path, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 60)
    run(bench.suite, out=tmp_path / "serial")
    ended = threading.Event()
    killed = []

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:

        def kill() -> None:
            log = tmp_path / "dask" / "cells.jsonl"
            for records in range(5, 60, 10):  # one worker after each ten records; a new one takes its place
                while not ended.is_set() and (not log.exists() or log.read_bytes().count(b"\n") < records):
                    time.sleep(0.01)
                if ended.is_set():
                    return
                worker = list(cluster.workers.values())[len(killed) % 2]
                pid = worker.process.pid if worker.process is not None else None
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            options = ExecutorOptions("dask", scheduler=cluster.scheduler_address)
            run(bench.suite, out=tmp_path / "dask", executor=options)
        finally:
            ended.set()
            killer.join()
    assert len(killed) >= 3
    same(tmp_path / "serial", tmp_path / "dask", 60)
