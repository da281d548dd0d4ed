"""The folder of kept results: one safetensors file an entry, named by its key; the index is the listing of the folder.

Writers write beside and rename: a reader sees a whole entry or none, and of two writers of one key, whose results are
equal, the later one stays. There are no locks.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kfpbench.cache.entry_file import About, decode, encode, read_about
from kfpbench.cache.key import Key
from kfpbench.cache.state import State
from kfpbench.errors import StoreError

_log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_KIND = re.compile(r"[a-z_]{1,40}")
_ABANDONED = 3600.0  # seconds after which a temporary file has lost its writer
_SPARE = 2**28  # bytes that stay free on the disk: runs need them more than the cache


@dataclass(frozen=True)
class Entry:
    """One file of the cache: ``used`` is when it was last written or read, in seconds of the epoch."""

    path: Path
    kind: str
    name: str
    bytes: int
    used: float

    def about(self) -> About:
        """What its header says. Raises StoreError, OSError."""
        return read_about(self.path)


@dataclass(frozen=True)
class Store:
    """A cache folder, made when the first entry is written.

    ``refresh`` reads nothing and replaces what is there; ``read_only`` keeps nothing. ``worth`` is the least time in
    seconds that a result must have taken to be kept, ``largest`` the most bytes of one entry.
    """

    folder: Path
    refresh: bool = False
    read_only: bool = False
    worth: float = 0.05
    largest: int = 2**31

    def path(self, key: Key) -> Path:
        """Where the entry of a key lies."""
        return self.folder / key.kind / f"{key.name}{_SUFFIX}"

    def read(self, key: Key) -> tuple[About, State] | None:
        """The entry; None without one. Raises StoreError where there is one that is damaged, which is then removed."""
        if self.refresh:
            return None
        path = self.path(key)
        try:
            content = path.read_bytes()
        except OSError:  # none, or one that may not be read
            return None
        try:
            about, state = decode(content)
            if (about.kind, about.name) != (key.kind, key.name):
                raise StoreError("the entry is that of another key")
        except StoreError:
            with suppress(OSError):
                path.unlink()
            raise
        with suppress(OSError):
            os.utime(path)  # used now
        return about, state

    def write(self, about: About, key: Key, state: State) -> str:
        """Keep an entry. Returns "" or why it was not kept: a cache that cannot be written is done without."""
        size = sum(array.nbytes for array in state.arrays.values())
        if size > self.largest:
            return f"{size / 2**30:.1f} GiB are more than an entry may have"
        path = self.path(key)
        temporary = path.with_name(f".{key.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            content = encode(about, state)
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < len(content) + _SPARE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                with temporary.open("xb") as file:
                    file.write(content)  # not forced to the disk: a power cut leaves what the checksum finds
                os.replace(temporary, path)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except (OSError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def entries(self) -> list[Entry]:
        """All entries, those used last first. Cost: one listing."""
        found = [entry for path in self._files() if (entry := _entry(path)) is not None]
        return sorted(found, key=lambda entry: (-entry.used, entry.name))

    def prune(self, most_bytes: int | None = None, older_than: float | None = None) -> list[Entry]:
        """Remove entries that were not used for ``older_than`` seconds, then those used longest ago until the rest has
        at most ``most_bytes``. Returns what was removed; temporary files without a writer go too.
        """
        self._sweep()
        now, total, removed = time.time(), 0, []
        for entry in self.entries():
            old = older_than is not None and now - entry.used > older_than
            if old or (most_bytes is not None and total + entry.bytes > most_bytes):
                # once one is too much, so are all that were used before it
                most_bytes = most_bytes if old else 0
                if self._remove(entry):
                    removed.append(entry)
                    continue
            total += entry.bytes
        return removed

    def clear(self) -> list[Entry]:
        """Remove all entries, and nothing else that may lie in the folder."""
        return self.prune(most_bytes=0, older_than=-1.0)

    def verify(self, *, remove: bool = True) -> list[tuple[Entry, str]]:
        """Read every entry with its checksum; the damaged ones with the reason, removed unless ``remove`` is False."""
        damaged = []
        for entry in self.entries():
            try:
                about, _ = decode(entry.path.read_bytes())
                if (about.kind, about.name) != (entry.kind, entry.name):
                    raise StoreError("the entry is that of another key")
            except FileNotFoundError:  # removed by another process
                continue
            except (StoreError, OSError) as error:
                damaged.append((entry, str(error)))
                if remove and isinstance(error, StoreError):
                    self._remove(entry)
        return damaged

    def _remove(self, entry: Entry) -> bool:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cache: %s cannot be removed: %s", entry.path, error)
            return False
        return True

    def _sweep(self) -> None:
        for path in self._files(temporary=True):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def _files(self, *, temporary: bool = False) -> Iterator[Path]:
        try:
            kinds = sorted(
                part for part in self.folder.iterdir() if _KIND.fullmatch(part.name) and not part.is_symlink()
            )
        except OSError:
            return
        for kind in kinds:
            try:
                names = sorted(os.listdir(kind))
            except OSError:  # a file, or a folder that is not ours to read
                continue
            for name in names:
                if (name.startswith(".") and name.endswith(".tmp")) if temporary else _NAME.fullmatch(name):
                    yield kind / name


def _entry(path: Path) -> Entry | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return Entry(path, path.parent.name, path.name.removesuffix(_SUFFIX), status.st_size, status.st_mtime)
