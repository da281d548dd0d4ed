"""Charge what cells share to each of them: a result computed once costs every setup that uses it the same.

Without this, the first cell of a run would pay for the data's moments and the others would look free. A result that the
cache on the disk has from an earlier run costs what it took then.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

from kfpbench.cache.use import Stored, current, remember

Value = TypeVar("Value")

_log = logging.getLogger(__name__)

_bill: ContextVar[dict[Hashable, float] | None] = ContextVar("kfpbench_shared_cost", default=None)


@contextmanager
def billed() -> Iterator[dict[Hashable, float]]:
    """Collect, by result, the seconds that the block was spared because a shared result was there already."""
    bill: dict[Hashable, float] = {}
    token = _bill.set(bill)
    try:
        yield bill
    finally:
        _bill.reset(token)


def charge(result: Hashable, seconds: float) -> None:
    """Enter what a reused result took when it was computed, once a bill; without a bill nothing happens."""
    bill = _bill.get()
    if bill is not None:
        bill.setdefault(result, seconds)


class ChargedCache(Generic[Value]):
    """Keeps the ``size`` results used last, each with the seconds it took; a reuse charges them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, tuple[Value, float]] = OrderedDict()

    def get(
        self, key: Hashable, compute: Callable[[], Value], stored: Callable[[], Stored[Value]] | None = None
    ) -> Value:
        """The result under ``key``, computed where it is neither here nor, as ``stored`` says, on the disk."""
        if key in self._kept:
            self._kept.move_to_end(key)
            value, seconds = self._kept[key]
            charge(key, seconds)
            _log.debug("reused, %.3f s are charged: %.100r", seconds, key)
            return value
        kept = remember(stored() if stored is not None and current() is not None else None, compute)
        # whoever waits here has paid for the computing, or for the reading alone; asking again is free
        charge(key, max(kept.seconds - kept.reading, 0.0) if kept.read else 0.0)
        self._kept[key] = kept.value, kept.seconds
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return kept.value
