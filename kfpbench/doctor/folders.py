"""Folders that runs write into: writable, and with room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, problem, warning

_MIB = 2**20
_LITTLE = 1024  # MiB: a run of images takes tens to hundreds
_LEAST = 100


def folders(scope: Scope) -> Iterator[Finding]:
    """The parent of run folders, the user's cache, that of results, and the folder of temporary files."""
    from kfpbench.cache.location import user_cache
    from kfpbench.store.run_folder import RUNS

    yield check_folder("run folders", RUNS, needed=True, fix="Run from another folder, or name one with --out.")
    cache = "Point XDG_CACHE_HOME at a folder that you may write; without it, data are decoded at every run."
    yield check_folder("cache", user_cache(), needed=False, fix=cache)
    yield results_cache()
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:
        yield warning("temporary files", f"no folder is writable: {error}", "Point TMPDIR at a folder with room.")
        return
    yield check_folder("temporary files", temporary, needed=False, fix="Point TMPDIR at a folder with room.")


def results_cache() -> Finding:
    """Where costly results are kept, how much there is, and to what size it is cut."""
    from kfpbench.cache.location import CACHE_DIR_VARIABLE, MAX_SIZE_VARIABLE, cache_folder, largest_size
    from kfpbench.cache.store import Store
    from kfpbench.errors import ParameterError

    name = "results cache"
    fix = f"Point {CACHE_DIR_VARIABLE} at a folder that you may write; without it, nothing is kept for later runs."
    found = check_folder(name, cache_folder(), needed=False, fix=fix)
    entries = Store(cache_folder()).entries()
    try:
        most = largest_size()
    except ParameterError as error:  # a run would end with it
        return problem(name, f"{MAX_SIZE_VARIABLE} is {error}", f"Set {MAX_SIZE_VARIABLE} as in 20GiB, or unset it.")
    held = f"{len(entries)} entries, {sum(entry.bytes for entry in entries) / _MIB:.0f} of {most / _MIB:.0f} MiB"
    return replace(found, found=f"{found.found}; {held}")


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
