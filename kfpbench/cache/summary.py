"""What the cache has spared a run, from the records of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfpbench.store.records import CellRecord


def cache_use(records: Sequence[CellRecord], since: str = "") -> dict[str, Any]:
    """Entries read, written, rebuilt and refused in the cells that began at ``since`` or later, and the seconds spared:
    those that the results had taken, without those of reading them and of samples drawn again for their times.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("read", "written", "rebuilt", "refused")}
    drawn_again = 0.0
    for record in records:
        if record.started >= since:
            for name, entries in record.details.get("cache", {}).items():
                found[name] += entries
            drawn_again += record.details.get("kept_samples", {}).get("seconds", 0.0)
    outdated = {(entry["kind"], entry["entry"]) for entry in found["rebuilt"]}
    used = [entry for entry in found["read"] if (entry["kind"], entry["entry"]) not in outdated]
    spared = max(sum(max(entry["seconds"] - entry["reading_seconds"], 0.0) for entry in used) - drawn_again, 0.0)
    return {**{name: len(entries) for name, entries in found.items()}, "seconds_spared": spared}


def cache_line(records: Sequence[CellRecord], since: str = "") -> str:
    """One line about it; "" where the cache took no part."""
    use = cache_use(records, since)
    if not any(use.values()):
        return ""
    parts = [f"{use['read']} results read, {use['seconds_spared']:.1f} s of work spared", f"{use['written']} kept"]
    parts += [f"{use['rebuilt']} damaged or outdated, computed again"] if use["rebuilt"] else []
    parts += [f"{use['refused']} could not be kept (the log says why)"] if use["refused"] else []
    return f"cache: {', '.join(parts)}"
