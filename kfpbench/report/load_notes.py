"""Times that were taken while other programs had much of the machine: which cells, for tables and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kfpbench.report.aggregate import Group

TIMED = frozenset({"seconds_per_image", "seconds_per_image_batch1"})
MARK = "under load"
_NAMES = 12


def under_load(group: Group) -> float | None:
    """The largest share of the processors that others had while a repeat was timed; None where none was disturbed."""
    shares = []
    for cell in group.cells:
        timing = cell.details.get("timing")
        load = timing.get("load") if isinstance(timing, Mapping) else None
        if cell.status == "ok" and isinstance(load, Mapping) and load.get("note"):
            shares.append(float(load["others_share"]))
    return max(shares) if shares else None


def load_notes(groups: Sequence[Group]) -> list[str]:
    """One line that names the cells whose times were taken under load; none where there are no such cells."""
    shares = {group.label: share for group in groups if (share := under_load(group)) is not None}
    if not shares:
        return []
    named = [f"{label} ({share:.0%})" for label, share in list(shares.items())[:_NAMES]]
    if len(shares) > _NAMES:
        named.append(f"{len(shares) - _NAMES} more")
    return [
        f"Times taken under load: {', '.join(named)}. In brackets the share of the processors that other programs had; "
        "these times may be too long."
    ]
