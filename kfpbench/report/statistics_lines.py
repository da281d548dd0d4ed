"""The comparisons of a data set as lines for the terminal: who is on the front, and what the axes change."""

from __future__ import annotations

from collections.abc import Sequence

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import SPEEDS, Column, quality_columns, title_of
from kfpbench.report.effects_section import build_effects
from kfpbench.report.front_classes import front_classes, leading_pair
from kfpbench.report.naming import with_own_labels

_NAMES = 6  # in one line


def statistics_lines(groups: Sequence[Group]) -> list[str]:
    """The front's members by class for the leading pair of quality and speed, then the effects that are told from none.

    Every claim is one of ``front_membership`` and ``main_effects``; what cannot be told is counted.
    """
    groups = with_own_labels([group for group in groups if group.ok and group.first.kind == "sample"])
    qualities = quality_columns(groups)
    pair = leading_pair(groups, qualities)
    lines = _front_lines(groups, *pair) if pair and len(groups) > 1 else []
    effects = build_effects(groups, qualities)
    if effects:
        told = 0
        for row in effects.rows:
            for column, entry in zip(effects.columns, row.entries, strict=True):
                if entry.verdict in ("better", "worse", "higher", "lower"):
                    told += 1
                    lines.append(
                        f"{row.axis} {row.level}: {column.title} {entry.text} ({entry.interval}), {entry.verdict}, "
                        f"{row.pairs} pair{'' if row.pairs == '1' else 's'}"
                    )
        open_ones = sum(bool(entry.verdict) for row in effects.rows for entry in row.entries) - told
        if open_ones:
            lines.append(f"{open_ones} effects of axes cannot be told apart from none (95 %, Holm per metric)")
    return lines


def _front_lines(groups: Sequence[Group], speed: str, column: Column) -> list[str]:
    classes = front_classes(groups, speed, column)
    order = sorted(classes, key=lambda i: groups[i].estimates[speed].value)
    lines = []
    for which, words in (("surely", "surely on the front of"), ("possibly", "possibly on the front of")):
        names = [groups[i].label for i in order if classes[i] == which]
        if names:
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            what = f"{title_of(column.metric)} and {SPEEDS[speed]}"
            lines.append(f"{words} {what}: {'; '.join(names[:_NAMES])}{more}")
    return lines
