"""The table of who is on the front, metric by metric, and what every family adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import SPEEDS, Column, title_of
from kfpbench.report.front_classes import family_class, placed
from kfpbench.report.naming import Family
from kfpbench.report.numbers import format_number
from kfpbench.report.scatter import Scatter
from kfpbench.report.unlike_notes import measured_alike
from kfpbench.statistics.front_membership import Membership
from kfpbench.statistics.hypervolume import Volume, frame_of, front_volume

_VERDICTS = {"surely": "surely adds", "possibly": "cannot be told from adding nothing", "not": "surely adds nothing"}
_MANY = 40  # more cells than this, and those on no front have no row


@dataclass(frozen=True)
class ClassRow:
    """One cell: its family, and its class per metric ('' where it has no place in that figure)."""

    label: str
    family: int
    classes: tuple[str, ...]
    cell: str


@dataclass(frozen=True)
class VolumeRow:
    """One family: the share of the box that it dominates alone, and what it adds to all the others."""

    family: int
    alone: tuple[str, str]
    added: tuple[str, str]
    verdict: str


@dataclass(frozen=True)
class FrontSection:
    """``columns`` are titles; ``speed`` in words. ``volumes`` is empty for one family, when there is no box, and where
    the metric was not measured alike in all cells.
    """

    speed: str
    columns: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    left_out: int
    volume_of: str
    volumes: tuple[VolumeRow, ...]
    how: str
    as_json: dict[str, Any]


def build_front(
    groups: Sequence[Group],
    drawn: Mapping[tuple[str, str], Scatter],
    chosen: tuple[str, str],
    qualities: Sequence[Column],
    families: Sequence[Family],
    family_of: Sequence[int],
) -> FrontSection | None:
    """Classes at the chosen speed for every metric with a direction; None when no metric has one."""
    speed, metric = chosen
    columns = [column for column in qualities if (speed, column.metric) in drawn and column.better != "neither"]
    if not columns:
        return None
    classes = [drawn[speed, column.metric].classes for column in columns]
    rows = [
        ClassRow(group.label, family_of[i], tuple(own.get(i, "") for own in classes), group.first.ident)
        for i, group in enumerate(groups)
    ]
    shown = [row for row in rows if len(rows) <= _MANY or {"surely", "possibly"} & set(row.classes)]
    column = next((column for column in columns if column.metric == metric), None)
    has_volume = column is not None and len(families) > 1 and measured_alike(groups, column.metric)
    volumes = _volumes(groups, speed, column, drawn[chosen], family_of) if column and has_volume else {}
    verdicts = _verdicts(groups, chosen, column, family_of) if volumes and column else {}
    return FrontSection(
        speed=SPEEDS[speed],
        columns=tuple(f"{column.title}\N{NO-BREAK SPACE}{column.arrow}" for column in columns),
        rows=tuple(shown),
        left_out=len(rows) - len(shown),
        volume_of=f"{title_of(metric)} and {SPEEDS[speed]}",
        volumes=tuple(_volume_row(family, *volumes[family], verdicts[family]) for family in volumes),
        how=next((added.how for _, added in volumes.values()), ""),
        as_json={
            "fronts": [
                {
                    "speed": pair[0],
                    "metric": pair[1],
                    "classes": {groups[i].label: own for i, own in made.classes.items()},
                }
                for pair, made in drawn.items()
                if made.classes
            ],
            "hypervolume": {
                "speed": speed,
                "metric": metric,
                "share_of": "the box from the best values of all cells to their worst, a tenth of the range further",
                "families": {
                    families[family].name: {"alone": _plain(alone), "added": _plain(added), "adds": verdicts[family]}
                    for family, (alone, added) in volumes.items()
                },
            },
        },
    )


def _volumes(
    groups: Sequence[Group], speed: str, column: Column, made: Scatter, family_of: Sequence[int]
) -> dict[int, tuple[Volume, Volume]]:
    """Family -> what it dominates alone, and what it adds to the others."""
    shown = list(made.classes)
    pairs = [(groups[i].estimates[speed], groups[i].estimates[column.metric]) for i in shown]
    frame = frame_of([(x.value, y.value) for x, y in pairs], ("lower", column.better), (True, False))
    objectives = [[x.cells for x, _ in pairs], [y.cells for _, y in pairs]]
    found = {}
    for family in dict.fromkeys(family_of[i] for i in shown):
        own = [place for place, i in enumerate(shown) if family_of[i] == family]
        alone = front_volume([[cells[place] for place in own] for cells in objectives], frame)
        found[family] = (alone, front_volume(objectives, frame, own))
    return found if len(found) > 1 else {}


def _verdicts(
    groups: Sequence[Group], chosen: tuple[str, str], column: Column, family_of: Sequence[int]
) -> dict[int, Membership]:
    """Whether each family adds to the front of the others."""
    members: dict[int, list[int]] = {}
    for i in placed(groups, chosen[0], column):
        members.setdefault(family_of[i], []).append(i)
    return {family: family_class(groups, own, chosen[0], column) for family, own in members.items()}


def _volume_row(family: int, alone: Volume, added: Volume, verdict: Membership) -> VolumeRow:
    return VolumeRow(family, _percent(alone), _percent(added), _VERDICTS[verdict])


def _percent(volume: Volume) -> tuple[str, str]:
    """Value and interval in per cent of the box."""
    value, low, high = (format_number(100 * share, 1) for share in (volume.value, volume.low, volume.high))
    return value, "" if math.isnan(volume.low) else f"{low} to {high}"


def _plain(volume: Volume) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in asdict(volume).items()}
