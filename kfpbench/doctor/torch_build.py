"""torch: its build, its instruction sets, and how fast bfloat16 is on this processor."""

from __future__ import annotations

import functools
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem, warning

_FLAGS = ("avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "bf16", "sve")
_SIZE = 256  # of the trial's matrices: 34 million operations, 1 ms in float32 on one core
_TRIAL_SECONDS = 0.5
_FAST = 1.0  # bfloat16 counts as fast when it takes no longer than float32


@functools.cache
def torch_fault() -> str:
    """Why torch cannot be imported, in words; empty when it can."""
    try:
        import torch
    except (Exception, SystemExit) as error:  # a broken build fails in ways of its own: a missing library, a symbol
        return f"{type(error).__name__}: {one_line(error)}"
    return "" if hasattr(torch, "Tensor") else "the module that is called torch is something else"


def torch_build(scope: Scope) -> Iterator[Finding]:
    """Version and build, the instruction set that it uses, and bfloat16 by trial."""
    fault = torch_fault()
    if fault:
        yield problem("torch", f"cannot be imported: {fault}", "python -m pip install --force-reinstall 'torch>=2.6'")
        return
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    shown = f"{torch.__version__} ({build}), {torch.get_num_threads()} thread(s)"
    capability = torch.backends.cpu.get_cpu_capability()
    yield judge_instructions(shown, capability, platform.machine(), processor_flags())
    yield judge_bfloat16(bfloat16_ratio())


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """The instruction sets that matter here and that the processor has; none where the system does not tell."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ()
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return tuple(flag for flag in _FLAGS if listed and flag in listed.group(1).split())


def judge_instructions(shown: str, capability: str, machine: str, flags: tuple[str, ...]) -> Finding:
    """The finding for a build that uses ``capability`` on a processor with ``flags``."""
    has = f"; the processor has {', '.join(flags)}" if flags else ""
    found = f"{shown}, uses {capability}{has}"
    plain = machine.lower() in ("x86_64", "amd64") and capability.upper() in ("DEFAULT", "NO AVX")
    if plain and "avx2" in flags:
        return warning("torch", f"{found}, of which this build uses none", "Unset ATEN_CPU_CAPABILITY; else reinstall.")
    if plain and flags:
        return warning("torch", f"{found}: without AVX2 all is several times slower", "Use a newer processor.")
    return ok("torch", found)


def bfloat16_ratio() -> float | None:
    """Time of a matrix product in bfloat16 over that in float32, least of up to 5 each; None where it has none.

    Ends after half a second or the first bfloat16 product, whichever comes later: some processors emulate it.
    """
    import torch

    best = {}
    begin = time.perf_counter()
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.ones((_SIZE, _SIZE)).to(dtype)
        try:
            if dtype is torch.float32:
                left @ left  # the first product starts threads
            times: list[float] = []
            while len(times) < 5 and (not times or time.perf_counter() - begin < _TRIAL_SECONDS):
                start = time.perf_counter()
                left @ left
                times.append(time.perf_counter() - start)
        except RuntimeError:  # a build without it
            return None
        best[dtype] = min(times)
    return best[torch.bfloat16] / max(best[torch.float32], 1e-9)


def judge_bfloat16(ratio: float | None) -> Finding:
    """The finding for a measured ratio. A slow one is common and harms nobody who has not asked for bfloat16."""
    if ratio is None:
        return ok("bfloat16", "this build of torch has none; training takes float32 by itself")
    if ratio <= _FAST:
        return ok("bfloat16", f"fast: {1 / ratio:.1f} times the speed of float32 in a product of {_SIZE} x {_SIZE}")
    times = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return ok("bfloat16", f"slow: a product takes {times} times as long as in float32; leave `precision: auto` as is")
