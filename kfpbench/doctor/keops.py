"""KeOps: the compiler it found, its cache, and whether a formula compiles and agrees with the dense product."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem, warning
from kfpbench.doctor.torch_build import torch_fault

TIMEOUT = 240.0  # seconds; a formula takes about 10 on an idle machine
_TOLERANCE = 1e-10  # relative, in float64
_MODULE = "kfpbench.doctor.keops_trial"
_COMPILER = "Install a C++ compiler (Debian: apt install g++; conda: conda install cxx-compiler), or name one by CXX."
_WITHOUT = "Cells with backend: keops are skipped until then; dense, tiled and auto work."


def keops(scope: Scope) -> Iterator[Finding]:
    """Import, compiler and cache; unless ``quick``, a compilation in an empty cache, on the CPU and on a GPU."""
    if torch_fault():
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # KeOps prints what it misses
            from kfpbench.operators.keops import require_keops

            require_keops()
            from keopscore.config import get_config

            compiler = get_config().get_cxx_compiler()
            import pykeops

            cache = Path(pykeops.get_build_folder())
            version = pykeops.__version__
    except (Exception, SystemExit) as error:  # a broken installation fails in ways of its own
        yield warning("KeOps", f"cannot be used: {one_line(error)}", f"python -m pip install pykeops. {_WITHOUT}")
        return
    yield judge_cache(cache)
    if not compiler:
        yield warning("KeOps", f"pykeops {version} found no C++ compiler", f"{_COMPILER} {_WITHOUT}")
        return
    shown = f"pykeops {version}, compiler {compiler}"
    if scope.quick:
        yield ok("KeOps", f"{shown}; no formula was compiled (--quick)")
        return
    for device in _devices():
        yield judge_trial(f"{shown}, {device}", run_trial(device))


def judge_cache(cache: Path) -> Finding:
    """The finding for a cache folder: it must take files, and none of its libraries may be empty."""
    broken = [path.name for path in cache.glob("*.so") if path.stat().st_size == 0]
    size = sum(path.stat().st_size for path in cache.glob("*") if path.is_file()) / 2**20
    count = len(list(cache.glob("*.so")))
    shown = f"{cache}: {count} compiled formula(s), {size:.0f} MiB"
    try:
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        fix = "Make it writable, or name another folder: export KEOPS_CACHE_FOLDER=..."
        return warning("KeOps cache", f"{shown}; cannot be written: {error.strerror}", fix)
    if broken:
        found = f"{shown}; {len(broken)} of them broken by a compilation that was interrupted"
        return warning("KeOps cache", found, "python -c 'import pykeops; pykeops.clean_pykeops()'")
    return ok("KeOps cache", shown)


def run_trial(device: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """What the trial printed; or ``failed`` with the reason. Its cache is a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kfpbench-keops-") as cache:
        environment = {**os.environ, "KEOPS_CACHE_FOLDER": cache, "KEOPS_VERBOSE": "0", "PYKEOPS_VERBOSE": "0"}
        try:
            done = subprocess.run(
                [sys.executable, "-m", _MODULE, device],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"it did not end within {timeout:g} s"}
        except OSError as error:
            return {"failed": f"it could not be started: {error.strerror}"}
    lines = done.stdout.strip().splitlines()
    try:
        said = json.loads(lines[-1]) if lines else None
    except ValueError:
        said = None
    if done.returncode == 0 and isinstance(said, dict):
        return said
    last = (done.stderr.strip().splitlines() or lines or ["it said nothing"])[-1]
    return {"failed": f"it ended with code {done.returncode}: {one_line(last)[:300]}"}


def judge_trial(shown: str, said: dict[str, Any]) -> Finding:
    """The finding for what the trial said."""
    if "failed" in said:
        return warning("KeOps", f"{shown}: no formula compiles: {one_line(said['failed'])}", f"{_COMPILER} {_WITHOUT}")
    times = f"compiled in {said['compile_seconds']:.1f} s, a product takes {1e3 * said['product_seconds']:.1f} ms"
    if not said["error"] <= _TOLERANCE:  # NaN too
        found = f"{shown}: {times}, but differs from the dense product by {said['error']:.1e} of its largest value"
        fix = "Do not use backend: keops here. Try another compiler (CXX=clang++), and reinstall pykeops and keopscore."
        return problem("KeOps", found, fix)
    return ok("KeOps", f"{shown}: a formula {times}, and agrees with the dense one ({said['error']:.0e})")


def _devices() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
