"""Limits that a container sets: processor time and memory of this process's control groups (Linux)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 2**60  # bytes; version 1 writes a number near 2**63 for no limit


def processor_limit(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the groups allow, such as 1.5; None without a limit."""
    limits = []
    for folder in _groups(root, "cpu"):
        words = (_read(folder / "cpu.max") or "").split()  # version 2: "150000 100000" or "max 100000"
        if len(words) == 2 and words[0] != "max":
            limits.append(int(words[0]) / int(words[1]))
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")  # version 1
        if quota and period and int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that the groups allow; None without a limit."""
    limits = []
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text and text.isdigit() and int(text) < _UNLIMITED:
                limits.append(int(text))
    return min(limits, default=None)


def memory_used(root: Path = Path("/")) -> int | None:
    """Bytes that the innermost group with a count uses, files in its cache included; None where it is not told."""
    for folder in _groups(root, "memory"):
        for name in ("memory.current", "memory.usage_in_bytes"):
            text = _read(folder / name)
            if text and text.isdigit():
                return int(text)
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups, innermost first, of version 2 and of version 1's controller.

    Inside a container the path in /proc may be the host's and not exist; the mount's top then is the container's group.
    """
    mount = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        folder = top / path.lstrip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
