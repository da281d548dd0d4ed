"""Every registered component is imported; those that fail are named with their reason."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem
from kfpbench.errors import PluginError
from kfpbench.protocols import KINDS
from kfpbench.registry import Entry, available


def plugins(scope: Scope) -> Iterator[Finding]:
    """One finding for all that load, and one for each that does not. Runs the modules of installed plugins."""
    yield from judge(entry for kind in KINDS for entry in available(kind).values())


def judge(entries: Iterable[Entry]) -> Iterator[Finding]:
    """The findings for these entries."""
    loaded: dict[str, int] = {}
    for entry in entries:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # a plugin's chatter would break --json
                entry.load()
        except PluginError as error:
            fix = error.remedy or "Repair or uninstall it."
            yield problem(f"plugin {entry.kind}/{entry.name}", one_line(f"{error.what} ({entry.target})"), fix)
        else:
            loaded[entry.origin] = loaded.get(entry.origin, 0) + 1
    listed = ", ".join(f"{count} of {origin}" for origin, count in sorted(loaded.items()))
    yield ok("plugins", f"{sum(loaded.values())} components load: {listed}")
