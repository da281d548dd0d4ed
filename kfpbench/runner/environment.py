"""Where a run was made: versions, processor, memory, threads, load. No host name, user name or path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "gpytorch",
    "linear_operator",
    "pykeops",
    "pillow",
)
_PROCESSORS = Path("/sys/devices/system/cpu")
BUSY_FACTOR = 1.25  # more runnable threads per core than this, and timings are disturbed


def describe_environment(device: Any = "cpu", *, hostname: bool = False) -> dict[str, Any]:
    """What a reader needs to judge the timings of a run; plain values, ready for the manifest.

    What a platform does not tell is None. Imports torch; calls git twice in the working directory (both None
    without git or outside a checkout). ``hostname`` adds the machine's name, which is otherwise kept out.
    """
    described: dict[str, Any] = {
        "kfpbench": _version("kfpbench"),
        "git": git_state(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": _torch_build(),
        "blas": _blas(),
        "cpu": {
            "model": _cpu_model(),
            "physical_cores": _physical_cores(),
            "logical_cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "governor": _governor(),
            "turbo": _turbo(),
        },
        "memory_bytes": _memory_bytes(),
        "threads": _threads(),
        "device": str(device),
        "gpu": _gpu(device),
        "load_average": load_average(),
        "load_note": machine_is_loaded(),
    }
    if hostname:
        described["hostname"] = platform.node()
    return described


def machine_is_loaded(
    own_threads: int | None = None, *, load: float | None = None, cores: int | None = None
) -> str | None:
    """A note when other work will disturb timings that begin now, else None.

    Call it before the work: the load average of the last minute is then that of others, and there is too
    little room when it exceeds ``1.25 x cores - own_threads``. Default: torch's threads (1 where torch is not
    loaded), this machine's load and the cores that this process may use. None too where the platform has no
    load average.
    """
    if load is None:
        averages = load_average()
        if averages is None:
            return None
        load = averages[0]
    cores = usable_cores() if cores is None else cores
    if own_threads is None:
        torch = sys.modules.get("torch")
        own_threads = torch.get_num_threads() if torch is not None else 1
    if load <= BUSY_FACTOR * cores - own_threads:
        return None
    return (
        f"the machine was busy at the start: load average {load:.2f} beside {own_threads} own thread(s) "
        f"on {cores} core(s); timings may be too long"
    )


def load_average() -> list[float] | None:
    """The load averages over 1, 5 and 15 minutes; None on Windows."""
    if not hasattr(os, "getloadavg"):
        return None
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """``commit`` of the checkout around ``folder`` (default: that of this package), and whether it is ``dirty``.

    Both are None for a package that is installed outside a checkout.
    """
    folder = folder or Path(__file__).parent
    commit = _git(["rev-parse", "HEAD"], folder)
    status = None if commit is None else _git(["status", "--porcelain", "--untracked-files=no"], folder)
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(arguments: list[str], folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            # No optional lock: describing a checkout must not disturb someone else's git command in it.
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_build() -> dict[str, Any]:
    import torch

    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "mkl": torch.backends.mkl.is_available(),
        "openmp": torch.backends.openmp.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _blas() -> dict[str, Any]:
    """numpy's BLAS at build time, and the loaded libraries that have thread pools (not their paths)."""
    import numpy as np

    built = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {}) if isinstance(built, dict) else {}
    try:
        from threadpoolctl import threadpool_info  # comes with scikit-learn
    except ImportError:
        pools = []
    else:
        kept = ("user_api", "internal_api", "version", "num_threads", "architecture", "threading_layer")
        pools = [{key: pool[key] for key in kept if pool.get(key) is not None} for pool in threadpool_info()]
    return {"numpy": {"name": blas.get("name"), "version": blas.get("version")}, "thread_pools": pools}


def _threads() -> dict[str, Any]:
    import torch

    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "torch": torch.get_num_threads(),
        "torch_interop": torch.get_num_interop_threads(),
        **{name: os.environ.get(name) for name in names},
    }


def _gpu(device: Any) -> dict[str, Any] | None:
    """The GPU of the device, without its serial numbers; None for a CPU."""
    import torch

    if not str(device).startswith("cuda") or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _cpu_model() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    if found:
        return found.group(1).strip()
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return platform.processor() or None


def _physical_cores() -> int | None:
    """Distinct (physical id, core id) pairs; None where the platform does not list them."""
    if sys.platform == "darwin":
        count = _sysctl("hw.physicalcpu")
        return int(count) if count and count.isdigit() else None
    cores = set()
    for block in (_read("/proc/cpuinfo") or "").split("\n\n"):
        fields = dict(re.findall(r"^(physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(fields) == 2:
            cores.add((fields["physical id"], fields["core id"]))
    return len(cores) or None


def _governor() -> str | None:
    """The frequency governors of the processors, such as 'powersave'; several names where they differ."""
    names = {_read(str(path)) for path in _PROCESSORS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(name for name in names if name)) or None


def _turbo() -> bool | None:
    """Whether the processors may run above their base frequency; None where nothing tells."""
    off, boost = _read(str(_PROCESSORS / "intel_pstate/no_turbo")), _read(str(_PROCESSORS / "cpufreq/boost"))
    if off in ("0", "1"):
        return off == "0"
    return boost == "1" if boost in ("0", "1") else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
