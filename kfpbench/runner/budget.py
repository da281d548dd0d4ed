"""Limits of a cell: seconds, by a timer that interrupts Python code or by a check between batches; bytes."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType, TracebackType

from kfpbench.errors import BudgetError, CellTimeout, ParameterError

_REPEAT = 1.0  # seconds between two interruptions, when something (a __del__ method) swallowed the first
_LONGEST = 1e8  # seconds; what setitimer surely takes
_SOON = 1e-4  # seconds; 0 would disarm the timer
_GIB = 2**30


class Deadline:
    """A moment after which `check` raises CellTimeout. ``seconds`` None: never."""

    def __init__(self, seconds: float | None, what: str = "the cell") -> None:
        if seconds is not None and not seconds > 0:
            raise ParameterError("a time budget is a positive number of seconds", got=seconds, allowed="> 0")
        self.seconds = seconds
        self.what = what
        self._begin = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit, negative when overdue."""
        return math.inf if self.seconds is None else self.seconds - self.elapsed

    def check(self) -> None:
        """Raise CellTimeout when the time is over. Cheap enough to call between batches."""
        if self.remaining <= 0:
            raise self.error()

    def error(self) -> CellTimeout:
        """The error that names what ran, for how long, and its limit."""
        return CellTimeout(
            f"{self.what} ran longer than its time budget",
            got=f"{self.elapsed:.1f} s",
            allowed=f"at most {self.seconds:g} s",
            remedy="Raise the time budget, or make the cell smaller.",
        )


class time_budget:  # used as a function, like contextlib's
    """``with time_budget(60) as deadline: ...`` raises CellTimeout in the block after 60 seconds.

    In the main thread on Unix a timer (SIGALRM) interrupts the block between two Python instructions; one
    long call into C or onto the GPU ends first. Elsewhere nothing interrupts: call ``deadline.check()``
    between batches, which is right everywhere. Blocks nest: whichever ends first raises. A timer of someone
    else is put back with the time it has left; one that ends before ours stays, and its handler decides.
    After the block there is no timer and no handler of ours. ``None`` or infinity: no limit. Raises
    ParameterError unless the seconds are positive.
    """

    def __init__(self, seconds: float | None, what: str = "the cell") -> None:
        limit = None if seconds is not None and math.isinf(seconds) and seconds > 0 else seconds
        self._limit = limit
        self._what = what
        self._deadline = Deadline(limit, what)
        self._armed = False  # the handler raises only while this is True
        self._installed = False

    def __enter__(self) -> Deadline:
        self._deadline = Deadline(self._limit, self._what)
        if self._limit is None or not _has_timer():
            return self._deadline
        self._previous_left, self._previous_interval = signal.getitimer(signal.ITIMER_REAL)
        if 0 < self._previous_left <= self._limit:
            return self._deadline  # the timer that runs already ends first: it stays as it is
        previous = signal.signal(signal.SIGALRM, self._interrupt)
        self._previous_handler = signal.SIG_DFL if previous is None else previous
        self._installed = True
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, min(self._limit, _LONGEST), _REPEAT)
        return self._deadline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._armed = False
        if not self._installed:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous_handler)
        self._installed = False
        if self._previous_left > 0:
            left = self._previous_left - self._deadline.elapsed
            signal.setitimer(signal.ITIMER_REAL, max(left, _SOON), self._previous_interval)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        # An exception while a budget (this one, or one inside) arms or disarms would leave its timer behind:
        # that is let finish first. Then the budget is disarmed in time, or the alarm comes again.
        if _is_ours(frame):
            signal.setitimer(signal.ITIMER_REAL, _SOON, _REPEAT)
            return
        raise self._deadline.error()


_OWN_CODE = tuple(method.__code__ for method in (time_budget.__enter__, time_budget.__exit__, time_budget._interrupt))


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the frame is in a method that arms or disarms, or in a function that one of them calls."""
    for _ in range(6):  # signal.signal is Python code, a few calls deep; the whole stack may be thousands deep
        if frame is None:
            return False
        if frame.f_code in _OWN_CODE:
            return True
        frame = frame.f_back
    return False


def _has_timer() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def check_memory(predicted_bytes: int, budget_bytes: int | None, what: str = "the cell") -> None:
    """Raise BudgetError when more memory is predicted than the budget allows; None: no budget."""
    if budget_bytes is not None and predicted_bytes > budget_bytes:
        raise BudgetError(
            f"{what} would need more memory than its budget",
            got=f"{predicted_bytes / _GIB:.2f} GiB",
            allowed=f"at most {budget_bytes / _GIB:.2f} GiB",
            remedy="Raise the memory budget, take fewer points or a smaller batch, or a lazy backend.",
        )
