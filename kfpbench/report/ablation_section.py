"""The ablation of a section: what its filter offers, and the numbers of its small multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.ablation_axes import ABSENT, LABEL, SAMPLER, AblationAxis, ablation_axes
from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import Column
from kfpbench.report.naming import COLOURS, SYMBOLS, Family
from kfpbench.report.numbers import format_plus_minus

MOST_PANELS = 12
BY_METRIC = "metric"  # a panel for each metric, instead of for each level of an axis
_MISSING = Estimate(math.nan)
_LOG_RATIO = 30.0  # a positive metric that ranges over more than a decade and a half has a logarithmic scale


@dataclass(frozen=True)
class Start:
    """What the small multiples show at first: axes by number, None for none; ``panels`` may be ``BY_METRIC``."""

    metric: str
    along: int
    panels: int | str | None
    colours: int | None


@dataclass(frozen=True)
class AblationSection:
    """``axes`` for the filter; ``legends`` per axis, of those that may be colours; ``as_payload`` for the page."""

    key: str
    axes: tuple[AblationAxis, ...]
    counts: tuple[tuple[int, ...], ...]
    metrics: dict[str, str]
    legends: dict[int, tuple[Family, ...]]
    start: Start
    as_payload: dict[str, Any]


def build_ablation(
    key: str, groups: Sequence[Group], columns: Sequence[Column], leading: str | None
) -> AblationSection | None:
    """The ablation of a section's groups; ``leading`` is the metric to begin with. None where no axis varies."""
    axes = ablation_axes(groups)
    shown = [column for column in columns if _finite(groups, column)]
    if not axes or not shown:
        return None
    metric = leading if leading in {column.metric for column in shown} else shown[0].metric
    start = choose_start(axes, str(metric), len(shown))
    legends = {number: _legend(axis) for number, axis in enumerate(axes)}
    return AblationSection(
        key=key,
        axes=tuple(axes),
        counts=tuple(tuple(axis.level_of.count(level) for level in range(len(axis.levels))) for axis in axes),
        metrics={column.metric: f"{column.title} {column.arrow}".strip() for column in shown},
        legends=legends,
        start=start,
        as_payload={
            "axes": [
                {
                    "name": axis.name,
                    "title": axis.title,
                    "levels": axis.levels,
                    "numbers": axis.numbers,
                }
                for axis in axes
            ],
            "cells": [group.first.ident for group in groups],
            "levels": [[axis.level_of[i] for axis in axes] for i in range(len(groups))],
            "labels": [group.label for group in groups],
            "metrics": {column.metric: _metric(groups, column) for column in shown},
            "markers": [[COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]] for i in range(_most_levels(axes))],
        },
    )


def choose_start(axes: Sequence[AblationAxis], metric: str, metrics: int) -> Start:
    """Along: the numeric axis of the grid with the most levels, else its longest. Panels and colours: the next axes.

    Where the axes of the grid leave more than half of the cells untold, the cells themselves are the axis; then each
    metric has a panel, as it has where one axis is left.
    """
    order = sorted(range(len(axes)), key=lambda i: (axes[i].numbers is None, -len(axes[i].levels)))
    grid = [i for i in order if axes[i].name not in (LABEL, SAMPLER)]
    cells = len(axes[0].level_of)
    told = len(set(zip(*(axes[i].level_of for i in grid), strict=True))) if grid else 0
    names = [i for i in order if axes[i].name == LABEL] or [i for i in order if axes[i].name == SAMPLER]
    if names and 2 * told < cells:
        colours = next((i for i in order if i != names[0] and len(axes[i].levels) <= len(COLOURS)), None)
        return Start(metric, names[0], BY_METRIC if metrics > 1 else None, colours)
    usable = [i for i in order if axes[i].name != LABEL]
    along, *rest = usable
    rest = [i for i in rest if not _tells_one_of(axes[i], axes[along])]
    colours = next((i for i in rest if len(axes[i].levels) <= len(COLOURS)), None)
    panels: int | str | None = next((i for i in rest if i != colours and len(axes[i].levels) <= MOST_PANELS), None)
    if panels is None:
        panels = BY_METRIC if metrics > 1 else None
    return Start(metric, along, panels, colours)


def wants_log(values: Sequence[float], better: str) -> bool:
    """Whether positive values that are better when lower range over more than a decade and a half."""
    return better == "lower" and bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RATIO


def _tells_one_of(axis: AblationAxis, other: AblationAxis) -> bool:
    """Whether the level of ``other`` decides that of ``axis``: a second look at one same thing."""
    return len(set(zip(axis.level_of, other.level_of, strict=True))) == len(other.levels)


def _legend(axis: AblationAxis) -> tuple[Family, ...]:
    return tuple(
        Family(
            f"{level} (does not apply)" if level == ABSENT else level,
            COLOURS[i % len(COLOURS)],
            SYMBOLS[i % len(SYMBOLS)],
        )
        for i, level in enumerate(axis.levels)
    )


def _most_levels(axes: Sequence[AblationAxis]) -> int:
    return max(len(axis.levels) for axis in axes)


def _finite(groups: Sequence[Group], column: Column) -> list[float]:
    values = [group.estimates.get(column.metric, _MISSING).value for group in groups]
    return [value * column.scale for value in values if math.isfinite(value)]


def _metric(groups: Sequence[Group], column: Column) -> Mapping[str, Any]:
    """Title, direction, scale, and for every group [value, low, high, text], None where it has no finite value."""
    rows: list[list[Any] | None] = []
    for group in groups:
        one = group.estimates.get(column.metric, _MISSING)
        if not math.isfinite(one.value):
            rows.append(None)
            continue
        low, high = one.bounds
        text = format_plus_minus(one.value * column.scale, one.half_width * column.scale)
        rows.append([one.value * column.scale, low * column.scale, high * column.scale, text])
    return {
        "title": column.title,
        "advice": column.advice,
        "log": wants_log(_finite(groups, column), column.better),
        "rows": rows,
    }
