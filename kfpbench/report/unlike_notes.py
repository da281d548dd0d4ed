"""Metrics that were not measured alike in all cells: what differs, so that nobody reads their columns as one."""

from __future__ import annotations

from collections.abc import Sequence

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import Column
from kfpbench.report.numbers import format_number
from kfpbench.suite.cell_name import compact

_SAID_ELSEWHERE = frozenset({"n", "data", "reference"})  # in lines about the cells, not about one metric


def measured_alike(groups: Sequence[Group], metric: str) -> bool:
    """Whether all cells that have the metric may be compared in it."""
    seen = [one.matched for group in groups if metric in group.estimates for one in group.estimates[metric].cells]
    return all(matched == seen[0] for matched in seen)


def unlike_notes(groups: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    """A line for each parameter of a metric that differs between cells, the metrics together; and for batch sizes."""
    found: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        seen = [
            one.matched
            for group in groups
            if column.metric in group.estimates
            for one in group.estimates[column.metric].cells
        ]
        for name in dict.fromkeys(name for matched in seen for name in matched if name not in _SAID_ELSEWHERE):
            values = list(dict.fromkeys(compact(matched.get(name)) for matched in seen))
            if len(values) > 1:
                found.setdefault((name, ", ".join(values)), []).append(column.title)
    lines = [
        f"Measured with different {name.replace('_', ' ')} ({values}): {', '.join(titles)}. Cells that differ in it "
        "are not compared in these numbers."
        for (name, values), titles in found.items()
    ]
    return lines + _batches(groups)


def _batches(groups: Sequence[Group]) -> list[str]:
    sizes = sorted({int(size) for group in groups if (size := group.first.spec.get("batch_size"))})
    if len(sizes) < 2:
        return []
    shown = ", ".join(format_number(size, 0) for size in sizes)
    return [f"Cells were timed at different batch sizes ({shown}): their times per image are not alike."]
