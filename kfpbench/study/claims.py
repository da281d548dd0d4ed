"""What the workers of one study agree on: one of them at a time takes a trial, and which of them are alive."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from kfpbench.errors import CapabilityError
from kfpbench.study.storage import Place


class Claims(Protocol):
    """Mutual exclusion between workers, and signs of life."""

    def lock(self) -> Any:
        """A context manager: one process at a time is inside. It is free again when its holder dies."""

    def register(self) -> str:
        """Begin to live; returns the worker's name, which says host and process."""

    def is_dead(self, worker: str) -> bool:
        """Whether that worker has surely ended. Where the storage has heartbeats they decide: never."""

    def close(self) -> None:
        """Stop living."""


def claims_of(place: Place, study: str) -> Claims:
    """The claims of a study by where it is stored. Raises CapabilityError for a journal where there are no file
    locks.
    """
    if place.url is not None:
        return DatabaseClaims(place.url, study)
    assert place.journal is not None  # a place is one or the other
    return FileClaims(place.journal.with_name(place.journal.name + ".workers"), study)


def worker_name() -> str:
    """Host, process, and something that no later process of that number has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class FileClaims:
    """Locks on files beside the journal, which the kernel releases when a process ends, however it ends.

    A worker holds the lock of a file of its own for as long as it lives, so that no process number has to be trusted;
    on a network file system that passes locks on this holds for several hosts.
    """

    def __init__(self, folder: Path, study: str) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise CapabilityError(
                "this platform has no file locks, which a journal needs", remedy="Use a PostgreSQL storage."
            ) from error
        self._fcntl = fcntl
        self._folder = folder
        self._claim = folder / f"{hashlib.sha256(study.encode()).hexdigest()[:16]}.claim"
        self._own: tuple[Path, IO[bytes]] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Waits for the lock of the claim file."""
        with self._claim.open("ab") as file:
            self._fcntl.flock(file, self._fcntl.LOCK_EX)
            yield  # closing the file releases it

    def register(self) -> str:
        """Make and lock the worker's file."""
        name = worker_name()
        path = self._folder / name
        file = path.open("ab")
        self._fcntl.flock(file, self._fcntl.LOCK_EX)
        self._own = path, file
        return name

    def is_dead(self, worker: str) -> bool:
        """Whether the worker's file is gone, or its lock is free."""
        path = self._folder / Path(worker).name
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return True
        with file:
            try:
                self._fcntl.flock(file, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Remove the worker's file."""
        if self._own is not None:
            path, file = self._own
            path.unlink(missing_ok=True)
            file.close()
            self._own = None


class DatabaseClaims:
    """An advisory lock of PostgreSQL, held by a connection of its own; heartbeats say which workers live."""

    def __init__(self, url: str, study: str) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        self._engine = create_engine(url, poolclass=NullPool)
        self._take = text("SELECT pg_advisory_lock(:key)")
        digest = hashlib.sha256(f"kfpbench study {study}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Waits for the lock; it is the connection's, and goes with it."""
        with self._engine.connect() as connection:
            connection.execute(self._take, {"key": self._key})
            yield

    def register(self) -> str:
        """Its heartbeats are recorded by Optuna."""
        return worker_name()

    def is_dead(self, worker: str) -> bool:
        """Heartbeats decide."""
        return False

    def close(self) -> None:
        """Nothing to release."""
