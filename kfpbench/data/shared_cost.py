"""Charge what cells share to each of them: a result computed once costs every setup that uses it the same.

Without this, the first cell of a run would pay for the data's moments and the others would look free.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
