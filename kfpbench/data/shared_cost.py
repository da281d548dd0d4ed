"""Charge what cells share to each of them: a result computed once costs every setup that uses it the same.

Without this, the first cell of a run would pay for the data's moments and the others would look free.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

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

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The result under ``key``, computed where it is not there."""
        if key in self._kept:
            self._kept.move_to_end(key)
            value, seconds = self._kept[key]
            charge(key, seconds)
            _log.debug("reused, %.3f s are charged: %.100r", seconds, key)
            return value
        begin = time.perf_counter()
        value = compute()
        charge(key, 0.0)  # paid for by whoever waits here; asking again is free
        self._kept[key] = value, time.perf_counter() - begin
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return value
