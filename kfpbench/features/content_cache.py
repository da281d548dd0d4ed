"""A small cache keyed by the content of arrays: cells of one suite share fits and held-out distances."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from kfpbench.cache.use import current, remember

if TYPE_CHECKING:
    from kfpbench.cache.use import Stored

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


class ContentCache(Generic[Value]):
    """Keeps the ``size`` most recently used values of a function of hashable keys; safe between threads.

    ``most_bytes`` bounds the sum of the values' ``nbytes`` too; a value that is larger alone is not kept.
    Two threads that miss the same key both compute it (the values are equal), so that no lock is held
    meanwhile.
    """

    def __init__(self, size: int, most_bytes: int | None = None) -> None:
        self._size = size
        self._most_bytes = most_bytes
        self._bytes = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def get(
        self, key: Hashable, compute: Callable[[], Value], stored: Callable[[], Stored[Value]] | None = None
    ) -> Value:
        """The value under ``key``, computed at the first call and after it was pushed out.

        ``stored`` says where on the disk it is looked for before, and kept; it is called when that is done.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                _log.debug("reused: %.100r", key)
                return self._values[key]
        value = remember(stored() if stored is not None and current() is not None else None, compute).value
        weight = self._weight(value)
        if self._most_bytes is not None and weight > self._most_bytes:
            return value
        with self._lock:
            if key in self._values:
                self._bytes -= self._weight(self._values.pop(key))
            self._values[key] = value
            self._bytes += weight
            while len(self._values) > self._size or self._bytes > (self._most_bytes or self._bytes):
                self._bytes -= self._weight(self._values.popitem(last=False)[1])
        return value

    def clear(self) -> None:
        """Forget everything (tests, and timings of cold caches)."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _weight(self, value: Value) -> int:
        return 0 if self._most_bytes is None else int(value.nbytes)  # type: ignore[attr-defined]  # arrays alone

    def __len__(self) -> int:
        return len(self._values)
