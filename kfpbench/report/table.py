"""The table of a data set: a row per cell, a column per metric, a mark on what may be the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kfpbench.report.aggregate import Estimate, Group, best_set
from kfpbench.report.columns import Column
from kfpbench.report.load_notes import MARK, TIMED, under_load
from kfpbench.report.numbers import format_interval, format_value
from kfpbench.report.skipped_metrics import why_blank


@dataclass(frozen=True)
class Entry:
    """One number as text; ``mark`` is 'best' (told apart from all others), 'tied' (with the best) or ''."""

    text: str
    interval: str = ""
    sort: float | None = None
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One cell, aggregated over its repeats; ``cell`` is the identity of the first."""

    label: str
    repeats: str
    family: int
    entries: tuple[Entry, ...]
    cell: str = ""


def build_rows(groups: Sequence[Group], columns: Sequence[Column], family_of: Sequence[int]) -> list[Row]:
    """Rows in the order of the groups; the best set of each column is marked."""
    columns_of_entries = [_column_entries(groups, column) for column in columns]
    return [
        Row(
            label=group.label,
            repeats=repeats_text(group),
            family=family_of[i],
            entries=tuple(entries[i] for entries in columns_of_entries),
            cell=group.first.ident,
        )
        for i, group in enumerate(groups)
    ]


def repeats_text(group: Group) -> str:
    """'3 repeats', '2 of 3 repeats', '' for a single good cell."""
    if len(group.cells) == 1:
        return "" if group.ok else group.first.status
    return (
        f"{len(group.cells)} repeats" if group.ok == len(group.cells) else f"{group.ok} of {len(group.cells)} repeats"
    )


def _column_entries(groups: Sequence[Group], column: Column) -> list[Entry]:
    present = {i: group.estimates[column.metric] for i, group in enumerate(groups) if column.metric in group.estimates}
    comparable = sum(math.isfinite(estimate.value) for estimate in present.values()) > 1
    best = best_set(present, column.better if comparable else "neither")
    entries = []
    for i, group in enumerate(groups):
        if i not in present:
            entries.append(Entry("", note=why_blank(group, column.metric)))
            continue
        mark = ("best" if best.alone else "tied") if i in best.members else ""
        note = MARK if column.metric in TIMED and under_load(group) is not None else ""
        entries.append(_entry(present[i], column.scale, mark, note))
    return entries


def _entry(estimate: Estimate, scale: float, mark: str, note: str) -> Entry:
    value, low, high = estimate.value * scale, estimate.low * scale, estimate.high * scale
    if estimate.excluded:
        total = estimate.repeats + estimate.excluded
        note = f"{estimate.excluded} of {total} repeats not finite"
    return Entry(
        text=format_value(value, estimate.half_width * scale),
        interval=format_interval(low, high),
        sort=value if math.isfinite(value) else None,
        mark=mark,
        note=note,
    )
