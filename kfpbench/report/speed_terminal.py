"""The times that were taken in turns, in the terminal: a table per set of compared samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kfpbench.report.speed_section import SpeedSection, build_speed
from kfpbench.report.terminal import TextColumn, fit, print_line
from kfpbench.runner.timing_record import TimingRecord

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "  "


def render_speed(record: TimingRecord, console: Console) -> None:
    """Print time per image and speed-up with its 95 % interval, by batch size; then what a reader must know.

    In a terminal the columns that do not fit are dropped and named, the larger batch sizes first.
    """
    for number, section in enumerate(build_speed(record)):
        if number:
            print_line(console, "")
        columns = _columns(section)
        dropped: list[str] = []
        if console.is_terminal:
            columns, dropped = fit(columns, console.width)
        print_line(console, f"{section.name}: times in turns ({section.summary})", "bold")
        _print(columns, len(section.rows), console)
        for line in section.warnings:
            print_line(console, line, "yellow")
        for label, reason in section.left_out:
            print_line(console, f"{label} left out: {reason}", "dim")
        if dropped:
            print_line(console, f"not shown for want of width: {', '.join(dropped)}", "dim")


def _columns(section: SpeedSection) -> list[TextColumn]:
    labels = tuple(f"{row.label} (anchor)" if row.is_anchor else row.label for row in section.rows)
    columns = [TextColumn("sampler", labels, False, 0)]
    for position, batch in enumerate(section.batches):
        times = tuple(row.times[position][0] for row in section.rows)
        speed_ups = tuple(_with_interval(row.speed_ups[position]) for row in section.rows)
        columns.append(TextColumn(f"ms/image, batch {batch}", times, True, 2 * position))
        columns.append(TextColumn(f"times as fast, batch {batch}", speed_ups, True, 2 * position))
    columns.append(TextColumn("setup s", tuple(row.setup for row in section.rows), True, 1))
    return columns


def _with_interval(entry: tuple[str, str]) -> str:
    value, interval = entry
    return f"{value} ({interval})" if interval else value


def _print(columns: Sequence[TextColumn], rows: int, console: Console) -> None:
    def line(cells: Sequence[str]) -> str:
        padded = [
            text.rjust(column.width) if column.right else text.ljust(column.width)
            for column, text in zip(columns, cells, strict=True)
        ]
        return _GAP.join(padded).rstrip()

    print_line(console, line([column.title for column in columns]), "dim")
    for row in range(rows):
        print_line(console, line([column.cells[row] for column in columns]))
