"""What the shell completes: suite files, kinds of components, selections of a suite.

What is offered ends up in someone's command line, where some shells evaluate it: only names of plain characters are
offered, for a suite may come from a stranger. No component is imported and no plugin is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./=+-]+")
_MOST = 200  # offered at once


def suite_files(incomplete: str) -> list[str]:
    """YAML files and folders that begin so; the folder ``suites`` too, where nothing has been typed."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") or not incomplete else typed.parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    found = _listed(folder, prefix)
    if not incomplete:
        found += [name for name in _listed(Path("suites"), "suites/") if not name.endswith("/")]
    return plain(found, incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of components."""
    from kfpbench.protocols import KINDS

    return plain(KINDS, incomplete)


def selections(ctx: Any, incomplete: str) -> list[str]:
    """``label=...`` of the suite that the command names, with its includes merged and its overrides left out."""
    from kfpbench.errors import KfpbenchError
    from kfpbench.suite.include import read_suite_file

    # the option that is being completed has no value yet, and the parser then leaves what stands before it in ``args``
    named = [Path(str(word)) for word in (ctx.params.get("suite"), *ctx.args) if word]
    suite = next((path for path in named if path.is_file()), None)
    if suite is None:
        return []
    try:
        document = read_suite_file(suite).data
    except (KfpbenchError, OSError):
        return []
    labels = []
    for key in ("samplers", "spectrum"):
        entries = document.get(key)
        for entry in entries if isinstance(entries, list) else ():
            label = entry.get("label") or entry.get("name") if isinstance(entry, dict) else entry
            labels.append(f"label={label}")
    return plain([*labels, "kind=sample", "kind=spectrum"], incomplete)


def plain(names: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin as typed and that no shell reads as anything but a word."""
    fitting = [name for name in names if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
    return [name for name in dict.fromkeys(fitting) if not name.startswith("-")][:_MOST]


def _listed(folder: Path, prefix: str) -> list[str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    files = [prefix + path.name for path in entries if path.suffix in (".yaml", ".yml")]
    hidden = [path for path in entries if path.name.startswith(".")]
    return files + [f"{prefix}{path.name}/" for path in entries if path not in hidden and path.is_dir()]
