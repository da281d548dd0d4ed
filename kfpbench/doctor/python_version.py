"""The interpreter: its version, and whether the packages that kfpbench builds on can be had for it."""

from __future__ import annotations

import platform
import struct
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata

from kfpbench.doctor.finding import Finding, Scope, ok, problem, warning


def python_version(scope: Scope) -> Iterator[Finding]:
    """Version against the package's own requirement, and builds that the numerical packages do not support."""
    version, implementation = platform.python_version(), platform.python_implementation()
    yield judge(
        version,
        implementation,
        required=required_python(),
        bits=8 * struct.calcsize("P"),
        final=sys.version_info.releaselevel == "final",
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    )


def required_python() -> str:
    """What the installed package asks for, such as ">=3.11"; empty when kfpbench is not installed."""
    try:
        return metadata.metadata("kfpbench")["Requires-Python"] or ""
    except (metadata.PackageNotFoundError, KeyError):
        return ""


def judge(version: str, implementation: str, *, required: str, bits: int, final: bool, free_threaded: bool) -> Finding:
    """The finding for an interpreter of these properties."""
    shown = f"{implementation} {version}, {bits} bits"
    if not required:
        fix = "Install it: python -m pip install -e . in its folder."
        return problem("Python", f"{shown}; kfpbench is not installed in this environment", fix)
    shown += f"; supported: {required}"
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(required).contains(version, prereleases=True):
        return problem("Python", shown, f"Make an environment with Python {required}.")
    if bits < 64:
        return problem("Python", f"{shown}; torch has no 32-bit builds", "Make an environment with a 64-bit Python.")
    if implementation != "CPython":
        return warning("Python", f"{shown}; torch is built for CPython", "Make an environment with CPython.")
    if not final or free_threaded:
        kind = "free-threaded build" if free_threaded else "pre-release"
        return warning("Python", f"{shown}; a {kind}, on which nothing was tested", "Use a released standard build.")
    return ok("Python", shown)
