"""Use the cache: the store of this process, results looked up before they are computed, and a journal of what was read.

Nothing is kept unless a store is in use, which `kfpbench run`, `time` and `score` see to: a component that is called
from a script writes nothing into anyone's folders.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kfpbench.cache.entry_file import About
from kfpbench.cache.key import Key
from kfpbench.cache.location import cache_folder, largest_size
from kfpbench.cache.state import OWN_PACKAGES, NotKept, rebuild, tell
from kfpbench.cache.store import Store
from kfpbench.errors import StoreError
from kfpbench.store.records import utc_now

Value = TypeVar("Value")

_log = logging.getLogger(__name__)

_BYTES_PER_SECOND = 2e8  # that are surely read and checked


@dataclass
class Journal:
    """What happened to the cache during a block: entries ``read``, with the seconds that they had taken and the
    seconds that reading took; ``written``; ``rebuilt``, because they were damaged; ``refused``, with the reason.
    """

    read: list[dict[str, Any]] = field(default_factory=list)
    written: list[dict[str, Any]] = field(default_factory=list)
    rebuilt: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        """The lists that are not empty."""
        return {name: list(entries) for name, entries in vars(self).items() if entries}


@dataclass(frozen=True)
class Stored(Generic[Value]):
    """Where a result is kept: its key, its class, objects of it that the reader ``given`` has, and the packages (or
    modules) that its classes come from.
    """

    key: Key
    expected: type[Value]
    given: Mapping[str, object] = field(default_factory=dict)
    packages: frozenset[str] = OWN_PACKAGES


@dataclass(frozen=True)
class Kept(Generic[Value]):
    """A result, the seconds of its computing, and, where it was ``read``, those that reading took, when
    it was made, its bytes, and what else was noted then.
    """

    value: Value
    seconds: float
    read: bool
    reading: float
    made: str = ""
    bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


_store: Store | None = None
_journals: ContextVar[tuple[Journal, ...]] = ContextVar("kfpbench_cache_journals", default=())


def current() -> Store | None:
    """The store in use; None where nothing is kept. Another process enters ``using`` with it."""
    return _store


@contextmanager
def using(store: Store | None) -> Iterator[None]:
    """Use a store during the block, in all threads of this process; None keeps nothing."""
    global _store
    before, _store = _store, store
    try:
        yield
    finally:
        _store = before


@contextmanager
def keeping(wanted: bool, *, refresh: bool = False, read_only: bool = False) -> Iterator[None]:
    """Use the cache during the block of a command, and cut it to its largest size behind it.

    ``read_only``: times taken now are no others' (a profiler, a shared device), and a result is kept with its time.
    """
    store = Store(cache_folder(), refresh=refresh, read_only=read_only) if wanted else None
    most = largest_size()  # refused before the work, not after it
    with using(store):
        yield
    if store is not None and (removed := store.prune(most_bytes=most)):
        _log.info("cache: %d entries removed, those used longest ago, for want of room", len(removed))


@contextmanager
def journal() -> Iterator[Journal]:
    """Collect what happens to the cache during the block."""
    kept = Journal()
    token = _journals.set((*_journals.get(), kept))
    try:
        yield kept
    finally:
        _journals.reset(token)


def remember(stored: Stored[Value] | None, compute: Callable[[], Value]) -> Kept[Value]:
    """The result from the cache, or computed and kept."""
    found = look_up(stored) if stored is not None else None
    if found is not None:
        return found
    begin = time.perf_counter()
    value = compute()
    seconds = time.perf_counter() - begin
    if stored is not None:
        keep(stored, value, seconds)
    return Kept(value, seconds, False, 0.0)


def look_up(stored: Stored[Value]) -> Kept[Value] | None:
    """The result from the cache; None where it must be computed. A damaged entry is reported and removed."""
    if _store is None:
        return None
    begin, key = time.perf_counter(), stored.key
    try:
        found = _store.read(key)
        if found is None:
            return None
        about, state = found
        value = rebuild(state, stored.given, stored.packages)
        if not isinstance(value, stored.expected):
            raise NotKept(f"it holds a {type(value).__name__}")
    except (StoreError, NotKept) as error:
        forget(stored, str(error))
        return None
    size = sum(array.nbytes for array in state.arrays.values())
    reading = time.perf_counter() - begin
    told = {"kind": key.kind, "entry": key.name[:16], "seconds": about.seconds, "made": about.made}
    _enter("read", {**told, "reading_seconds": reading})
    _log.info("cache: %s %.16s read in %.3f s; it took %.3f s", key.kind, key.name, reading, about.seconds)
    return Kept(value, about.seconds, True, reading, about.made, size, about.extra)


def keep(stored: Stored[Value], value: Value, seconds: float, extra: dict[str, Any] | None = None) -> None:
    """Keep a result that took ``seconds``, where that is worth a file; a cache that cannot be written is reported."""
    key = stored.key
    if _store is None or _store.read_only or seconds < _store.worth:
        return
    told = {"kind": key.kind, "entry": key.name[:16], "seconds": seconds}
    try:
        state = tell(value, stored.given, stored.packages)
    except NotKept as error:
        _enter("refused", {**told, "reason": f"it cannot be told as arrays: {error}"})
        _log.info("cache: %s is not kept: %s", key.kind, error)
        return
    if sum(array.nbytes for array in state.arrays.values()) > seconds * _BYTES_PER_SECOND:
        return  # reading and checking it would hardly be faster
    about = About(key.kind, key.name, seconds, utc_now(), key.parts, extra or {})
    reason = _store.write(about, key, state)
    if reason:
        _enter("refused", {**told, "reason": reason})
        _log.warning("cache: %s is not kept: %s", key.kind, reason)
        return
    _enter("written", told)
    _log.debug("cache: %s %.16s kept", key.kind, key.name)


def forget(stored: Stored[Any], reason: str) -> None:
    """Report an entry that is damaged or does not hold, and remove it: it is computed again."""
    key = stored.key
    if _store is not None:
        with suppress(OSError):  # a folder that cannot be written: the entry stays, and is reported again
            _store.path(key).unlink(missing_ok=True)
    _enter("rebuilt", {"kind": key.kind, "entry": key.name[:16], "reason": reason})
    _log.warning("cache: the entry %s %.16s is computed again: %s", key.kind, key.name, reason)


def _enter(what: str, entry: dict[str, Any]) -> None:
    for one in _journals.get():
        getattr(one, what).append(entry)
