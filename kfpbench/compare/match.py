"""Which cell of one run is which of another: by what was computed, else by label and axes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kfpbench.statistics.difference_table import unique_labels
from kfpbench.statistics.observation import numbers_repeats, repeat_key
from kfpbench.store.records import CellRecord

_NOT_COMPUTED = ("seed", "budget")  # of a specification: repeats differ in one, the other changes no result
ABSENT = "absent"


@dataclass(frozen=True)
class Group:
    """The repeats of one cell, with every status; ``label`` tells it from the others of its run."""

    label: str
    records: tuple[CellRecord, ...]

    @property
    def ok(self) -> tuple[CellRecord, ...]:
        """The repeats that ended well."""
        return tuple(record for record in self.records if record.status == "ok")


@dataclass(frozen=True)
class Match:
    """A cell of run A and its counterpart in B. ``differs`` has the values of A and B of each key of the specification
    in which they differ, by dotted path; it is empty for cells matched by identity.
    """

    a: Group
    b: Group
    by: Literal["identity", "label and axes"]
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Matching:
    """The matches in the order of A, and the cells that have no counterpart, or no certain one."""

    matches: tuple[Match, ...]
    only_a: tuple[Group, ...]
    only_b: tuple[Group, ...]


def match_cells(a: Sequence[CellRecord], b: Sequence[CellRecord]) -> Matching:
    """Match the cells of two runs, repeats together.

    First by identity: equal specifications, seed and budget aside (order, labels and other cells do not matter). Of
    the rest, by label and axes, when only one of either run has them: those computed something else, and
    ``Match.differs`` says what. Cost O(cells).
    """
    left, right = _groups(a), _groups(b)
    matches: list[tuple[Group, Group, Literal["identity", "label and axes"]]] = []
    for one, other in _matched(left, right, _identity):
        matches.append((one, other, "identity"))
    taken = {id(group) for one, other, _ in matches for group in (one, other)}
    left_over, right_over = ([group for group in side if id(group) not in taken] for side in (left, right))
    for one, other in _matched(left_over, right_over, _label_and_axes):
        matches.append((one, other, "label and axes"))
    taken = {id(group) for one, other, _ in matches for group in (one, other)}
    place = {id(group): number for number, group in enumerate(left)}
    made = [
        Match(one, other, by, {} if by == "identity" else differing(_computed(one), _computed(other)))
        for one, other, by in sorted(matches, key=lambda item: place[id(item[0])])
    ]
    rest = [tuple(group for group in side if id(group) not in taken) for side in (left, right)]
    return Matching(tuple(made), *rest)


def differing(a: Any, b: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The values at every dotted path in which two plain values differ; 'absent' where one has no such key."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        parts = [(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [(str(i), ours, theirs) for i, (ours, theirs) in enumerate(zip(a, b, strict=True))]
    else:
        return {} if _text(a) == _text(b) else {path: (a, b)}
    found: dict[str, tuple[Any, Any]] = {}
    for key, ours, theirs in parts:
        found |= differing(ours, theirs, f"{path}.{key}" if path else str(key))
    return found


def _groups(records: Sequence[CellRecord]) -> list[Group]:
    by_key: dict[str, list[CellRecord]] = {}
    for record in records:
        by_key.setdefault(repeat_key(record.kind, record.label, record.spec, record.axes), []).append(record)
    members = list(by_key.values())
    return [Group(label, tuple(one)) for label, one in zip(unique_labels(members), members, strict=True)]


def _matched(a: list[Group], b: list[Group], key: Callable[[Group], str]) -> Iterator[tuple[Group, Group]]:
    """The pairs of which each has its key alone in its run."""
    sides: tuple[dict[str, list[Group]], ...] = ({}, {})
    for side, groups in zip(sides, (a, b), strict=True):
        for group in groups:
            side.setdefault(key(group), []).append(group)
    for name, mine in sides[0].items():
        others = sides[1].get(name, [])
        if len(mine) == len(others) == 1:
            yield mine[0], others[0]


def _computed(group: Group) -> dict[str, Any]:
    return {key: value for key, value in group.records[0].spec.items() if key not in _NOT_COMPUTED}


def _identity(group: Group) -> str:
    first = group.records[0]
    return _text([first.kind, _computed(group) or first.cell])


def _label_and_axes(group: Group) -> str:
    first = group.records[0]
    return _text(
        [first.kind, first.label, {key: value for key, value in first.axes.items() if not numbers_repeats(key)}]
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
