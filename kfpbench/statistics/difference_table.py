"""All cells of a run against one of them: a table of paired differences, as values and as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.errors import ParameterError
from kfpbench.statistics.observation import by_repeats, numbers_repeats, part
from kfpbench.statistics.paired_difference import Difference, paired_difference
from kfpbench.suite.cell_name import own_names

CANNOT = "cannot be told apart"


@dataclass(frozen=True)
class Comparison:
    """One metric of one cell against the anchor. ``difference`` is None where they cannot be compared: see ``why``."""

    label: str
    metric: str
    better: str
    value: float
    anchor: float
    difference: Difference | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """``verdict_of`` the difference; '' where there is none."""
        return "" if self.difference is None else verdict_of(self.difference, self.better)


def verdict_of(difference: Difference, better: str) -> str:
    """What a difference cell - anchor says: 'better' or 'worse', 'higher' or 'lower' where no direction is better,
    'cannot be told apart' where the interval holds 0, '' where there is none.
    """
    if not math.isfinite(difference.low):
        return ""
    if not difference.told_apart:
        return CANNOT
    higher = difference.low > 0
    if better == "neither":
        return "higher" if higher else "lower"
    return "better" if higher == (better == "higher") else "worse"


def compare_cells(records: Iterable[Any], against: str, metrics: Sequence[str] | None = None) -> list[Comparison]:
    """Every cell that ended well against the one whose cell id or label is ``against``, repeats together.

    ``metrics``: names, all of the anchor's that have an interval when None. Intervals are 95 % each, not corrected for
    their number. Cells of another data set or n are listed with the reason why they are not compared. Raises
    ParameterError when no cell, or more than one, is called ``against``.
    """
    groups = by_repeats(records)
    labels = unique_labels(groups)
    chosen = [i for i, group in enumerate(groups) if against in {labels[i], *(part(one, "cell") for one in group)}]
    if not chosen:
        chosen = [i for i, group in enumerate(groups) if part(group[0], "label") == against]
    if len(chosen) != 1:
        what = "no cell has that id or label" if not chosen else "several cells have that label: use the id of one"
        raise ParameterError(what, got=against, allowed="; ".join(labels))
    anchor = groups[chosen[0]]
    entries = part(anchor[0], "measurements") or ()
    names = metrics or [part(entry, "metric") for entry in entries if part(entry, "ci_low") is not None]
    return [
        _compare(label, group, anchor, metric)
        for metric in names
        for label, group in zip(labels, groups, strict=True)
        if group is not anchor and metric in _means(group)
    ]


def print_differences(records: Iterable[Any], against: str, metrics: Sequence[str] | None = None) -> None:
    """Print ``compare_cells`` as a plain table, a row per cell and metric: ours, anchor's, difference, interval,
    verdict.
    """
    for line in difference_lines(compare_cells(records, against, metrics), against):
        print(line)


def difference_lines(comparisons: Sequence[Comparison], against: str) -> list[str]:
    """The table as lines of text; the last says how many comparisons it holds."""
    rows = [("metric", "cell", "value", against, "difference", "95 % interval", "verdict", "how")]
    for one in comparisons:
        made = one.difference
        numbers = (f"{one.value:.6g}", f"{one.anchor:.6g}")
        if made is None:
            rows.append((one.metric, one.label, *numbers, "", "", "not compared", one.why))
        else:
            ends = f"{made.low:+.4g} to {made.high:+.4g}" if math.isfinite(made.low) else ""
            rows.append((one.metric, one.label, *numbers, f"{made.value:+.4g}", ends, one.verdict, made.how))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    compared = sum(bool(one.verdict) for one in comparisons)
    return [*lines, f"{compared} comparisons at 95 % each, not corrected for their number."]


def unique_labels(groups: Sequence[Sequence[Any]]) -> list[str]:
    """A name per group; where several share a label, with the axes on which they differ: 'heun (steps 9)'."""
    labels = [str(part(group[0], "label") or part(group[0], "cell")) for group in groups]
    axes = [part(group[0], "axes") or {} for group in groups]
    return own_names(labels, [{key: own[key] for key in own if not numbers_repeats(key)} for own in axes])


def _compare(label: str, group: Sequence[Any], anchor: Sequence[Any], metric: str) -> Comparison:
    ours, theirs = _means(group)[metric], _means(anchor)[metric]
    better = next(part(entry, "better") for entry in part(group[0], "measurements") if part(entry, "metric") == metric)
    try:
        made = paired_difference(group, anchor, metric)
    except ParameterError as error:
        return Comparison(label, metric, str(better), ours, theirs, None, error.what)
    return Comparison(label, metric, str(better), ours, theirs, made)


def _means(group: Sequence[Any]) -> dict[str, float]:
    """The mean over the repeats of every metric that all of them have."""
    per_repeat = [
        {part(entry, "metric"): part(entry, "value") for entry in part(one, "measurements") or ()} for one in group
    ]
    common = [metric for metric in per_repeat[0] if all(metric in one for one in per_repeat)]
    return {
        metric: math.fsum(math.nan if one[metric] is None else one[metric] for one in per_repeat) / len(per_repeat)
        for metric in common
    }
