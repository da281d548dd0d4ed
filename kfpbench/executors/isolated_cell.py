"""A process that computes cells, seen from the run that it works for: its limits are enforced from here.

Whatever happens in that process (a segmentation fault, a hang in a C library, no memory left) the run goes on, with a
record that says why.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from kfpbench.errors import CapabilityError, DiskFullError, KfpbenchError
from kfpbench.executors.frames import read_frame, write_frame
from kfpbench.executors.setting import Setting
from kfpbench.runner.cell_result import CellResult
from kfpbench.runner.run_cell import lost_record
from kfpbench.store.records import CellRecord, Status, utc_now
from kfpbench.suite.cell import Cell

_GIB = 2**30
_POLL = 0.05  # seconds between two looks at the process's memory and time
_GRACE = 2.0  # seconds after its time budget in which a cell may still end by itself, which keeps its phases
_TAIL = 40  # last lines of a process's standard error that are kept
_log = logging.getLogger(__name__)


class ProcessDied(KfpbenchError):
    """The process of a cell ended before it had a record."""


class CellProcess:
    """Computes one cell at a time in a process, which is started when it is first needed and again when it is gone."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._process: subprocess.Popen[bytes] | None = None
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._closed = False

    def run(self, cell: Cell, began: Callable[[], None]) -> CellResult:
        """The result of a cell, which is given a second process where its first one dies, and then no other.

        A cell that goes beyond its budget of time or memory is ended and not tried again. Raises DiskFullError,
        CapabilityError where the process cannot be set up, and ProcessDied after `close`.
        """
        started, begin = utc_now(), time.perf_counter()
        deaths: list[str] = []
        while len(deaths) < 2:
            try:
                result = self._attempt(cell, began)
            except ProcessDied as death:
                if self._closed:
                    raise
                deaths.append(death.what)
                _log.warning("cell %s: %s", cell.id, death.what)
                continue
            finally:
                if self._setting.isolate:
                    self._end()
            return _with_note(result, deaths)
        reason = f"its process died twice: {deaths[-1]}"
        return CellResult(
            lost_record(cell, "failed", reason, started, time.perf_counter() - begin, "\n".join(self._tail))
        )

    def close(self) -> None:
        """End the process; a cell that runs is lost."""
        self._closed = True
        self._end()

    def _attempt(self, cell: Cell, began: Callable[[], None]) -> CellResult:
        process = self._running()
        assert process.stdin is not None
        with suppress(OSError):  # it has died already: its inbox says so
            write_frame(process.stdin, asdict(cell))
        watch: _Watch | None = None
        while True:
            try:
                message = self._inbox.get(timeout=_POLL)
            except queue.Empty:
                if watch is not None and (broken := watch.broken()):
                    self._end()
                    return CellResult(watch.record(broken, "\n".join(self._tail)))
                continue
            if message is None:
                code = process.wait()
                self._process = None
                raise ProcessDied(how_it_ended(code))
            content, blobs = message
            if "refused" in content:
                raise CapabilityError(f"a worker process cannot be set up: {content['refused']}")
            if "full" in content:
                raise DiskFullError(content["full"])
            if "began" in content:
                watch = _Watch(cell, process.pid)
                began()
            else:
                return CellResult(CellRecord.from_json(content["record"]), blobs)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise ProcessDied("the run has ended")
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._tail.clear()
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inbox = inbox
        # its modules are found where this process finds them; -P: nothing in the present folder is taken for one
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from kfpbench.executors.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the run, which ends its processes; and with it their children end
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        threading.Thread(target=_receive, args=(process.stdout, inbox), daemon=True).start()
        threading.Thread(target=_keep, args=(process.stderr, self._tail), daemon=True).start()
        self._process = process
        with suppress(OSError):
            write_frame(process.stdin, self._setting.as_plain())
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()


class _Watch:
    """The limits of a cell that has begun."""

    def __init__(self, cell: Cell, pid: int) -> None:
        budget = cell.spec["budget"]
        self._cell = cell
        self._pid = pid
        self._started, self._begin = utc_now(), time.perf_counter()
        self._seconds: float | None = budget["seconds"]
        self._gib: float | None = budget["memory_gib"]
        self._held = _resident(pid) or 0

    def broken(self) -> tuple[Status, str] | None:
        """The status and the reason where a limit is broken."""
        elapsed = time.perf_counter() - self._begin
        if self._seconds is not None and elapsed > self._seconds + _GRACE:
            return "timeout", (
                f"still running after {elapsed:.1f} s, {_GRACE:g} s beyond its time budget of {self._seconds:g} s, "
                "without answering; its process was ended. Raise the time budget, or make the cell smaller."
            )
        taken = (_resident(self._pid) or 0) - self._held
        if self._gib is not None and taken > self._gib * _GIB:
            return "failed", (
                f"out of memory: it held {taken / _GIB:.2f} GiB, more than its budget of {self._gib:g} GiB; its "
                "process was ended. Raise the memory budget, take fewer points or a smaller batch, or a lazy backend."
            )
        return None

    def record(self, broken: tuple[Status, str], trace: str) -> CellRecord:
        """What is recorded of the cell."""
        return lost_record(self._cell, *broken, self._started, time.perf_counter() - self._begin, trace)


def _receive(stream: IO[bytes], inbox: queue.SimpleQueue[Any]) -> None:
    """Put every message into the inbox, and None at the end."""
    with suppress(OSError, ValueError, KfpbenchError):
        while (message := read_frame(stream)) is not None:
            inbox.put(message)
    inbox.put(None)


def _keep(stream: IO[bytes], tail: deque[str]) -> None:
    """Keep the last lines of what the process prints, and log them."""
    with suppress(OSError, ValueError):
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            tail.append(text)
            _log.debug("worker: %s", text)


def how_it_ended(code: int) -> str:
    """A process's return code in words: 'the process was ended by signal 9 (SIGKILL, ...)'."""
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = {
        "SIGKILL": ", most likely for want of memory",
        "SIGSEGV": ", a segmentation fault",
        "SIGABRT": ", an abort of a library",
    }.get(name, "")
    return f"the process was ended by signal {-code} ({name}{hint})"


def _with_note(result: CellResult, deaths: list[str]) -> CellResult:
    """The result, which says so where it took a second process."""
    if not deaths:
        return result
    from dataclasses import replace

    note = f"run a second time: {deaths[0]}"
    details = {**result.record.details, "notes": [*result.record.details.get("notes", []), note]}
    return CellResult(replace(result.record, details=details), result.files)


def _resident(pid: int) -> int | None:
    """Bytes of a process that are in memory; None elsewhere than on Linux, and when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
