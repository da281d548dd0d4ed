"""One process at a time in a run folder; the lock of a dead one does not count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kfpbench.errors import BusyError
from kfpbench.store.run_lock import LOCK_NAME, describe_process, is_alive, run_lock

HOLD = """
import sys
from pathlib import Path
from kfpbench.store.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    try:
        with pytest.raises(BusyError, match=f"process {holder.pid} on host {describe_process()['host']}"):
            run_lock(tmp_path).__enter__()
    finally:
        holder.communicate()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_bytes())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for
    assert (tmp_path / LOCK_NAME).exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_bytes())["pid"] == os.getpid()
    holder.wait()
    holder.communicate()


def _run(folder: Path) -> subprocess.CompletedProcess[str]:
    """`kfpbench run` of one cheap cell in a folder, by the command line."""
    suite = folder.parent / "suite.yaml"
    content = {
        "name": "locked",
        "data": {"name": "gmm2d", "train": 200, "validation": 50, "test": 100},
        "score": "gaussian",
        "process": "ve",
        "samplers": ["gaussian"],
        "metrics": ["energy_distance"],
        "device": "cpu",
        "n_samples": 20,
        "batch_size": 20,
        "latency_repeats": 1,
    }
    suite.write_text(json.dumps(content))
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-P", "-m", "kfpbench.cli", "run", str(suite), "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_the_command_is_refused_where_a_process_lives_and_not_where_one_died(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = _holder(folder)
    try:
        refused = _run(folder)
        assert refused.returncode == 2
        assert f"process {holder.pid} on host {describe_process()['host']}" in refused.stderr
        assert [entry.name for entry in folder.iterdir()] == [LOCK_NAME]  # nothing was run
    finally:
        holder.kill()
        holder.communicate()
    assert (folder / LOCK_NAME).exists()
    done = _run(folder)
    assert done.returncode == 0, done.stderr
    assert len((folder / "cells.jsonl").read_bytes().splitlines()) == 1
    assert not (folder / LOCK_NAME).exists()


def test_one_run_of_this_process_keeps_another_out(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(BusyError):
        run_lock(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"pid": 2**22 + 7}, False),  # beyond the largest process id of Linux
        ({"started": 1}, False),  # the number is used again
        ({"boot": "another"}, False),
        ({"host": "another"}, None),
        ({"namespace": "pid:[1]"}, None),
        ({"pid": "many"}, False),
    ],
)
def test_who_is_alive(change: dict[str, Any], alive: bool | None) -> None:
    assert is_alive({**describe_process(), **change}) is alive


def test_the_lock_of_another_host_is_never_taken_for_stale(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({**describe_process(), "host": "another", "pid": 7}))
    with pytest.raises(BusyError, match="process 7 on host another"):
        run_lock(tmp_path).__enter__()
    assert (tmp_path / LOCK_NAME).exists()


def test_a_file_that_is_no_lock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("mine")
    with pytest.raises(BusyError, match="names no process"):
        run_lock(tmp_path).__enter__()
    assert (tmp_path / LOCK_NAME).read_text() == "mine"


def test_a_refusal_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), run_lock(tmp_path / "new"):
        raise RuntimeError
    assert not (tmp_path / "new").exists()
