"""Write a file so that a reader sees the old content or the new one, never a part, also after a power cut."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kfpbench.errors import DiskFullError, StoreError

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp")


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends without an error it takes the place of ``path``.

    Not ``durable``: without waiting for the disk. After an error the temporary file is removed and ``path`` is as it
    was. Two writers do not share a temporary file. A link is replaced and never followed: a stranger's run folder may
    hold one to any file. Raises DiskFullError where there is no room, StoreError where ``path`` is, or leads to, a
    device, a pipe or a folder, whose place a file must not take, and where its folder is not there.
    """
    if (path.exists() and not path.is_file()) or path.absolute().is_relative_to("/dev"):
        raise StoreError("this is no ordinary file, and is not replaced", got=str(path), remedy="Name a file.")
    if not path.parent.is_dir():
        raise StoreError("the file cannot be written there", got=str(path), allowed="a file in a folder that exists")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk_named(path):
            yield temporary
            if durable:
                _make_durable(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there only when something went wrong
    if durable:
        fsync_folder(path.parent)


def _make_durable(temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn the operating system's errors for a full disk, quota or file limit into a DiskFullError that says what to
    do.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"there is no room for the file: {error.strerror}",
            remedy="Free some disk space and run the same command again: finished cells are kept.",
            where=str(path),
        ) from error


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that killed writers left in a folder; returns their number.

    Call it only where no other process writes into the folder.
    """
    found = [path for path in folder.iterdir() if is_leftover(path.name)] if folder.is_dir() else []
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def is_leftover(name: str) -> bool:
    """Whether a file of that name is one that `atomic_path` has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_remakeable(path: Path, content: bytes) -> None:
    """Write ``content`` atomically, but do not wait for the disk: for what can be made again, such as a picture.

    A killed process leaves the old file or the new one; after a power cut it may be empty.
    """
    with atomic_path(path, durable=False) as temporary:
        temporary.write_bytes(content)


def fsync_folder(folder: Path) -> None:
    """Make new names in ``folder`` durable, where the platform can open a folder (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
