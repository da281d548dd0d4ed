"""Several workers on one storage, one of them killed: as many trials as were asked for, none twice and none lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from kfpbench.study.opened import Opened, existing, open_all
from kfpbench.study.options import StudyOptions
from kfpbench.study.results import rows_of
from kfpbench.study.trials import OUTCOME, RETRY_OF, WORKER, tally
from kfpbench.study.worker import work

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


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _obey_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the tests themselves may run in the background


@pytest.fixture
def commanded(
    planted: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[str], Opened, list[int]]]:
    """`study run --workers 2` of twelve trials, its study, and its workers' processes, both in a trial.

    ``background``: as a shell without job control starts what it does not wait for.
    """
    prepare = _ignore_interrupts if getattr(request, "param", "") == "background" else _obey_interrupts
    overrides = ("samplers.x.sleep=1.5",)
    opened = open_all(planted, StudyOptions(tmp_path / "out", None, None, overrides, True), create=True)
    command = [sys.executable, "-P", "-m", "kfpbench.cli", "study", "run", str(planted), "--out", str(tmp_path / "out")]
    command += ["--allow-plugins", "--workers", "2", *(part for one in overrides for part in ("--set", one))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=prepare)
    workers: list[int] = []
    try:
        wait_for(lambda: len(_running(opened.study)) == 2, [process])
        workers += _running(opened.study)
        yield process, opened, workers
    finally:
        process.kill()
        process.wait()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def _running(study) -> list[int]:
    """The processes of the workers that run a trial."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [int(trial.user_attrs[WORKER].split("-")[-2]) for trial in running if WORKER in trial.user_attrs]


def _is_alive(pid: int) -> bool:
    """Neither gone nor ended and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


has_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see processes by")


def wait_until_ended(workers: list[int]) -> None:
    end = time.monotonic() + 60
    while any(_is_alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker goes on"
        time.sleep(0.1)


@has_proc
@pytest.mark.parametrize("commanded", ["foreground", "background"], indirect=True)
def test_workers_end_with_the_command_that_started_them(commanded) -> None:
    process, opened, workers = commanded
    process.kill()
    process.wait()
    wait_until_ended(workers)
    assert tally(opened.study.get_trials(deepcopy=False)).finished < 12
    assert work_on_again(opened) == 12


@has_proc
def test_a_signal_to_the_command_alone_ends_its_workers(commanded) -> None:
    process, opened, workers = commanded
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; finished trials are kept" in said
    wait_until_ended(workers)
    assert tally(opened.study.get_trials(deepcopy=False)).finished < 12
    assert work_on_again(opened) == 12


def work_on_again(opened: Opened) -> int:
    """The finished trials after one more worker; none counts twice."""
    work(opened.definition, opened.study, opened.claims, opened.folder)
    now = tally(opened.study.get_trials(deepcopy=False))
    assert (now.total, now.running, now.waiting) == (12, 0, 0)
    return now.finished


def test_a_worker_that_dies_is_named_at_once(commanded) -> None:
    process, _, workers = commanded
    os.kill(workers[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    lines = said.splitlines()
    (at,) = (k for k, line in enumerate(lines) if line.startswith("worker "))  # the other one ended well
    ended = "the process was ended by signal 9 (SIGKILL, most likely for want of memory)"
    assert lines[at] == f"worker {workers[0]}: {ended}; a trial that it had is begun anew by the 1 left"
    assert sum(line.startswith("[") for line in lines[at:]) >= 8  # it did not wait for the end
    assert "12 of 12 trials finished: 12 ok" in said
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_trials_on_digits_on_a_journal(tmp_path: Path) -> None:
    check_whole(run_with_a_kill(SUITES / "study_digits.yaml", tmp_path / "out", 40), 40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_trials_on_digits_on_postgresql(tmp_path: Path, postgres: str) -> None:
    suite = SUITES / "study_digits.yaml"
    check_whole(run_with_a_kill(suite, tmp_path / "out", 40, ("study.heartbeat=2",), postgres), 40)
