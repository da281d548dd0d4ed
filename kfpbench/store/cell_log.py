"""cells.jsonl: one line a finished cell, appended and made durable at once, so that a killed run loses no
cell. A run that is put by may have it as cells.jsonl.gz, which is read alone.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kfpbench.errors import DiskFullError, StoreError
from kfpbench.store.atomic import fsync_folder, full_disk_named
from kfpbench.store.records import CellRecord

_TAIL_BLOCK = 1 << 16
_LARGEST = 1 << 30


@dataclass(frozen=True)
class LogContent:
    """All whole lines of a log in their order, and what was dropped at its end.

    ``dropped_bytes`` counts the bytes after the last line end: a line that a killed run left half written.
    ``digest`` is the sha256 of the whole lines.
    """

    records: tuple[CellRecord, ...]
    dropped_bytes: int
    digest: str

    @property
    def note(self) -> str:
        """What was dropped, in words; empty when nothing was."""
        if not self.dropped_bytes:
            return ""
        return f"dropped a half-written last line of {self.dropped_bytes} bytes; its cell counts as not run"


class CellLog:
    """The log at ``path``. Several processes may append: a lock keeps lines whole where fcntl exists.

    Where there is none, it is read from ``packed``, the same file compressed by gzip, to which nothing is appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packed = path.with_name(path.name + ".gz")
        self._last: tuple[str, LogContent] | None = None  # the latest reading, by the digest of all bytes

    def append(self, record: CellRecord) -> None:
        """Add one line by a single write, then flush it to the disk (fsync).

        A half-written last line is cut off first. Raises DiskFullError when the disk takes only a part of the
        line, or none; that part is cut off again; StoreError where the log is there in its compressed form alone.
        """
        self.require_writable()
        with full_disk_named(self.path):
            self._append(record)

    def exists(self) -> bool:
        """Whether there is a log, compressed or not."""
        return self.path.exists() or self.packed.exists()

    def require_writable(self) -> None:
        """Raise StoreError where the log is there in its compressed form alone."""
        if self.packed.exists() and not self.path.exists():
            raise StoreError(
                "the log of cells is compressed, and is only read",
                remedy=f"Unpack it (gunzip {self.packed.name}), or name another folder.",
                where=str(self.packed),
            )

    def _append(self, record: CellRecord) -> None:
        line = record.to_json().encode("ascii") + b"\n"
        is_new = not self.path.exists()
        descriptor = self._open()
        try:
            with _locked(descriptor):
                end = _end_of_whole_lines(descriptor)
                if end < os.fstat(descriptor).st_size:
                    os.ftruncate(descriptor, end)
                written = 0
                try:
                    written = os.write(descriptor, line)
                finally:
                    if written < len(line):
                        os.ftruncate(descriptor, end)
                if written < len(line):
                    raise DiskFullError(
                        f"only {written} of {len(line)} bytes of a cell record could be written",
                        remedy="Free disk space and run the suite again: finished cells are kept.",
                        where=str(self.path),
                    )
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            fsync_folder(self.path.parent)

    def _open(self) -> int:
        """A descriptor to append by. Raises StoreError for a link: a stranger's run folder may hold one to any file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.open(self.path, flags, 0o644)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise StoreError(
                "the log of cells is a link, and what it leads to is not written",
                remedy="Put the file itself into the run folder, or name another folder.",
                where=str(self.path),
            ) from error

    def read(self) -> LogContent:
        """Read every record; no file reads as no record. Cost: one pass over the file, for one state of it once.

        Raises StoreError with the line number for a whole line that is not a record, and for a compressed log that
        cannot be unpacked.
        """
        content = self._bytes()
        state = hashlib.sha256(content).hexdigest()
        if self._last is not None and self._last[0] == state:
            return self._last[1]
        end = content.rfind(b"\n") + 1
        records = []
        for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
            try:
                records.append(CellRecord.from_json(line))
            except StoreError as error:
                raise StoreError(
                    f"line {number} is not a cell record ({error})",
                    remedy=f"Restore the file, or delete line {number}: its cell will run again.",
                    where=f"{self.path}:{number}",
                ) from error
        found = LogContent(tuple(records), len(content) - end, hashlib.sha256(content[:end]).hexdigest())
        self._last = state, found
        return found

    def digest(self) -> str:
        """The sha256 of the whole lines, without parsing them."""
        content = self._bytes()
        return hashlib.sha256(content[: content.rfind(b"\n") + 1]).hexdigest()

    def _bytes(self) -> bytes:
        if self.path.exists():
            return self.path.read_bytes()
        return self._unpacked() if self.packed.exists() else b""

    def _unpacked(self) -> bytes:
        """The content of the compressed log, of at most 1 GiB: a stranger's file may unpack to anything."""
        try:
            with gzip.open(self.packed) as file:
                content = file.read(_LARGEST + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise StoreError(f"the log of cells cannot be unpacked: {error}", where=str(self.packed)) from error
        if len(content) > _LARGEST:
            raise StoreError("the log of cells unpacks to more than 1 GiB", where=str(self.packed))
        return content


def latest(records: Iterable[CellRecord]) -> list[CellRecord]:
    """The last record of each cell, in the order of the plan (``index``): a retried cell replaces its
    failure.
    """
    last = {record.cell: record for record in records}
    return sorted(last.values(), key=lambda record: record.index)


def _end_of_whole_lines(descriptor: int) -> int:
    """Offset after the last line end; looks backwards in blocks, so a long log costs no more than a short
    one.
    """
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _TAIL_BLOCK)
        # Not os.pread: it is missing on Windows. O_APPEND writes at the end whatever the position is.
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold the exclusive advisory lock of the open file; closing the file releases it. No lock on Windows."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
