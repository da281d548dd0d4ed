"""What the report says of a data set before its numbers: how its cells were measured, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import COST_METRICS
from kfpbench.report.load_notes import load_notes
from kfpbench.report.numbers import format_number


def summary_line(groups: Sequence[Group]) -> str:
    """n, reference set, score, process and batch size of the cells, in one line."""
    parts = []
    sizes, references = _sizes(groups), _references(groups)
    if sizes:
        parts.append("n = " + ", ".join(format_number(size, 0) for size in sizes))
    if references:
        parts.append("reference set: " + ", ".join(references))
    for part in ("score", "process"):
        names = sorted({str(_name(group.first.spec.get(part))) for group in groups} - {"None"})
        if names:
            parts.append(f"{part}: " + ", ".join(names))
    batches = sorted({int(size) for group in groups if (size := group.first.spec.get("batch_size"))})
    if batches:
        parts.append("batch " + ", ".join(format_number(size, 0) for size in batches))
    return " · ".join(parts)


def warning_lines(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before comparing two rows; a line each."""
    lines = []
    sizes, references = _sizes(groups), _references(groups)
    if len(sizes) > 1:
        lines.append(
            f"Cells were measured with different n ({', '.join(format_number(size, 0) for size in sizes)}): "
            "their distances are not comparable."
        )
    if len(references) > 1:
        lines.append(f"Cells were compared with different reference sets ({', '.join(references)}).")
    elif references == ["validation"]:
        lines.append("Measured against the validation split: numbers for tuning, not for publication.")
    for part in ("device", "dtype"):
        values = sorted({str(group.first.spec[part]) for group in groups if group.first.spec.get(part)})
        if len(values) > 1:
            lines.append(f"Cells differ in {part} ({', '.join(values)}): their times are not comparable.")
    return lines + load_notes(groups) + _small_reference(groups) + _tuned_on_test(groups, references)


def _small_reference(groups: Sequence[Group]) -> list[str]:
    """A line when the reference set has fewer rows than there are samples."""
    asked = max(_sizes(groups), default=0)
    used = {estimate.n for group in groups for name, estimate in group.estimates.items() if name not in COST_METRICS}
    fewest = min((n for n in used if n), default=asked)
    if fewest >= asked:
        return []
    return [f"Metrics are at n = {fewest:,}, not {asked:,}: the reference set has no more rows."]


def _tuned_on_test(groups: Sequence[Group], references: Sequence[str]) -> list[str]:
    """A line when a sampler's parameters were swept against the test rows."""
    swept: dict[str, set[str]] = {}
    for group in groups:
        for path, value in group.axes.items():
            if path.startswith("samplers."):
                swept.setdefault(path, set()).add(str(value))
    varied = sorted(path for path, values in swept.items() if len(values) > 1)
    if not varied or list(references) != ["test"]:
        return []
    return [
        f"Swept against the test rows: {', '.join(varied)}. Choose settings with data.reference: validation, and "
        "report the chosen ones on the test rows."
    ]


def _sizes(groups: Sequence[Group]) -> list[int]:
    return sorted({int(size) for group in groups if (size := group.first.spec.get("n_samples"))})


def _references(groups: Sequence[Group]) -> list[str]:
    return sorted({group.first.reference for group in groups} - {""})


def _name(component: Any) -> Any:
    return component.get("name") if isinstance(component, Mapping) else component
