"""The lock of a run folder: one process writes into it at a time, and the lock of a dead one is recognised.

The lock is the file run.lock, which names its owner: host, process id, when that process started, and the start of the
machine. It appears whole, by link(2), which is atomic on NFS too (an exclusive open is used where there are no links).
A lock is stale when its owner was on this host and is gone: no such process, one that started at another time (process
ids are used again), or the machine has started since. Of an owner on another host nothing can be known from here: its
lock is never taken for stale, and the message names the file to delete.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kfpbench.errors import BusyError, StoreError
from kfpbench.store.atomic import fsync_folder, full_disk_named

LOCK_NAME = "run.lock"
_ATTEMPTS = 5  # a stale lock may be taken by someone else between two looks at it
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made where it is missing.

    Raises BusyError, with the owner's process id and host, where another process (or another run of this one) holds it.
    After the block the lock is gone, and so is a folder that was made for it and has stayed empty.
    """
    made = not folder.exists()
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine = _acquire(path)
    except OSError as error:
        raise StoreError(f"the run folder cannot be written to: {error.strerror}", where=str(folder)) from error
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if path.read_bytes() == mine:  # not a lock of someone who was told to delete ours
                path.unlink()
        if made:
            with suppress(OSError):  # it holds a run, as it should
                folder.rmdir()


def describe_process() -> dict[str, Any]:
    """What tells this process from every other one: host, process id and its namespace, start of process and machine.

    What a platform does not tell is None.
    """
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "namespace": _namespace(),
        "started": _start_of(os.getpid()),
        "boot": _boot(),
    }


def is_alive(owner: dict[str, Any]) -> bool | None:
    """Whether the process that `describe_process` described still runs; None where that cannot be known from here."""
    here = describe_process()
    if owner.get("host") != here["host"]:
        return None
    if owner.get("boot") != here["boot"]:
        return False
    if owner.get("namespace") != here["namespace"]:
        return None  # another container: its process ids mean something else
    pid = owner.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        return False
    if os.name != "posix":
        return None if pid != os.getpid() else True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is there, and someone else's
    return _start_of(pid) == owner.get("started")


def _acquire(path: Path) -> bytes:
    """Make the lock file; returns its content."""
    content = (json.dumps(describe_process()) + "\n").encode("ascii")
    for _ in range(_ATTEMPTS):
        if _make(path, content):
            return content
        with _taking_over(path.parent):
            held = _read(path)
            if held is None:
                continue
            owner = _parsed(held)
            if owner is None or is_alive(owner) is not False:
                raise _busy(path, owner)
            _log.warning("%s: the lock of process %s, which is gone, is taken over", path, owner.get("pid"))
            path.unlink(missing_ok=True)
    raise BusyError("other processes keep taking the run folder", where=str(path))


def _make(path: Path, content: bytes) -> bool:
    """Make the lock file with its content, all at once; False where there is one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_named(path):
        try:
            temporary.write_bytes(content)
            try:
                os.link(temporary, path)
            except FileExistsError:
                # over NFS the answer to a link that was made may be lost, and the repeated request finds it there
                return temporary.stat().st_nlink == 2
            except (OSError, AttributeError):  # a file system without links
                return _make_exclusively(path, content)
        finally:
            temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def _make_exclusively(path: Path, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    return True


@contextmanager
def _taking_over(folder: Path) -> Iterator[None]:
    """One process of this host at a time: two that find the same stale lock must not remove each other's new one.

    Only processes of the dead owner's host judge its lock stale, so a lock of the host's kernel is enough.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(held: bytes) -> dict[str, Any] | None:
    """The owner that a lock names; None for a file that is not a lock, which is left alone."""
    try:
        owner = json.loads(held)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) else None


def _busy(path: Path, owner: dict[str, Any] | None) -> BusyError:
    if owner is None:
        return BusyError(
            "the run folder has a lock that names no process",
            remedy="Delete that file if nothing is running there.",
            where=str(path),
        )
    return BusyError(
        "another process is running in this folder",
        got=f"process {owner.get('pid')} on host {owner.get('host')}",
        remedy="Wait for it, stop it, or name another folder with --out; delete the lock file only if that process "
        "is surely gone.",
        where=str(path),
    )


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did (Linux); None elsewhere, and of one that has ended
    but has not been waited for.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # of proc(5), from the third on: the name before them may hold spaces
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str | None:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
