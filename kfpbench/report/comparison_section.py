"""Every cell against one anchor: differences in pairs, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kfpbench.errors import ParameterError
from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import Column, title_of
from kfpbench.report.numbers import format_interval, format_value
from kfpbench.statistics.difference_table import verdict_of
from kfpbench.statistics.observation import Observation
from kfpbench.statistics.paired_difference import Difference, paired_difference

FEW_STEPS = 50  # score evaluations per image
# Times are compared by their ratio: a difference in seconds says little where they range over decades.
TIMES = {
    "seconds_per_image": Column("seconds_per_image", "time / image, factor", "lower"),
    "seconds_per_image_batch1": Column("seconds_per_image_batch1", "time / image, factor, batch 1", "lower"),
}
_MISSING = Estimate(math.nan)


@dataclass(frozen=True)
class DifferenceEntry:
    """A difference as text; ``verdict`` is 'better', 'worse', 'higher', 'lower', 'cannot be told apart' or ''."""

    text: str = ""
    interval: str = ""
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True)
class ComparisonRow:
    """One cell against the anchor."""

    label: str
    family: int
    entries: tuple[DifferenceEntry, ...]
    cell: str


@dataclass(frozen=True)
class ComparisonSection:
    """``anchor`` is a label, ``why`` says how it was chosen, ``hows`` how intervals were made, with their counts."""

    anchor: str
    why: str
    columns: tuple[Column, ...]
    rows: tuple[ComparisonRow, ...]
    hows: tuple[str, ...]
    count: int
    as_json: dict[str, Any]


def choose_anchor(groups: Sequence[Group], column: Column) -> tuple[int, str] | None:
    """The number of the cell that others are compared with, and the rule that chose it.

    The best few-step baseline: of the cells whose setup evaluates no score and that take 1 to 50 evaluations per image,
    the best in ``column``; without one, the best of all cells. None when no cell has a value or there is no direction.
    """
    values = {i: group.estimates.get(column.metric, _MISSING).value for i, group in enumerate(groups)}
    finite = [i for i, value in values.items() if math.isfinite(value)]
    if not finite or column.better == "neither":
        return None
    few = [i for i in finite if _is_few_step(groups[i])]
    best = (min if column.better == "lower" else max)(few or finite, key=lambda i: values[i])
    rule = f"the best few-step baseline (1 to {FEW_STEPS} evaluations per image, none in the setup)"
    what = rule if few else "the best cell"
    return best, f"{what} in {title_of(column.metric)}"


def build_comparison(
    groups: Sequence[Group], anchor: int, why: str, columns: Sequence[Column], family_of: Sequence[int]
) -> ComparisonSection | None:
    """Differences cell - anchor in every column in which some pair has an interval; None without one."""
    others = [i for i in range(len(groups)) if i != anchor]
    found = []
    for column in (TIMES.get(column.metric, column) for column in columns):
        made = [_difference(group, groups[anchor], column.metric) for group in groups]
        if any(_has_interval(made[i]) for i in others):
            found.append((column, made))
    if not found:
        return None
    told = [made[i] for _, made in found for i in others if isinstance(made[i], Difference) and _has_interval(made[i])]
    hows = [one.how for one in told if isinstance(one, Difference)]
    return ComparisonSection(
        anchor=groups[anchor].label,
        why=why,
        columns=tuple(column for column, _ in found),
        rows=tuple(
            ComparisonRow(
                groups[i].label,
                family_of[i],
                tuple(_entry(made[i], column) for column, made in found),
                groups[i].first.ident,
            )
            for i in others
        ),
        hows=tuple(f"{how}: {hows.count(how)}" for how in dict.fromkeys(hows)),
        count=len(told),
        as_json={
            "anchor": groups[anchor].label,
            "why": why,
            "differences": [
                {"cell": groups[i].label, "metric": name_of(column), **as_plain(made[i], column.better)}
                for column, made in found
                for i in others
            ],
        },
    )


def as_plain(made: Difference | str, better: str) -> dict[str, Any]:
    """A difference for JSON: null for what is not there, ``verdict`` in words, ``why`` where nothing is compared."""
    if isinstance(made, str):
        return {"value": None, "low": None, "high": None, "verdict": "", "why": made}
    kept = {name: value for name, value in asdict(made).items() if name in ("value", "low", "high", "how", "repeats")}
    plain = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in kept.items()}
    return {**plain, "verdict": verdict_of(made, better)}


def name_of(column: Column) -> str:
    """What a difference in the column is of: the metric, or the logarithm of a time."""
    return f"log {column.metric}" if column.metric in TIMES else column.metric


def signed(value: float, half_width: float) -> str:
    """The value with its sign, with the digits that its interval supports."""
    text = format_value(value, half_width)
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("\N{MINUS SIGN}")
    return f"+{text}" if value > 0 else text


def observed(group: Group, metric: str) -> list[Observation]:
    """The finite repeats of a metric, times as their logarithms: differences of those are factors."""
    estimate = group.estimates.get(metric)
    repeats = estimate.observations if estimate else ()
    return [_logarithm(one) for one in repeats if one.value > 0] if metric in TIMES else list(repeats)


def difference_entry(made: Difference, column: Column, verdict: str) -> DifferenceEntry:
    """The difference as text: with its sign in the column's unit, or as a factor for times."""
    if column.metric in TIMES:
        value, low, high = (math.exp(end) for end in (made.value, made.low, made.high))
        # at least one digit however wide the interval: a factor is never 0
        factor = f"\N{MULTIPLICATION SIGN} {format_value(value, min((high - low) / 2, value))}"
        return DifferenceEntry(factor, format_interval(low, high), verdict)
    value, low, high = made.value * column.scale, made.low * column.scale, made.high * column.scale
    return DifferenceEntry(signed(value, (high - low) / 2), format_interval(low, high), verdict)


def _logarithm(one: Observation) -> Observation:
    low, high = (math.log(end) if end > 0 else math.nan for end in (one.low, one.high))
    return replace(one, value=math.log(one.value), low=low, high=high, replicates=(), fraction=False)


def _difference(group: Group, anchor: Group, metric: str) -> Difference | str:
    """The difference, or why there is none."""
    ours, theirs = observed(group, metric), observed(anchor, metric)
    if not ours or not theirs:
        return "not measured"
    try:
        return paired_difference(ours, theirs, metric)
    except ParameterError as error:
        return error.what


def _entry(made: Difference | str, column: Column) -> DifferenceEntry:
    if isinstance(made, str):
        return DifferenceEntry(note=made)
    return difference_entry(made, column, verdict_of(made, column.better))


def _has_interval(made: Difference | str) -> bool:
    return isinstance(made, Difference) and math.isfinite(made.low)


def _is_few_step(group: Group) -> bool:
    evaluations = group.estimates.get("nfe", _MISSING).value
    setup = group.estimates.get("setup_nfe", _MISSING).value
    return 1 <= evaluations <= FEW_STEPS and not setup > 0
