"""The clock that times cells: its smallest step, the cost of reading it, and what the kernel takes it from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, warning

_STEP = 1e-5  # seconds; the shortest phases that are compared last milliseconds
_CALL = 2e-6
_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def clock(scope: Scope) -> Iterator[Finding]:
    """perf_counter, measured for a few milliseconds."""
    step, call = measure()
    yield judge(step, call, _source())


def measure(reads: int = 2000) -> tuple[float, float]:
    """(smallest step that was seen, seconds a reading takes)."""
    begin = time.perf_counter()
    values = [time.perf_counter() for _ in range(reads)]
    call = (time.perf_counter() - begin) / reads
    steps = [later - earlier for earlier, later in pairwise(values) if later > earlier]
    return min(steps, default=float("inf")), call


def judge(step: float, call: float, source: str) -> Finding:
    """The finding for a clock of that step and cost."""
    found = f"step {1e9 * step:.0f} ns, a reading takes {1e9 * call:.0f} ns" + (f", source {source}" if source else "")
    if step > _STEP or call > _CALL:
        fix = "Times under a millisecond are not reliable here; on Linux, see whether clocksource tsc can be had."
        return warning("clock", f"{found}: too coarse, or too slow to read", fix)
    return ok("clock", found)


def _source() -> str:
    try:
        return _SOURCE.read_text().strip()
    except OSError:
        return ""
