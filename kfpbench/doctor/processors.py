"""Processors: how many this process may use, how many threads it would start, and what else is running."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from kfpbench.doctor.control_groups import processor_limit
from kfpbench.doctor.finding import Finding, Scope, ok, warning
from kfpbench.doctor.torch_build import torch_fault
from kfpbench.runner.environment import load_average, machine_is_loaded, usable_cores

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")


def processors(scope: Scope) -> Iterator[Finding]:
    """Cores, threads and load."""
    usable, limit = usable_cores(), processor_limit()
    found = f"{usable} of {os.cpu_count()} logical core(s) usable"
    if limit is not None:
        found += f"; the container allows the time of {limit:g}"
    yield ok("processors", found)
    if not torch_fault():
        import torch

        settings = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        yield judge_threads(torch.get_num_threads(), usable, limit, settings)
    averages = load_average()
    note = machine_is_loaded()
    if note:
        fix = "Time when the machine is idle; a run notes the load in its manifest, and results stay valid."
        yield warning("load", note, fix)
    elif averages:
        yield ok("load", f"averages {', '.join(f'{value:g}' for value in averages)} over 1, 5 and 15 minutes")


def judge_threads(threads: int, usable: int, limit: float | None, settings: dict[str, str]) -> Finding:
    """The finding for torch's threads on ``usable`` cores with ``limit`` cores' worth of time."""
    room = usable if limit is None else max(1, min(usable, math.floor(limit + 0.01)))
    shown = ", ".join(f"{name}={value}" for name, value in settings.items()) or "no OMP or MKL variable is set"
    found = f"torch would use {threads}; {shown}"
    if threads > room:
        return warning("threads", f"{found}: more than the {room} core(s) there is time for", _number(room))
    if settings.get("OMP_WAIT_POLICY", "PASSIVE").upper() == "ACTIVE":
        found += ": threads that spin while they wait are starved by any other busy process"
        return warning("threads", found, "unset OMP_WAIT_POLICY; kfpbench then takes PASSIVE")
    return ok("threads", found)


def _number(count: int) -> str:
    return f"export OMP_NUM_THREADS={count} MKL_NUM_THREADS={count}"
