"""Several workers on one storage, one of them killed: as many trials as were asked for, none twice and none lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from kfpbench.study.command import existing, open_all
from kfpbench.study.options import StudyOptions
from kfpbench.study.results import rows_of
from kfpbench.study.trials import OUTCOME, RETRY_OF, WORKER, tally

SUITES = Path(__file__).parents[2] / "suites"


def start(suite: Path, out: Path, overrides: tuple[str, ...], storage: str | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "kfpbench.cli", "study", "worker", str(suite), "--out", str(out)]
    command += ["--allow-plugins", *(part for text in overrides for part in ("--set", text))]
    command += [] if storage is None else ["--storage", storage]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def run_with_a_kill(suite: Path, out: Path, trials: int, overrides: tuple[str, ...] = (), storage: str | None = None):
    """Three workers, of which one is killed while it runs a trial and about a third are finished."""
    overrides = (*overrides, f"study.budget.trials={trials}")
    options = StudyOptions(out, storage, None, overrides, True)
    study = open_all(suite, options, create=True).study
    workers = [start(suite, out, overrides, storage) for _ in range(3)]
    try:
        victim = workers[0]
        wait_for(lambda: _finished(study) >= trials // 3 and _stopped_in_a_trial(study, victim.pid), workers)
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait(timeout=10) == -signal.SIGKILL
        assert [worker.wait(timeout=500) for worker in workers[1:]] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return existing(suite, options)


def _finished(study) -> int:
    return tally(study.get_trials(deepcopy=False)).finished


def _stopped_in_a_trial(study, pid: int) -> bool:
    """Stop the worker while it runs a trial, and look again: what is read of one that runs on may be over by then."""
    if not _in_a_trial(study, pid):
        return False
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)  # what it had sent to the storage arrives
    if _in_a_trial(study, pid):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def _in_a_trial(study, pid: int) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(f"-{pid}-" in trial.user_attrs.get(WORKER, "") and OUTCOME not in trial.user_attrs for trial in running)


def wait_for(condition: Callable[[], bool], workers: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < end, "the workers do not get on"
        assert all(worker.poll() is None for worker in workers), "a worker ended by itself"
        time.sleep(0.02)


def check_whole(opened, trials: int) -> None:
    """Exactly as many finished trials as were asked for; the killed one is there anew."""
    stored = opened.study.get_trials(deepcopy=False)
    rows = rows_of(opened.study, opened.definition)
    now = tally(stored)
    assert (now.total, now.finished, now.running, now.waiting) == (trials, trials, 0, 0)
    assert len(rows) == trials
    assert {row.what for row in rows} <= {"ok", "stopped"}
    again = [trial for trial in stored if RETRY_OF in trial.user_attrs]
    assert len(again) == 1
    assert len(stored) == trials + 1
    lost = stored[again[0].user_attrs[RETRY_OF]]
    assert lost.params == again[0].params
    assert lost.number not in {row.number for row in rows}
    configurations = [json.dumps(row.params, sort_keys=True) for row in rows]
    assert len(set(configurations)) == trials
    lines = (opened.folder / "cells.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["cell"] for record in records}) == len(records)
    assert {record["details"]["trial"] for record in records} >= {row.number for row in rows if row.what == "ok"} - {
        again[0].number  # its cell may have been recorded by the worker that died
    }


def test_a_killed_worker_on_a_journal(planted: Path, tmp_path: Path) -> None:
    opened = run_with_a_kill(planted, tmp_path / "out", 12, ("samplers.x.sleep=0.7",))
    check_whole(opened, 12)


def test_a_killed_worker_on_postgresql(planted: Path, tmp_path: Path, postgres: str) -> None:
    overrides = ("samplers.x.sleep=0.7", "study.heartbeat=1")
    opened = run_with_a_kill(planted, tmp_path / "out", 12, overrides, postgres)
    check_whole(opened, 12)
    assert not (tmp_path / "out" / "study.journal").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_trials_on_digits_on_a_journal(tmp_path: Path) -> None:
    check_whole(run_with_a_kill(SUITES / "study_digits.yaml", tmp_path / "out", 40), 40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_trials_on_digits_on_postgresql(tmp_path: Path, postgres: str) -> None:
    suite = SUITES / "study_digits.yaml"
    check_whole(run_with_a_kill(suite, tmp_path / "out", 40, ("study.heartbeat=2",), postgres), 40)
