"""What every axis of the ablation changes, averaged over the cells that match otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import Column
from kfpbench.report.comparison_section import TIMES, DifferenceEntry, as_plain, difference_entry, name_of, observed
from kfpbench.statistics.difference_table import CANNOT, verdict_of
from kfpbench.statistics.main_effects import Effect, main_effects
from kfpbench.suite.cell_name import compact, short_axis

_TIME = TIMES["seconds_per_image"]


@dataclass(frozen=True)
class EffectRow:
    """One level of an axis against its base: '16 instead of 8'."""

    axis: str
    level: str
    pairs: str
    entries: tuple[DifferenceEntry, ...]


@dataclass(frozen=True)
class EffectsSection:
    """A column per metric; times are ratios."""

    columns: tuple[Column, ...]
    rows: tuple[EffectRow, ...]
    count: int
    unmatched: int
    as_json: list[dict[str, Any]]


def build_effects(groups: Sequence[Group], columns: Sequence[Column]) -> EffectsSection | None:
    """The effects on every quality column, and on the time per image as a factor; None without matched cells."""
    axes, blocks = [group.axes for group in groups], [group.first.label for group in groups]
    found: dict[str, dict[tuple[Any, ...], Effect]] = {}
    for column in (*columns, _TIME):
        made = main_effects(axes, blocks, [observed(group, column.metric) for group in groups])
        if any(math.isfinite(effect.difference.low) for effect in made):
            found[column.metric] = {_key(effect): effect for effect in made}
    shown = tuple(column for column in (*columns, _TIME) if column.metric in found)
    keys = dict.fromkeys(key for made in found.values() for key in made)
    if not keys:
        return None
    rows, as_json = [], []
    for key in keys:
        per_metric = {metric: made[key] for metric, made in found.items() if key in made}
        first = next(iter(per_metric.values()))
        rows.append(
            EffectRow(
                axis=", ".join(map(short_axis, first.axes)),
                level=f"{_level(first.level)} instead of {_level(first.base)}",
                pairs=_range([effect.pairs for effect in per_metric.values()]),
                entries=tuple(_entry(per_metric.get(column.metric), column) for column in shown),
            )
        )
        as_json += [_plain(effect, column) for column in shown if (effect := per_metric.get(column.metric))]
    effects = [effect for made in found.values() for effect in made.values()]
    return EffectsSection(
        columns=shown,
        rows=tuple(rows),
        count=max(len(made) for made in found.values()),
        unmatched=max(effect.unmatched for effect in effects),
        as_json=as_json,
    )


def effect_verdict(effect: Effect, better: str) -> str:
    """'better', 'worse', 'higher', 'lower', 'cannot be told apart' (Holm's p included), '' without an interval."""
    verdict = verdict_of(effect.difference, better)
    return CANNOT if verdict and not effect.is_told else verdict


def _entry(effect: Effect | None, column: Column) -> DifferenceEntry:
    if effect is None:
        return DifferenceEntry(note="not measured")
    return difference_entry(effect.difference, column, effect_verdict(effect, column.better))


def _plain(effect: Effect, column: Column) -> dict[str, Any]:
    p = effect.adjusted_p
    return {
        "axes": list(effect.axes),
        "level": list(effect.level),
        "base": list(effect.base),
        "metric": name_of(column),
        **as_plain(effect.difference, column.better),
        "verdict": effect_verdict(effect, column.better),
        "holm_p": None if math.isnan(p) else p,
        "pairs": effect.pairs,
        "unmatched": effect.unmatched,
        "refused": effect.refused,
    }


def _key(effect: Effect) -> tuple[Any, ...]:
    return (effect.axes, repr(effect.level), repr(effect.base))


def _level(values: tuple[Any, ...]) -> str:
    return ", ".join(map(compact, values))


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
