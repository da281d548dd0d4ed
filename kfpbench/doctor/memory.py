"""Memory that is free for a run, in the machine and in its container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kfpbench.doctor.control_groups import memory_limit, memory_used
from kfpbench.doctor.finding import Finding, Scope, ok, warning

_GIB = 2**30
_QUICKSTART = 1.0  # GiB that the quickstart needs, torch included
_CIFAR10 = 3.0  # GiB: 0.7 of rows, what they are made from, torch, a sampler's matrices


def memory(scope: Scope) -> Iterator[Finding]:
    """Free memory, the container's limit taken into account. Nothing where the system does not tell."""
    sizes = machine_memory()
    if sizes is not None:
        yield judge(*sizes, memory_limit(), memory_used())


def machine_memory(path: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """(total, available) bytes, or None."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    if "MemTotal" not in found or "MemAvailable" not in found:
        return None
    return int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024


def judge(total: int, available: int, limit: int | None, used: int | None) -> Finding:
    """The finding for these bytes; ``limit`` and ``used`` are the container's."""
    free = available if limit is None else min(available, max(0, limit - (used or 0)))
    found = f"{free / _GIB:.1f} GiB free of {total / _GIB:.1f}"
    if limit is not None and limit < total:
        found += f"; the container allows {limit / _GIB:.1f}"
    dry = "kfpbench run SUITE --dry-run tells what cells need; budget.memory_gib skips those that need more."
    if free < _QUICKSTART * _GIB:
        return warning("memory", f"{found}: too little for most suites", f"End other programs. {dry}")
    if free < _CIFAR10 * _GIB:
        return warning("memory", f"{found}: enough for small data, not for CIFAR-10", dry)
    return ok("memory", found)
