"""The axes of an ablation: the grid's entries, and which of them apply to which sampler or spectrum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.suite.problems import Path, Problem, closest
from kfpbench.suite.schema import AXIS_FIELDS, NOT_AXES

OWNED = ("samplers", "spectrum")  # paths that start so belong to the one entry that has the label


@dataclass(frozen=True)
class Axis:
    """One entry of the grid. ``values[i][j]`` goes to ``paths[j]``; several paths vary together."""

    key: str
    paths: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    @property
    def is_common(self) -> bool:
        """Whether it multiplies all cells rather than those of one entry."""
        return any(path.split(".")[0] not in OWNED for path in self.paths)

    def applies(self, path_index: int, owner: str) -> bool:
        """Whether a path concerns the entry ``owner``, written ``samplers.label`` or ``spectrum.label``."""
        parts = self.paths[path_index].split(".")
        return parts[0] not in OWNED or ".".join(parts[:2]) == owner


@dataclass(frozen=True)
class Setting:
    """One value of an axis as it applies to one entry of the suite."""

    path: str
    value: Any
    origin: Path  # where the suite says so: ("grid", key, index), with the position in a tuple if there is one
    index: int


def read_axes(grid: dict[str, list[Any]], owners: list[str]) -> tuple[list[Axis], list[Problem]]:
    """The axes of a grid; ``owners`` are the entries, as ``samplers.label`` or ``spectrum.label``."""
    axes: list[Axis] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for key, listed in grid.items():
        paths = tuple(path.strip() for path in key.split(","))
        faults = [fault for path in paths if (fault := _path_fault(path, key, owners)) is not None]
        for path in paths:
            if path in seen:
                faults.append(
                    Problem(
                        ("grid", key),
                        "the path is an axis already",
                        got=path,
                        remedy=f"See {seen[path]!r}.",
                        at_key=True,
                    )
                )
            seen[path] = key
        if len(paths) == 1:
            values = [(value,) for value in listed]
        else:
            values = [tuple(value) if isinstance(value, list) else () for value in listed]
            for index, value in enumerate(listed):
                if not isinstance(value, list) or len(value) != len(paths):
                    what = "values of paths that vary together are lists, one item for each path"
                    faults.append(
                        Problem(("grid", key, index), what, got=value, allowed=f"a list of {len(paths)} items")
                    )
        problems += faults
        if not faults:
            axes.append(Axis(key, paths, tuple(values)))
    return axes, problems


def _path_fault(path: str, key: str, owners: list[str]) -> Problem | None:
    """What is wrong with a path by itself; whether its component has such a parameter shows in the cells."""

    def fault(what: str, allowed: Sequence[str] = (), remedy: str | None = None) -> Problem:
        return Problem(("grid", key), what, path, ", ".join(allowed) or None, remedy, at_key=True)

    head, *rest = path.split(".")
    entries = [f"{owner}.*" for owner in owners]
    if head in NOT_AXES:
        return fault(f"{head!r} cannot be an axis", AXIS_FIELDS)
    if head in OWNED:
        if rest[1:] == ["label"]:
            return fault("a label cannot be an axis")
        if not rest or f"{head}.{rest[0]}" not in owners:
            labels = [owner.removeprefix(f"{head}.") for owner in owners if owner.startswith(f"{head}.")]
            return fault("no such entry", entries, closest(rest[0], labels, under=head) if rest else None)
    elif head not in AXIS_FIELDS:
        return fault("unknown path", [*AXIS_FIELDS, *entries], closest(head, [*AXIS_FIELDS, *OWNED]))
    return None


def combinations(axes: list[Axis], owner: str) -> Iterator[tuple[Setting, ...]]:
    """All settings of one entry, the first axis outermost.

    Where only some paths of an axis concern the entry, values that differ in the other paths alone count
    once.
    """
    choices: list[list[tuple[Setting, ...]]] = []
    for axis in axes:
        mine = [index for index in range(len(axis.paths)) if axis.applies(index, owner)]
        if not mine:
            continue
        rows: list[tuple[Setting, ...]] = []
        for position, value in enumerate(axis.values):
            origin: Path = ("grid", axis.key, position)
            row = tuple(
                Setting(axis.paths[j], value[j], (*origin, j) if len(axis.paths) > 1 else origin, position)
                for j in mine
            )
            if len(mine) == len(axis.paths) or not _has_values(rows, row):
                rows.append(row)
        choices.append(rows)
    for combination in itertools.product(*choices):
        yield tuple(setting for row in combination for setting in row)


def _has_values(rows: list[tuple[Setting, ...]], row: tuple[Setting, ...]) -> bool:
    values = [item.value for item in row]
    return any(values == [item.value for item in other] for other in rows)


def count(axes: list[Axis], owners: list[str]) -> int:
    """An upper bound of the number of combinations of all entries, found without building them."""
    total = 0
    for owner in owners:
        mine = [axis for axis in axes if any(axis.applies(j, owner) for j in range(len(axis.paths)))]
        total += math.prod(len(axis.values) for axis in mine)
    return total
