"""What the numbers of one set of samples say in words: copies, blends, missing modes, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.findings import findings


def findings_of(measurements: Sequence[dict[str, Any]], name: str, dataset: str) -> list[dict[str, Any]]:
    """The findings that a report would make of a cell with these measurements, as plain values.

    Of a metric that was measured in several features the first one counts. Each finding has kind, title, meaning and
    ``evidence``: metric, value, low, high, side, level, meaning and all of it as ``text``.
    """
    first: dict[str, dict[str, Any]] = {}
    for entry in measurements:
        first.setdefault(entry["metric"], entry)
    cell = {
        "cell": "samples",
        "label": name,
        "kind": "sample",
        "status": "ok",
        "spec": {"data": {"name": dataset}},
        "measurements": list(first.values()),
    }
    return [
        {
            "kind": one.kind,
            "title": one.title,
            "meaning": one.meaning,
            "evidence": [{**asdict(item), "text": item.text} for item in one.evidence],
        }
        for one in findings(group_repeats(read_cells([cell])))
    ]
