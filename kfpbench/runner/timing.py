"""Time the phases of a cell, latency and throughput on a synchronised device, with an interval that assumes
nothing.

Times are not Gaussian: they have a floor and a long tail. So a repeated time is reported by its median with
an interval from order statistics, which needs only that the repeats are independent and alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kfpbench.errors import ParameterError

Synchronise = Callable[[], None]


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
class TimingSummary:
    """Repeated times in seconds: the median, its interval, the minimum and the number n of repeats.

    ``coverage`` is the exact probability that the interval holds the true median. ``note`` says what a reader
    must know, such as that n is too small for 95 %. ``values`` are the times in the order in which they were
    taken.
    """

    median: float
    ci_low: float
    ci_high: float
    minimum: float
    n: int
    coverage: float
    note: str = ""
    values: tuple[float, ...] = ()


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


def summarise_times(values: Sequence[float], confidence: float = 0.95) -> TimingSummary:
    """Median, interval and minimum of repeated times. Raises ParameterError without values."""
    ordered = sorted(values)
    n = len(ordered)
    low, high, coverage = median_interval(n, confidence)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    note = ""
    if coverage < confidence:
        note = f"n = {n} is too small for a {confidence:.0%} interval: minimum to maximum, {coverage:.1%}"
    return TimingSummary(median, ordered[low], ordered[high], ordered[0], n, coverage, note, tuple(values))


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
    note = f"{left_out} batch(es) smaller than {stated} left out"
    joined = f"{summary.note}; {note}" if summary.note else note
    return TimingSummary(
        summary.median,
        summary.ci_low,
        summary.ci_high,
        summary.minimum,
        summary.n,
        summary.coverage,
        joined,
        summary.values,
    )


def measure_throughput(
    fn: Callable[[], object], batch_size: int, repeats: int, synchronise: Synchronise = _nothing
) -> TimingSummary:
    """Seconds per image of ``repeats`` calls of ``fn``, each of which makes ``batch_size`` images."""
    times = measure_latency(fn, repeats, synchronise).values
    return throughput(times, [batch_size] * repeats)
