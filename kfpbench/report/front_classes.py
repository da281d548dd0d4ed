"""Which groups are surely, possibly or not on the front of a quality and a speed, and whether a family adds to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import PREFERRED, SPEEDS, Column
from kfpbench.statistics.front_membership import Membership, front_membership
from kfpbench.statistics.mean_interval import CONFIDENCE
from kfpbench.statistics.observation import Observation

LEADING = ("coverage", "recall", "frechet", "energy_distance")
_MISSING = Estimate(math.nan)
_ERROR = (1 - CONFIDENCE) / 2


def front_classes(groups: Sequence[Group], speed: str, column: Column) -> dict[int, Membership]:
    """Group number -> class, for the groups with a finite positive speed and a finite quality.

    Empty when the quality has no better direction. See ``front_membership`` for the rule and its error.
    """
    if column.better == "neither":
        return {}
    shown = placed(groups, speed, column)
    made = front_membership(_objectives(groups, shown, speed, column), ("lower", column.better))
    return dict(zip(shown, made.classes, strict=True))


def leading_pair(groups: Sequence[Group], qualities: Sequence[Column]) -> tuple[str, Column] | None:
    """The speed and the quality that a summary is about: time at the stated batch where measured, diversity first."""
    order = {metric: rank for rank, metric in enumerate((*LEADING, *PREFERRED))}
    pairs = [
        (speed, column)
        for speed in SPEEDS
        for column in qualities
        if column.better != "neither" and placed(groups, speed, column)
    ]
    speeds = list(SPEEDS)
    return min(
        pairs,
        key=lambda pair: (speeds.index(pair[0]), order.get(pair[1].metric, len(order)), pair[1].metric),
        default=None,
    )


def placed(groups: Sequence[Group], speed: str, column: Column) -> list[int]:
    """The numbers of the groups that have a place in the plane of that speed and quality."""
    return [
        i
        for i, group in enumerate(groups)
        if 0 < group.estimates.get(speed, _MISSING).value < math.inf
        and math.isfinite(group.estimates.get(column.metric, _MISSING).value)
    ]


def family_class(groups: Sequence[Group], family: Sequence[int], speed: str, column: Column) -> Membership:
    """Whether a family of groups adds to the front of all the others.

    'surely': one of its cells is not dominated by any other family's cell, for any combination of values in the
    intervals; 'not': each is dominated by one, for every combination; else 'possibly'. Rivals are the other families'
    cells only, and the error of 2.5 % is shared by the family's cells (Bonferroni). The groups must have a place in
    the plane (``placed``).
    """
    others = [i for i in placed(groups, speed, column) if i not in set(family)]
    classes = set()
    for i in family:
        objectives = _objectives(groups, [*others, i], speed, column)
        made = front_membership(objectives, ("lower", column.better), error=_ERROR / len(family))
        classes.add(made.classes[-1])
    return "surely" if "surely" in classes else "possibly" if "possibly" in classes else "not"


def _objectives(
    groups: Sequence[Group], chosen: Sequence[int], speed: str, column: Column
) -> list[list[tuple[Observation, ...]]]:
    return [[groups[i].estimates[metric].cells for i in chosen] for metric in (speed, column.metric)]
