"""The GPU: whether torch, the driver and the device fit one another, by a computation."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem, warning
from kfpbench.doctor.torch_build import torch_fault

_INSTALL = "Install torch's CUDA build: the command for your driver is at https://pytorch.org/get-started/locally"
_TOLERANCE = 1e-3  # relative, of a product of 64 x 64 in float32, TensorFloat32 allowed


@dataclass(frozen=True)
class Probe:
    """What was seen. ``devices`` of torch: (name, "9.0", GiB); ``built_for``: torch's architectures, such as sm_90.

    ``driver`` is the NVIDIA driver's version, "" without one, and ``hardware`` whether there is a device at all.
    """

    torch_version: str
    cuda_build: str | None
    available: bool
    message: str
    driver: str
    hardware: bool
    hidden: bool
    devices: tuple[tuple[str, str, float], ...] = ()
    built_for: tuple[str, ...] = ()
    trial: str = ""


def cuda(scope: Scope) -> Iterator[Finding]:
    """What torch says of CUDA, what the system says of the driver, and one product on every device."""
    if not torch_fault():
        yield judge(probe())


def probe() -> Probe:
    """Look at torch and at the system. Starts CUDA where it is available."""
    import torch

    with warnings.catch_warnings(record=True) as caught:  # torch says of an old driver what is wrong with it
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    devices = []
    trials = []
    if available:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            capability = f"{properties.major}.{properties.minor}"
            devices.append((properties.name, capability, properties.total_memory / 2**30))
            trials.append(_trial(index))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Probe(
        torch_version=str(torch.__version__),
        cuda_build=torch.version.cuda,
        available=available,
        message=one_line("; ".join(str(one.message) for one in caught)),
        driver=_driver(),
        hardware=Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/gpus").is_dir(),
        hidden=hidden is not None and hidden.strip() in ("", "-1"),
        devices=tuple(devices),
        built_for=tuple(torch.cuda.get_arch_list()) if available else (),
        trial="; ".join(text for text in trials if text),
    )


def judge(seen: Probe) -> Finding:
    """The finding for what was seen."""
    driver = f"NVIDIA driver {seen.driver}" if seen.driver else "no NVIDIA driver"
    if seen.available:
        listed = ", ".join(f"{name} ({capability}, {gib:.0f} GiB)" for name, capability, gib in seen.devices)
        shown = f"torch for CUDA {seen.cuda_build}, {driver}: {listed}"
        if seen.trial:
            built = f" (torch is built for {', '.join(seen.built_for)})" if seen.built_for else ""
            fix = f"Run with device: cpu. {_INSTALL}"
            return problem("CUDA", f"{shown}; a product on it fails: {seen.trial}{built}", fix)
        return ok("CUDA", f"{shown}; a product on each agrees with the CPU's")
    if seen.hidden:
        return ok("CUDA", f"{driver}; devices are hidden by CUDA_VISIBLE_DEVICES; cells run on the CPU")
    if seen.cuda_build is None:
        if seen.driver or seen.hardware:
            found = f"{driver}, but torch {seen.torch_version} is a CPU build: the GPU is not used"
            return warning("CUDA", found, _INSTALL)
        return ok("CUDA", "no NVIDIA GPU, and torch's CPU build; cells run on the CPU")
    said = f": {seen.message}" if seen.message else ""
    if seen.driver or seen.hardware:
        found = f"{driver}, but torch for CUDA {seen.cuda_build} cannot use the GPU{said}"
        return problem("CUDA", found, f"Upgrade the driver, or take a torch for an older CUDA. {_INSTALL}")
    return ok("CUDA", f"no NVIDIA GPU; torch for CUDA {seen.cuda_build} runs on the CPU")


def _trial(index: int) -> str:
    """A product on the device against the CPU's; what is wrong in words, empty when it agrees."""
    import torch

    left = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    try:
        error = float(((left.to(f"cuda:{index}") @ left.to(f"cuda:{index}")).cpu() - left @ left).abs().max())
    except RuntimeError as failure:  # no kernel image for this device, out of memory, a device that is taken
        return f"cuda:{index}: {one_line(failure)[:200]}"
    largest = float((left @ left).abs().max())
    return "" if error <= _TOLERANCE * largest else f"cuda:{index}: wrong by {error / largest:.1e} of the largest value"


def _driver() -> str:
    """The version of the NVIDIA driver, by nvidia-smi, else by the kernel module; "" without one."""
    program = shutil.which("nvidia-smi")
    if program:
        try:
            done = subprocess.run(
                [program, "--query-gpu=driver_version", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = done.stdout.split()
        if done.returncode == 0 and lines:
            return lines[0]
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return ""
