"""Time the phases of a cell, latency and throughput on a synchronised device, with intervals that allow for drift.

Times are not Gaussian: they have a floor and a long tail. And a machine drifts (clock frequency, heat, other
programs): times taken together agree with one another better than with those taken a second later. A repeated time is
reported by its median. Its interval is the wider of two: order statistics of the repeats, and Student's t over three
consecutive blocks of them, which sees the drift between blocks. It is honest for what changes within the span of the
repeats, so spread them out.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from kfpbench.errors import ParameterError

_log = logging.getLogger(__name__)

Synchronise = Callable[[], None]

_BLOCKS = 3
_LEAST_FOR_ORDER = 6  # with fewer values not even minimum to maximum covers the median with 95 %
_WARM_UP_CALLS = 5
_COMPILATION = 2.0  # a call this many times faster than the one before, and by a millisecond, was warmed up by it
_MILLISECOND = 1e-3


def synchroniser(device: Any) -> Synchronise:
    """A function that waits until the device has done all its work; it does nothing for the CPU.

    ``device`` is a torch.device or its text, such as "cuda:0".
    """
    kind = str(device).partition(":")[0]
    if kind not in ("cuda", "mps"):
        return _nothing
    import torch

    if kind == "mps":
        return torch.mps.synchronize
    return lambda: torch.cuda.synchronize(device)


def _nothing() -> None:
    """Work on the CPU is done when its call returns."""


class Stopwatch:
    """Seconds by phase: ``with watch.phase("setup"): ...``. A phase met again adds up; a failed one counts
    too.

    ``seconds`` maps phases to seconds in the order in which they began. Phases do not nest, so their sum is
    at most the time that has passed.
    """

    def __init__(self, device: Any = "cpu") -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._synchronise = synchroniser(device)
        self._running: str | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, between two synchronisations of the device. Raises ParameterError inside another
        phase.
        """
        if self._running is not None:
            raise ParameterError(f"phase {name!r} begins inside phase {self._running!r}", remedy="End that one first.")
        _log.debug("phase %s begins", name)
        self._synchronise()  # work that was queued before does not belong to this phase
        self._running = name
        self.seconds.setdefault(name, 0.0)
        begin = time.perf_counter()
        try:
            yield
            self._synchronise()
        finally:
            self.seconds[name] += time.perf_counter() - begin
            self._running = None


@dataclass(frozen=True)
class SeriesInterval:
    """The centre of values taken one after the other, with an interval; both ends NaN where there is none.

    ``coverage`` is the least probability, for independent values, that the interval holds the centre of their law;
    ``method`` names the interval, ``note`` says what a reader must know.
    """

    centre: float
    low: float
    high: float
    coverage: float
    n: int
    method: str
    note: str = ""


@dataclass(frozen=True)
class TimingSummary:
    """Repeated times in seconds: the median, its interval, the minimum and the number n of repeats.

    ``coverage``, ``method`` and ``note`` are those of the interval, whose ends are NaN for a single time. ``values``
    are the times in the order in which they were taken.
    """

    median: float
    ci_low: float
    ci_high: float
    minimum: float
    n: int
    coverage: float
    note: str = ""
    values: tuple[float, ...] = ()
    method: str = ""


def median_interval(n: int, confidence: float = 0.95) -> tuple[int, int, float]:
    """Ranks (from 0) of the order statistics around the median of n values, and the interval's exact
    coverage.

    For ranks l and n - 1 - l it is P(l < B < n - l), B ~ Binomial(n, 1/2) being the number of values below
    the true median, for any continuous law. The narrowest symmetric interval with at least ``confidence``;
    [min, max] when none has. Cost O(n).
    """
    if n < 1:
        raise ParameterError("no interval of no values", got=n, allowed="n >= 1")
    tail = 1  # number of the 2**n equally likely outcomes with B <= rank
    term = 1
    rank = 0
    # The next rank costs C(n, rank + 1) outcomes on either side; integers keep this exact for any n.
    while 2 * (rank + 1) < n:
        term = term * (n - rank) // (rank + 1)
        if _coverage(n, tail + term) < confidence:
            break
        tail += term
        rank += 1
    return rank, n - 1 - rank, max(0.0, _coverage(n, tail))


def _coverage(n: int, tail: int) -> float:
    return (2**n - 2 * tail) / 2**n


def series_interval(values: Sequence[float], confidence: float = 0.95) -> SeriesInterval:
    """Median of values in the order in which they were taken, and an interval that allows for their drift.

    With n >= 6 values it reaches from the lower of the low ends to the higher of the high ends of (a) the order
    statistics around the median (``median_interval``; exact for independent values of any law) and (b)
    m -+ t(2) s / sqrt(3) over the medians of three consecutive blocks, which are nearly independent although the
    values are not (batch means: Schmeiser, Operations Research 30, 1982; few long blocks are what drift needs). With
    2 to 5 values: Student's t over them. With one: none. Cost O(n log n). Raises ParameterError without values.
    """
    n = len(values)
    if n < 1:
        raise ParameterError("no interval of no values", got=n, allowed="n >= 1")
    centre = median(values)
    if n == 1:
        return SeriesInterval(centre, math.nan, math.nan, 0.0, n, "none", "one value has no interval")
    if n < _LEAST_FOR_ORDER:
        low, high = _student(values, confidence)
        method = f"Student's t over {n} values"
        return SeriesInterval(centre, min(low, centre), max(high, centre), confidence, n, method)
    first, last, coverage = median_interval(n, confidence)
    ordered = sorted(values)
    edges = [n * block // _BLOCKS for block in range(_BLOCKS + 1)]
    low, high = _student([median(values[a:b]) for a, b in itertools.pairwise(edges)], confidence)
    method = f"order statistics of {n} values, and Student's t over the medians of {_BLOCKS} consecutive blocks"
    return SeriesInterval(centre, min(low, ordered[first]), max(high, ordered[last]), coverage, n, method)


def _student(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Mean -+ t(n - 1) s / sqrt(n)."""
    from scipy.special import stdtrit

    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(variance / n)
    return mean - half, mean + half


def summarise_times(values: Sequence[float], confidence: float = 0.95) -> TimingSummary:
    """Median, interval (``series_interval`` of their logarithms) and minimum of times in the order of their taking.

    Raises ParameterError without values or with a negative one. A clock too coarse to see a call gives times of zero;
    then the interval is taken of the times themselves.
    """
    if values and min(values) < 0:
        raise ParameterError("a time cannot be negative", got=min(values), allowed=">= 0")
    logarithmic = bool(values) and min(values) > 0
    made = series_interval([math.log(value) for value in values] if logarithmic else values, confidence)
    low, high = (math.exp(made.low), math.exp(made.high)) if logarithmic else (max(made.low, 0.0), made.high)
    centre = median(values)
    # the mean of the two middle times is not that of their logarithms: it may lie outside by a rounding
    low, high = (min(low, centre), max(high, centre)) if len(values) > 1 else (math.nan, math.nan)
    note = _joined(made.note, warm_up_doubt(values))
    return TimingSummary(centre, low, high, min(values), len(values), made.coverage, note, tuple(values), made.method)


def warm_up_doubt(values: Sequence[float]) -> str:
    """A note where the first of three or more times looks like compilation: longer than all others, and three times
    their median; else ''.
    """
    if len(values) < 3 or values[0] <= max(values[1:]) or values[0] < 3 * median(values[1:]):
        return ""
    times = values[0] / median(values[1:]) if median(values[1:]) > 0 else math.inf
    return f"the first timed call took {times:.3g} times as long as the others: it may include compilation"


def warm_up(
    fn: Callable[[], object], synchronise: Synchronise = _nothing, *, limit: float | None = None
) -> tuple[float, ...]:
    """Call ``fn`` until compilation and other one-off costs are over; returns the seconds of every call.

    Two to five calls: another one follows while the last took less than half the time of the one before (and a
    millisecond less). The last one predicts what a call will take. None follows after ``limit`` seconds.
    """
    seconds: list[float] = []
    while len(seconds) < _WARM_UP_CALLS:
        synchronise()
        begin = time.perf_counter()
        fn()
        synchronise()
        seconds.append(time.perf_counter() - begin)
        if len(seconds) > 1:
            before, last = seconds[-2:]
            if last * _COMPILATION > before or before - last < _MILLISECOND:
                break
        if limit is not None and sum(seconds) > limit:
            break
    return tuple(seconds)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def measure_latency(fn: Callable[[], object], repeats: int, synchronise: Synchronise = _nothing) -> TimingSummary:
    """Time ``repeats`` calls of ``fn``, the device synchronised before and after each. Warm up before.

    Raises ParameterError for fewer than one repeat.
    """
    if repeats < 1:
        raise ParameterError("latency needs a repeat", got=repeats, allowed="repeats >= 1")
    times = []
    for _ in range(repeats):
        synchronise()
        begin = time.perf_counter()
        fn()
        synchronise()
        times.append(time.perf_counter() - begin)
    return summarise_times(times)


def throughput(batch_seconds: Sequence[float], batch_sizes: Sequence[int]) -> TimingSummary:
    """Seconds per image from the times of several batches of the stated size.

    Batches smaller than the largest (a last, partial one) are left out, and the note says so: a small batch
    costs more per image. Images per second are the inverse, with the ends of the interval swapped. Raises
    ParameterError.
    """
    if len(batch_seconds) != len(batch_sizes) or not batch_sizes or min(batch_sizes) < 1:
        raise ParameterError(
            "throughput needs one time and one positive size per batch",
            got=(len(batch_seconds), list(batch_sizes)[:8]),
            allowed="as many times as sizes",
        )
    stated = max(batch_sizes)
    whole = [seconds / stated for seconds, size in zip(batch_seconds, batch_sizes, strict=True) if size == stated]
    summary = summarise_times(whole)
    left_out = len(batch_sizes) - len(whole)
    if not left_out:
        return summary
    return replace(summary, note=_joined(summary.note, f"{left_out} batch(es) smaller than {stated} left out"))


def measure_throughput(
    fn: Callable[[], object], batch_size: int, repeats: int, synchronise: Synchronise = _nothing
) -> TimingSummary:
    """Seconds per image of ``repeats`` calls of ``fn``, each of which makes ``batch_size`` images."""
    times = measure_latency(fn, repeats, synchronise).values
    return throughput(times, [batch_size] * repeats)
