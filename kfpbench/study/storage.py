"""Where a study's trials are kept: a journal file, or PostgreSQL for many machines."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from kfpbench.errors import StoreError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FILE_NAME = "study.journal"
GRACE = 3  # heartbeats after which a trial's worker counts as dead
_POSTGRES = re.compile(r"postgres(ql)?(\+psycopg)?://")


@dataclass(frozen=True)
class Place:
    """A journal file, or the URL of a database; one of them is None."""

    journal: Path | None = None
    url: str | None = None

    @classmethod
    def of(cls, text: str | None, folder: Path) -> Place:
        """What ``--storage`` names; by default the journal in the study's folder.

        A URL of PostgreSQL is completed with its driver. Raises StoreError for other URLs.
        """
        if text is None:
            return cls(journal=folder / FILE_NAME)
        if "://" not in text:
            return cls(journal=Path(text))
        if not _POSTGRES.match(text):
            raise StoreError(
                "not a storage for studies",
                got=redacted(text),
                allowed="a path of a journal file, or postgresql://user@host:port/database",
            )
        return cls(url=_POSTGRES.sub("postgresql+psycopg://", text, count=1))

    @property
    def shown(self) -> str:
        """As a record may show it: without a password."""
        return str(self.journal) if self.url is None else redacted(self.url)


def redacted(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def open_storage(place: Place, heartbeat: int, *, create: bool = True) -> BaseStorage:
    """The Optuna storage. ``heartbeat``: seconds between the signs of life of a trial in a database.

    Raises StoreError for a journal that is not there (unless ``create``) or is damaged, a database that cannot be
    reached, and a missing driver.
    """
    return _open_database(place.url, heartbeat) if place.url is not None else _open_journal(place, create)


def _open_journal(place: Place, create: bool) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = place.journal
    assert path is not None  # the caller has chosen
    if not path.exists():
        if not create:
            raise StoreError(
                "there is no study yet",
                got=str(path),
                remedy="Run `kfpbench study run SUITE` first, or name its --out or --storage.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, OSError) as error:
        raise StoreError(
            f"the journal of the study cannot be read: {error}",
            got=str(path),
            remedy="Restore the file, or name another one with --storage.",
        ) from error


def _open_database(url: str, heartbeat: int) -> BaseStorage:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats
            return RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=heartbeat,
                grace_period=GRACE * heartbeat,
            )
    except ImportError as error:
        raise StoreError(
            "the driver of PostgreSQL is not installed", remedy="pip install 'kfpbench[postgres]'"
        ) from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise StoreError(
            f"the database cannot be used: {reason}",
            got=redacted(url),
            remedy="Check that the server runs and that the database exists.",
        ) from error
