"""The measurements of samples in the terminal: each beside its interval and the floor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kfpbench.report.columns import title_of
from kfpbench.report.numbers import format_interval, format_value
from kfpbench.report.terminal import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from kfpbench.scoring.score_samples import ScoreResult

_HEADS = ("metric", "value", "95 % interval", "floor", "its interval", "better", "features", "n", "unit")
_RIGHT = ("value", "95 % interval", "floor", "its interval", "n")
_GAP = "  "


def render_score(result: ScoreResult, console: Console) -> None:
    """Print the findings, what was compared, the table, and what was left out with its reason."""
    rows, data = result.rows, result.data
    for finding in result.findings:
        print_line(console, f"{finding['title'].upper()}: {finding['meaning']}", style="bold red")
        for evidence in finding["evidence"]:
            print_line(console, f"  {evidence['text']} ({evidence['meaning']})", style="red")
    print_line(console, f"{result.samples['name']}: {'; '.join(result.samples['read_as'])}", style="dim")
    n = rows["n"]
    print_line(
        console,
        f"{n:,} samples against {n:,} rows of {data['reference']}, {data['train_rows']:,} training rows, "
        f"seed {rows['seed']}",
        style="bold",
    )
    if rows["floor"] is not None:
        print_line(console, f"floor: {rows['floor']}", style="dim")
    for note in (*result.notes, *data["notes"]):
        print_line(console, f"note: {note}", style="yellow")
    lines = _table(result.measurements)
    print_line(console, lines[0], style="dim")
    for line in lines[1:]:
        print_line(console, line)
    for metric, reason in result.skipped_metrics.items():
        print_line(console, f"{metric} left out: {reason}", style="dim")


def _table(measurements: list[dict[str, Any]]) -> list[str]:
    cells = [_cells(entry) for entry in measurements]
    kept = [column for column in range(len(_HEADS)) if any(row[column] for row in cells)]
    widths = {column: max(len(_HEADS[column]), *(len(row[column]) for row in cells)) for column in kept}

    def line(row: tuple[str, ...]) -> str:
        padded = [
            row[column].rjust(widths[column]) if _HEADS[column] in _RIGHT else row[column].ljust(widths[column])
            for column in kept
        ]
        return _GAP.join(padded).rstrip()

    return [line(_HEADS), *(line(row) for row in cells)]


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        title_of(entry["metric"]),
        *_number(entry),
        *(_number(entry["floor"]) if entry["floor"] is not None else ("", "")),
        {"lower": "lower", "higher": "higher"}.get(entry["better"], "as the floor"),
        entry["features"],
        str(entry["n"]) if entry["n"] is not None else "",
        entry["unit"],
    )


def _number(entry: dict[str, Any]) -> tuple[str, str]:
    low, high = entry["ci_low"], entry["ci_high"]
    if low is None or high is None:
        return format_value(entry["value"]), ""
    half_width = (high - low) / 2
    return format_value(entry["value"], half_width if half_width > 0 else math.nan), format_interval(low, high)
