"""The tables of `kfpbench study best|front|importance`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfpbench.errors import StoreError
from kfpbench.report.load_notes import MARK
from kfpbench.report.numbers import format_plus_minus, format_value
from kfpbench.store.json_values import dumps
from kfpbench.study.definition import Definition
from kfpbench.study.opened import Opened
from kfpbench.study.results import LEAST_RESULTS, Row, best_rows, front_of, importances
from kfpbench.suite.cell_name import axes_text, short_axis


def show_best(opened: Opened, as_json: bool) -> str:
    """The best trial in each objective, and the compromise. Raises StoreError where no trial has a result."""
    found = best_rows(opened.study, opened.definition)
    if not found:
        raise _no_result(opened)
    if as_json:
        return dumps({name: row.as_plain() for name, row in found.items()}, indent=2)
    lines = []
    for name, row in found.items():
        heading = "compromise" if name == "compromise" else f"best {name}"
        lines += [
            f"{heading}: trial {row.number}",
            f"  {_numbers(row, opened.definition)}",
            f"  {axes_text(row.settings)}",
        ]
    return "\n".join(lines)


def show_front(opened: Opened, as_json: bool) -> str:
    """The trials on the front, one a line. Raises StoreError where no trial has a result."""
    rows = front_of(opened.study, opened.definition)
    if not rows:
        raise _no_result(opened)
    if as_json:
        return dumps([row.as_plain() for row in rows], indent=2)
    lines = [f"trial {row.number}: {_numbers(row, opened.definition)}  ({axes_text(row.settings)})" for row in rows]
    return "\n".join([f"{len(rows)} trials on the front:", *lines])


def show_importance(opened: Opened, as_json: bool) -> str:
    """A line for each parameter, a column for each objective. Raises StoreError for fewer than 20 results."""
    found = importances(opened.study, opened.definition)
    if not found:
        raise StoreError(
            f"fewer than {LEAST_RESULTS} trials have a result, from which no importance can be told",
            remedy="Raise `study.budget.trials`, and run the study again: it goes on.",
        )
    if as_json:
        return dumps(found, indent=2)
    return "\n".join(importance_lines(found))


def importance_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The parameter that matters most first; shares in per cent."""
    metrics = list(found)
    paths = sorted(found[metrics[0]], key=lambda path: -max(found[metric][path] for metric in metrics))
    table = [["parameter", *metrics]]
    table += [[path, *(f"{100 * found[metric][path]:.0f} %" for metric in metrics)] for path in paths]
    return _aligned(table)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or as much of its end as tells them apart."""
    names = {path: short_axis(path) for path in paths}
    return {path: name if list(names.values()).count(name) == 1 else path for path, name in names.items()}


def number_text(row: Row, k: int) -> str:
    """An objective of a trial with half of its interval's length, where it has one."""
    if row.values is None:
        return ""
    value = row.values[k]
    if row.low is None or row.high is None or not row.high[k] > row.low[k]:
        return format_value(value)
    return format_plus_minus(value, (row.high[k] - row.low[k]) / 2)


def _numbers(row: Row, definition: Definition) -> str:
    return ", ".join(
        f"{one.metric} {number_text(row, k)}" + (f" ({MARK})" if one.metric in row.under_load else "")
        for k, one in enumerate(definition.objectives)
    )


def _aligned(table: list[list[Any]]) -> list[str]:
    widths = [max(len(str(line[k])) for line in table) for k in range(len(table[0]))]
    return [
        "  ".join(str(cell).ljust(width) if k == 0 else str(cell).rjust(width) for k, (cell, width) in enumerate(pairs))
        for pairs in ([*zip(line, widths, strict=True)] for line in table)
    ]


def _no_result(opened: Opened) -> StoreError:
    return StoreError(
        "no trial of the study has a result that keeps the constraints",
        got=opened.definition.name,
        remedy="`kfpbench study report` lists the trials with their reasons.",
    )
