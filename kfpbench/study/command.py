"""Run and join a study: what `kfpbench study run` and `worker` do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kfpbench.executors.isolated_cell import how_it_ended
from kfpbench.store.records import utc_now
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.folder import stage_path
from kfpbench.study.opened import Opened, open_all
from kfpbench.study.options import StudyOptions
from kfpbench.study.space import Space
from kfpbench.study.trials import Tally, reason_of, tally, what_of
from kfpbench.study.worker import SIBLINGS, Notice, work
from kfpbench.suite.cell_name import compact

_POLL = 0.2  # seconds between two looks at the workers
_GRACE = 5.0  # seconds in which a worker that was interrupted has ended
STORAGE_VARIABLE = "KFPBENCH_STUDY_STORAGE"  # a URL may hold a password, which a command line shows to everybody


def run_study(file: Path, options: StudyOptions, workers: int) -> int:
    """Run a study with that many workers to its end, then write its results and report. Returns the exit code.

    0: it is complete, and some trial has a result; 1: not so; 130: interrupted.
    """
    console = Console()
    if workers == 1:
        code = work_on(file, options)
    else:
        open_all(file, options, create=True)  # what is wrong is said once
        code = _work_in_processes(file, options, workers, console)
    opened = open_all(file, options, create=False)
    _finish(opened)
    now = tally(opened.study.get_trials(deepcopy=False))
    _say(console, _tally_text(now, opened.definition.trials))
    if code == 130:
        _say(console, "interrupted; finished trials are kept, run the same command again to go on")
        return code
    from kfpbench.study.report import write_study_report

    _say(console, f"report: {write_study_report(opened)}")
    results = any(what_of(trial) == "ok" for trial in now.counted)
    return 0 if results and now.waiting + now.running == 0 else 1


def work_on(file: Path, options: StudyOptions) -> int:
    """Join a study, or begin it, with one worker: this process. Returns 0, or 130 after an interrupt."""
    console = Console()
    if SIBLINGS in os.environ:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
        threading.Thread(target=_end_with_the_command, daemon=True).start()
    opened = open_all(file, options, create=True)
    space = opened.definition.space

    def say(notice: Notice) -> None:
        _say(console, _line(notice, space))

    try:
        work(opened.definition, opened.study, opened.claims, opened.folder, say=say)
    except KeyboardInterrupt:
        return 130
    return 0


def _work_in_processes(file: Path, options: StudyOptions, workers: int, console: Console) -> int:
    """Start workers as processes of their own and wait for them; one that fails is named, its trial is the others'.

    They hold the other end of a pipe: when this process ends, however it ends, they end too.
    """
    environment = dict(os.environ)
    # that many processes with all threads each would slow each other down
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment.setdefault("OMP_NUM_THREADS", threads)
    environment[SIBLINGS] = str(workers)
    if options.storage is not None:
        environment[STORAGE_VARIABLE] = options.storage
    command = [sys.executable, "-P", "-m", "kfpbench.cli", "study", "worker", str(file)]
    command += [] if options.out is None else ["--out", str(options.out)]
    command += [] if options.name is None else ["--name", options.name]
    command += [part for text in options.overrides for part in ("--set", text)]
    command += ["--allow-plugins"] if options.allow_plugins else []
    running = [subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) for _ in range(workers)]
    left = list(running)
    try:
        while left:
            ended = [process for process in left if process.poll() is not None]
            left = [process for process in left if process not in ended]
            for process in ended:
                if process.returncode not in (0, 130):
                    others = f"; a trial that it had is begun anew by the {len(left)} left" if left else ""
                    _say(console, f"worker {process.pid}: {how_it_ended(process.returncode)}{others}")
            time.sleep(_POLL if left else 0.0)
    except KeyboardInterrupt:
        _interrupt(running)
        return 130
    codes = [process.returncode for process in running]
    return 130 if 130 in codes else max(0, *codes)


def _interrupt(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the workers, which a terminal's Ctrl-C has reached too; whom the signal did not reach, the pipe does."""
    end = time.monotonic() + _GRACE
    for process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _end_with_the_command() -> None:
    """Interrupt this process when its input ends: the command that started it is then gone, or wants it to end."""
    while os.read(0, 4096):  # unbuffered: a thread that holds the buffer of `sys.stdin` breaks the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _finish(opened: Opened) -> None:
    """Tables from the records, and the end in the manifest."""
    for path in [opened.folder, *(stage_path(opened.folder, stage) for stage in opened.definition.stages)]:
        if RunFolder.is_run(path):
            folder = RunFolder.open(path)
            folder.write_manifest({**folder.read_manifest(), "finished": utc_now()})
            folder.write_results()


def _line(notice: Notice, space: Space) -> str:
    """One finished trial: how many there are now, what became of it, its numbers and its configuration."""
    trial = notice.trial
    values = space.shown(space.values_of(trial.params))
    wanted = "" if notice.wanted is None else f"/{notice.wanted}"
    numbers = ", ".join(f"{value:.4g}" for value in trial.values or ())
    seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
    parts = [f"[{notice.tally.finished}{wanted}] {what_of(trial)} {seconds:.1f} s  trial {trial.number}"]
    parts += [numbers] if numbers else []
    parts += [reason_of(trial)] if reason_of(trial) else []
    parts += [", ".join(f"{path.rpartition('.')[2]}={compact(value)}" for path, value in values.items())]
    return "".join(one if one.isprintable() else "?" for one in "  ".join(parts))


def _tally_text(now: Tally, wanted: int | None) -> str:
    counts: dict[str, int] = {}
    for trial in now.counted:
        counts[what_of(trial)] = counts.get(what_of(trial), 0) + 1
    of = "" if wanted is None else f" of {wanted}"
    return f"{now.finished}{of} trials finished: " + ", ".join(f"{count} {what}" for what, count in counts.items())


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
