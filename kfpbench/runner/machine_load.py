"""The share of the processors that other programs had while something was timed (Linux; elsewhere it is not known)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from kfpbench.runner.environment import usable_cores

_STAT = Path("/proc/stat")
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guests are in user (proc(5))
_LEAST_SECONDS = 0.5  # the counters step by 10 ms: in less time they say too little
_OTHERS = 0.10  # a share of all processors; an idle desktop takes some 2 %
_OVERLAP = 0.05  # the same, of processors that our own threads need


@dataclass(frozen=True)
class MachineLoad:
    """What others took of the usable processors (the hypervisor's share counts) in ``seconds`` of wall-clock time.

    ``others`` and ``own`` are shares of ``cores`` processors, from 0 to 1; None where the platform does not tell or the
    time was too short. ``threads`` is the number of threads that we compute with.
    """

    others: float | None
    own: float | None
    seconds: float
    cores: int
    threads: int

    @property
    def loaded(self) -> bool:
        """Whether others took more than 10 % of the processors, or more than our threads left over (by 5 %)."""
        if self.others is None:
            return False
        return self.others > _OTHERS or self.others + min(self.threads / self.cores, 1.0) > 1.0 + _OVERLAP

    @property
    def note(self) -> str:
        """What a reader must know of times taken under this load; '' where there is nothing to say."""
        if not self.loaded:
            return ""
        return (
            f"taken under load: other programs had {self.others:.0%} of {self.cores} processor(s); "
            "the times may be too long"
        )

    def as_plain(self) -> dict[str, Any]:
        """For a record; ``note`` only where there is one."""
        known = {
            "others_share": self.others,
            "own_share": self.own,
            "seconds": self.seconds,
            "cores": self.cores,
            "threads": self.threads,
        }
        return {**known, "note": self.note} if self.note else known

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> MachineLoad:
        """The load that ``as_plain`` wrote."""
        return cls(
            content["others_share"], content["own_share"], content["seconds"], content["cores"], content["threads"]
        )


class LoadMeter:
    """``with LoadMeter() as meter: ...`` and then ``meter.result``.

    The processor time of the processors that this process may use (/proc/stat) less our own, by the wall-clock time.
    ``threads`` defaults to torch's. Cost: some 100 microseconds at either end.
    """

    result: MachineLoad

    def __init__(self, threads: int | None = None) -> None:
        if threads is None:
            torch = sys.modules.get("torch")
            threads = torch.get_num_threads() if torch is not None else 1
        self._threads = threads

    def __enter__(self) -> LoadMeter:
        self._begin = time.perf_counter()
        self._own = _own_seconds()
        self._busy = _busy_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        busy, own = _busy_seconds(), _own_seconds() - self._own
        seconds, cores = time.perf_counter() - self._begin, usable_cores()
        if busy is None or self._busy is None or seconds < _LEAST_SECONDS:
            self.result = MachineLoad(None, None, seconds, cores, self._threads)
            return
        capacity = seconds * cores
        others = min(max(busy - self._busy - own, 0.0) / capacity, 1.0)
        self.result = MachineLoad(others, min(own / capacity, 1.0), seconds, cores, self._threads)


def _own_seconds() -> float:
    """Processor time of all threads of this process, and of the children that it has waited for."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _busy_seconds() -> float | None:
    """Seconds that the processors we may use have worked since the machine started; None where nothing tells."""
    try:
        lines = _STAT.read_text().splitlines()
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    ticks, found = 0, False
    for line in lines:
        name, _, rest = line.partition(" ")
        number = name.removeprefix("cpu")
        if not name.startswith("cpu") or not number.isdigit() or (allowed is not None and int(number) not in allowed):
            continue
        fields = [int(text) for text in rest.split()]
        ticks += sum(fields[index] for index in _BUSY_FIELDS if index < len(fields))
        found = True
    return ticks / tick if found and ticks else None  # a sandbox may show zeros
