"""Folders that runs write into: writable, and with room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, problem, warning

_MIB = 2**20
_LITTLE = 1024  # MiB: a run of images takes tens to hundreds
_LEAST = 100


def folders(scope: Scope) -> Iterator[Finding]:
    """The parent of run folders, the user's cache, and the folder of temporary files."""
    from kfpbench.data.locations import user_cache
    from kfpbench.runner.execute import RUNS

    yield check_folder("run folders", RUNS, needed=True, fix="Run from another folder, or name one with --out.")
    cache = "Point XDG_CACHE_HOME at a folder that you may write; without it, data are decoded at every run."
    yield check_folder("cache", user_cache(), needed=False, fix=cache)
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:
        yield warning("temporary files", f"no folder is writable: {error}", "Point TMPDIR at a folder with room.")
        return
    yield check_folder("temporary files", temporary, needed=False, fix="Point TMPDIR at a folder with room.")


def check_folder(name: str, folder: Path, *, needed: bool, fix: str) -> Finding:
    """Write a file there, or in the nearest folder above that exists; nothing is left behind."""
    shown = folder.absolute()
    existing = shown
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    blamed = problem if needed else warning
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free / _MIB
    except OSError as error:
        return blamed(name, f"{shown} cannot be written: {error.strerror or error}", fix)
    found = f"{shown}, {free / 1024:.1f} GiB free"
    if free < _LEAST:
        return blamed(name, f"{found}: too little for any run", f"Free some room. {fix}")
    if free < _LITTLE:
        return warning(name, f"{found}: little room", f"Free some room. {fix}")
    return ok(name, found)
