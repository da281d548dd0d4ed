"""The run as a table in the terminal: one row per cell, repeats together, as many columns as there is room
for.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfpbench.report.aggregate import Estimate, Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import Column, quality_columns
from kfpbench.report.findings import findings_as_text
from kfpbench.report.load_notes import load_notes
from kfpbench.report.naming import varying_axes
from kfpbench.report.numbers import format_number, format_plus_minus
from kfpbench.report.skipped_metrics import skipped_metrics
from kfpbench.report.spectra import spectrum_of
from kfpbench.report.statistics_lines import statistics_lines
from kfpbench.suite.cell_name import compact, short_axis

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
_MODES = 3
# The order in which a narrow terminal gives up columns: the higher rank first, rank 0 never.
_AXIS_RANK, _MODE_RANK, _QUALITY_RANK, _COST_RANKS = 1000, 500, 10, (3, 2, 1)
_SPEED = Column("seconds_per_image", "ms/image", "lower", 1e3)
_MISSING = Estimate(math.nan)


@dataclass(frozen=True)
class TextColumn:
    """A column as text; a higher ``drop`` is given up earlier, 0 never."""

    title: str
    cells: tuple[str, ...]
    right: bool
    drop: int

    @property
    def width(self) -> int:
        """Characters that the column needs."""
        return max(map(len, (self.title, *self.cells)))


def render_table(records: Iterable[Any], console: Console) -> None:
    """Print a table per data set.

    In a terminal the columns that do not fit are dropped and named: first the varying axes (rightmost first),
    but for those that tell cells of one label apart; then eigenvalues, then the quality metrics but for the
    first, then setup, NFE and ms/image. Piped output has all columns, as plain text without
    lines or colours. What the rules of ``findings`` find is told below the table, and so is a metric that cells could
    not take, with the reason. Raises StoreError for unreadable records.
    """
    by_dataset: dict[str, list[Group]] = {}
    for group in group_repeats(read_cells(records)):
        by_dataset.setdefault(group.first.dataset, []).append(group)
    for number, (name, groups) in enumerate(by_dataset.items()):
        if number:
            print_line(console, "")
        columns = _columns(groups)
        dropped: list[str] = []
        if console.is_terminal:
            columns, dropped = fit(columns, console.width)
        print_line(console, name, style="bold")
        for text, style in _lines(columns, groups):
            print_line(console, text, style=style)
        for text in findings_as_text(groups):
            print_line(console, text, style="yellow")
        for text in statistics_lines(groups):
            for line in textwrap.wrap(text, console.width, subsequent_indent="  ") if console.is_terminal else [text]:
                print_line(console, line)
        for text in load_notes(groups):
            print_line(console, text, style="yellow")
        for one in skipped_metrics(groups):
            print_line(console, f"{one.metric} left out of {one.cells}: {one.reason}", style="dim")
        if dropped:
            print_line(console, f"not shown for want of width: {', '.join(dropped)}", style="dim")


def fit(columns: Sequence[TextColumn], width: int) -> tuple[list[TextColumn], list[str]]:
    """The columns that fit into the width, and the titles of those given up, in the order of giving up."""
    kept = list(columns)
    dropped = []
    while sum(column.width + _GAP for column in kept) - _GAP > width:
        candidates = [column for column in kept if column.drop > 0]
        if not candidates:
            break
        victim = max(candidates, key=lambda column: column.drop)
        kept.remove(victim)
        dropped.append(victim.title)
    return kept, dropped


def _columns(groups: Sequence[Group]) -> list[TextColumn]:
    needed = _distinguishing_axes(groups)
    columns = [TextColumn("cell", tuple(group.label for group in groups), False, 0)]
    for position, axis in enumerate(varying_axes(groups)):
        cells = tuple(compact(group.axes[axis]) if axis in group.axes else "" for group in groups)
        rank = 0 if axis in needed else _AXIS_RANK + position
        columns.append(TextColumn(short_axis(axis), cells, False, rank))
    for position, quality in enumerate(quality_columns(groups)):
        cells = tuple(_text(group, quality) for group in groups)
        title = f"{quality.title} {quality.arrow}".strip()
        columns.append(TextColumn(title, cells, True, _QUALITY_RANK + position if position else 0))
    spectra = [spectrum_of(group) if group.first.kind == "spectrum" else None for group in groups]
    for k in range(_MODES):
        cells = tuple(s.value_text(k) if s is not None and k < len(s.values) else "" for s in spectra)
        columns.append(TextColumn(f"eigenvalue {k + 1}", cells, True, _MODE_RANK + k))
    setup, nfe, speed = _COST_RANKS
    columns += [
        TextColumn("ms/image", tuple(_text(group, _SPEED) for group in groups), True, speed),
        TextColumn("NFE", tuple(_plain(group, "nfe") for group in groups), True, nfe),
        TextColumn("setup s", tuple(_plain(group, "setup_seconds") for group in groups), True, setup),
        TextColumn("status", tuple(_status(group) for group in groups), False, 0),
    ]
    return [column for column in columns if any(column.cells)]


def _distinguishing_axes(groups: Sequence[Group]) -> set[str]:
    """Axes on which cells with one same label differ."""
    return {
        axis
        for label in {group.label for group in groups}
        for axis in varying_axes([group for group in groups if group.label == label])
    }


def _text(group: Group, column: Column) -> str:
    estimate = group.estimates.get(column.metric)
    if estimate is None:
        return ""
    return format_plus_minus(estimate.value * column.scale, estimate.half_width * column.scale)


def _plain(group: Group, metric: str) -> str:
    value = group.estimates.get(metric, _MISSING).value
    if math.isnan(value):
        return ""
    return format_number(value, 0 if value >= 100 or value.is_integer() else 1 if value >= 10 else 2)


def _status(group: Group) -> str:
    """'ok', 'ok 3 of 3', or what happened to the repeats that did not end well."""
    total = len(group.cells)
    if total == 1:
        return group.first.status
    bad = sorted({cell.status for cell in group.cells} - {"ok"})
    return ", ".join([f"ok {group.ok} of {total}", *bad]) if group.ok else f"{', '.join(bad)} {total} of {total}"


def _lines(columns: Sequence[TextColumn], groups: Sequence[Group]) -> Iterable[tuple[str, str]]:
    yield _row(columns, [column.title for column in columns]), "dim"
    for position, group in enumerate(groups):
        style = "" if group.ok == len(group.cells) else "yellow" if group.first.status == "skipped" else "red"
        yield _row(columns, [column.cells[position] for column in columns]), style


def _row(columns: Sequence[TextColumn], cells: Sequence[str]) -> str:
    padded = [
        text.rjust(column.width) if column.right else text.ljust(column.width)
        for column, text in zip(columns, cells, strict=True)
    ]
    return (" " * _GAP).join(padded).rstrip()


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line with names as they are: no markup in brackets, no highlighted numbers, no wrapping; a control
    character in one must not reach the terminal.
    """
    shown = "".join(character if character.isprintable() else "?" for character in text)
    console.print(shown, style=style or None, markup=False, highlight=False, emoji=False, soft_wrap=True)
