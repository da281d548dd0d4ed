"""Peak memory of a phase, and what is free, in bytes: the allocator's on CUDA, the resident set's on a CPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5): resets VmHWM to the present VmRSS


@dataclass(frozen=True)
class MemoryPeak:
    """What a phase took. ``peak`` is absolute, ``increase`` is peak minus what was held when it began; bytes.

    Both are None where the platform tells nothing. ``source`` is "cuda", "VmHWM", "ru_maxrss" or "none";
    ``note`` says how the numbers are limited.
    """

    peak: int | None
    increase: int | None
    source: str
    note: str = ""


class PeakMemory:
    """``with PeakMemory(device) as memory: ...`` and then ``memory.result``. May be nested.

    On CUDA: bytes that torch's allocator handed out on that device (not its cache, not other libraries). On a
    Linux CPU: the resident set of the process, pages of mapped files included. The counters are of the whole
    process (CUDA: device), so a phase that another thread works in is not told apart. Cost: some ten
    microseconds.
    """

    result: MemoryPeak

    _active: list[PeakMemory] = []  # noqa: RUF012  # all that are open, innermost last: shared on purpose

    def __init__(self, device: Any = "cpu") -> None:
        self._device = str(device)
        self._cuda = self._device.partition(":")[0] == "cuda"
        self._source = "cuda" if self._cuda else "none"
        self._baseline = 0
        self._peak = 0

    def __enter__(self) -> PeakMemory:
        _collect()  # an inner one resets the counter that the outer ones read
        if self._cuda:
            import torch

            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._baseline = torch.cuda.memory_allocated(self._device)
        elif (resident := _reset_resident_peak()) is not None:
            self._source = "VmHWM"
            self._baseline = resident
        else:
            lifetime = _lifetime_peak()
            if lifetime is not None:
                self._source = "ru_maxrss"
                self._baseline = lifetime
        self._peak = self._baseline
        PeakMemory._active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _collect()
        PeakMemory._active.remove(self)
        self.result = MemoryPeak(self._peak, self._peak - self._baseline, self._source)
        if self._source == "ru_maxrss":
            note = "from the peak of the whole process: a lower bound of the increase, an upper one of the peak"
            self.result = MemoryPeak(self._peak, self._peak - self._baseline, self._source, note)
        elif self._source == "none":
            self.result = MemoryPeak(None, None, "none", "this platform reports no peak memory")

    def _read(self) -> None:
        """Take the counter's present value into the peak."""
        if self._source == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))
        elif self._source == "VmHWM":
            self._peak = max(self._peak, *_status_bytes("VmHWM"))
        elif self._source == "ru_maxrss":
            self._peak = max(self._peak, _lifetime_peak() or 0)


def _collect() -> None:
    for open_one in PeakMemory._active:
        open_one._read()


def _status_bytes(*names: str) -> list[int]:
    """Fields of /proc/self/status that are given in kB (which are 1,024 bytes there)."""
    fields = dict(line.partition(":")[::2] for line in _STATUS.read_text().splitlines())
    missing = [name for name in names if name not in fields]
    if missing:
        raise OSError(f"{_STATUS} has no {' or '.join(missing)}")
    return [int(fields[name].split()[0]) * 1024 for name in names]


def _reset_resident_peak() -> int | None:
    """Set VmHWM back to VmRSS and return that; None where the kernel or a sandbox does not let us."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        peak, resident = _status_bytes("VmHWM", "VmRSS")
    except (OSError, ValueError):
        return None
    # Some sandboxes accept the write and ignore it, or hide the counters.
    return resident if peak - resident < 16 * 2**20 else None


def _lifetime_peak() -> int | None:
    """The peak resident set since the process began, bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes(device: Any = "cpu") -> int | None:
    """Bytes that can be allocated now without swapping; on CUDA those free on the device. None where nothing tells.

    On Linux the smaller of the machine's MemAvailable and what the process's control group leaves.
    """
    if str(device).partition(":")[0] == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    found = [value for value in (_machine_available(), _group_available()) if value is not None]
    return min(found) if found else None


def total_bytes(device: Any = "cpu") -> int | None:
    """Bytes that there are, free or not: of the CUDA device, or on Linux the smaller of the machine's memory with its
    swap space and the limit of the process's control group. None where nothing tells.
    """
    if str(device).partition(":")[0] == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    memory = _machine("MemTotal")
    found = [value for value in (memory and memory + (_machine("SwapTotal") or 0), _group_limit()) if value]
    return min(found) if found else None


def _machine_available() -> int | None:
    return _machine("MemAvailable")


def _machine(name: str) -> int | None:
    """A field of /proc/meminfo in bytes."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
    return None if kibibytes is None else kibibytes * 1024


def _group_limit() -> int | None:
    try:
        return int((_GROUP / "memory.max").read_text())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None


def _group_available() -> int | None:
    """What the control group (version 2) of a container leaves; None without a limit."""
    try:
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    return max(limit - used, 0)
