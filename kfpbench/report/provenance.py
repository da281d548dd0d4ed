"""What surrounds the numbers: the head, the cells without a result, and where the run was made."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kfpbench.report.cells import STATUSES, Cell
from kfpbench.report.numbers import format_seconds
from kfpbench.suite.cell_name import axes_text, cell_name, compact

_VERSION_KEYS = ("kfpbench_version", "kfpbench", "version")
_ELSEWHERE = frozenset({"suite", "command", "schema_version", "started", "finished", "seeds", "concluded", "code"})


@dataclass(frozen=True)
class Omission:
    """Cells that gave no result for one same reason; ``tracebacks`` are (label, text)."""

    status: str
    reason: str
    labels: tuple[str, ...]
    tracebacks: tuple[tuple[str, str], ...]


def head(manifest: Mapping[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    """Title, question, counts by status, and the facts that bear on every number."""
    suite = _suite(manifest)
    counts = Counter(cell.status for cell in cells)
    seeds = manifest.get("seeds") or sorted({cell.spec["seed"] for cell in cells if "seed" in cell.spec})
    sampled = [cell for cell in cells if cell.kind == "sample"]
    facts = {
        "seeds": compact(seeds).strip("[]"),
        "samples per cell": _values(sampled, "n_samples"),
        "reference set": ", ".join(sorted({cell.reference for cell in sampled} - {""})),
        "finished": format_time(str(manifest.get("finished") or "")),
        "took": _duration(manifest),
    }
    return {
        "title": str(suite.get("name") or "kfpbench run"),
        "description": str(suite.get("description") or "").strip(),
        "counts": {status: counts[status] for status in STATUSES if counts[status]},
        "facts": {name: text for name, text in facts.items() if text},
        "version": next((str(manifest[key]) for key in _VERSION_KEYS if manifest.get(key)), ""),
    }


def omissions(cells: Sequence[Cell]) -> list[Omission]:
    """Cells that are not ok, together where status and reason agree; failures before skips."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.status != "ok":
            grouped.setdefault((cell.status, cell.reason), []).append(cell)
    order = ("failed", "timeout", "skipped")
    made = []
    for status, reason in sorted(grouped, key=lambda key: order.index(key[0])):
        named = [(_full_label(cell), cell) for cell in grouped[status, reason]]
        counts = Counter(label for label, _ in named)
        labels = tuple(label if count == 1 else f"{label}, {count} times" for label, count in counts.items())
        tracebacks = dict.fromkeys((label, cell.traceback) for label, cell in named if cell.traceback)
        made.append(Omission(status, reason, labels, tuple(tracebacks)))
    return made


def provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of everything in the manifest that has no place of its own; what is not known is left
    out.
    """
    rows = [("started", format_time(str(manifest.get("started") or "")))]
    for name, value in manifest.items():
        if name not in _ELSEWHERE:
            rows += _rows(name, value)
    return [(name.replace("_", " "), text) for name, text in rows if text]


def suite_text(manifest: Mapping[str, Any]) -> str:
    """The suite file as it was run, '' where the manifest does not have it."""
    return str(_suite(manifest).get("text") or "")


def reproduction(manifest: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The shell lines that make the run again, and what they do not bring back; empty without a command."""
    command = [str(part) for part in manifest.get("command") or ()]
    if not command:
        return "", []
    lines, notes = [shlex.join(command)], []
    environment = manifest.get("environment")
    git = environment.get("git") if isinstance(environment, Mapping) else None
    commit = str((git.get("commit") if isinstance(git, Mapping) else None) or manifest.get("commit") or "")
    if commit:
        lines.insert(0, shlex.join(["git", "checkout", commit]))
    if isinstance(git, Mapping) and git.get("dirty"):
        notes.append("The working tree had changes that this commit does not hold.")
    if _suite(manifest).get("included"):
        notes.append("The suite includes other files, which are beside it in the repository.")
    if manifest.get("plugins"):
        notes.append("The run used plugins: their files are named below, not kept here.")
    return "\n".join(lines), notes


def format_time(text: str) -> str:
    """An ISO time as '2026-03-02 10:14 UTC'; text that is none as it is."""
    moment = _moment(text)
    return text if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A mapping gives one row per key, and a mapping inside it one row with everything in it."""
    if name == "environment" and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _rows(str(key), item)
    elif isinstance(value, Mapping):
        known = [
            f"{key} {compact(item)}".replace("_", " ") for key, item in value.items() if item not in (None, "", [], {})
        ]
        yield name, ", ".join(known)
    elif value not in (None, "", [], {}):
        yield name, compact(value).strip("[]")


def _full_label(cell: Cell) -> str:
    data = "" if cell.dataset in axes_text(cell.axes) else f" on {cell.dataset}"
    return cell_name(cell.label + data, cell.axes)


def _suite(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    suite = manifest.get("suite")
    return suite if isinstance(suite, Mapping) else {"name": suite}


def _values(cells: Sequence[Cell], name: str) -> str:
    values = sorted({int(value) for cell in cells if (value := cell.spec.get(name))})
    return ", ".join(f"{value:,}" for value in values)


def _duration(manifest: Mapping[str, Any]) -> str:
    started, finished = (_moment(str(manifest.get(key) or "")) for key in ("started", "finished"))
    return "" if started is None or finished is None else format_seconds((finished - started).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
