"""The axes on which the cells of a section differ, under one name each, with a level for every cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.naming import compact, short_axis

ABSENT = "\N{EN DASH}"  # the level of a cell to which an axis does not apply
LABEL, SAMPLER = "label", "sampler.name"
_MOST_LABELS = 40  # more cells than this, and a choice among their labels is no help
_LONGEST = 60  # characters of a level


@dataclass(frozen=True)
class AblationAxis:
    """One axis: its ``levels`` as text, numbers in order, and ``level_of`` each group; ``numbers`` where all are some.

    ``name`` is the path in a cell's specification: 'sampler.rank' for 'samplers.spectral.rank', since what two samplers
    have in common is one axis.
    """

    name: str
    title: str
    levels: tuple[str, ...]
    numbers: tuple[float, ...] | None
    level_of: tuple[int, ...]


def ablation_axes(groups: Sequence[Group]) -> list[AblationAxis]:
    """The axes with two values or more: the label, the sampler, then those of the grid in order of appearance.

    A cell that no grid varied along an axis has the value of its specification. Of axes that split the cells in the
    same way (keys that vary together) the first is kept. Cost O(groups x axes).
    """
    own = [_own_axes(group) for group in groups]
    names = list(dict.fromkeys(name for axes in own for name in axes))
    columns: dict[str, list[Any]] = {}
    labels = [group.first.label for group in groups]
    if len(set(labels)) <= _MOST_LABELS:
        columns[LABEL] = labels
    columns[SAMPLER] = [group.first.sampler for group in groups]
    for name in names:
        columns[name] = [axes.get(name, _specified(group, name)) for axes, group in zip(own, groups, strict=True)]
    made: list[AblationAxis] = []
    for name, values in columns.items():
        axis = _axis(name, values)
        if len(set(axis.levels) - {ABSENT}) > 1 and not any(_same_split(axis, other) for other in made):
            made.append(axis)
    titles = [axis.title for axis in made]
    return [
        AblationAxis(axis.name, axis.name, axis.levels, axis.numbers, axis.level_of)
        if titles.count(axis.title) > 1
        else axis
        for axis in made
    ]


def _own_axes(group: Group) -> dict[str, Any]:
    return {_canonical(name, group): value for name, value in group.axes.items()}


def _canonical(path: str, group: Group) -> str:
    """The path inside the cell's specification: without the label of a sampler or of a spectrum."""
    parts = path.split(".")
    if parts[0] == "samplers" and len(parts) > 1:
        return ".".join(["sampler", *parts[2:]])
    spectrum = group.first.spec.get("spectrum")
    if parts[0] == "spectrum" and len(parts) > 2 and isinstance(spectrum, Mapping) and parts[1] not in spectrum:
        return ".".join(["spectrum", *parts[2:]])
    return path


def _specified(group: Group, path: str) -> Any:
    """The value of a cell's specification, a component by its name; None where there is none."""
    value: Any = group.first.spec
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value.get("name") if isinstance(value, Mapping) else value


def _axis(name: str, values: Sequence[Any]) -> AblationAxis:
    texts = [ABSENT if value is None else _text(value) for value in values]
    numbers = {
        text: float(value)
        for text, value in zip(texts, values, strict=True)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    appeared = [text for text in dict.fromkeys(texts) if text != ABSENT]
    numeric = all(text in numbers for text in appeared)
    levels = sorted(appeared, key=lambda text: numbers[text]) if numeric else appeared
    absent = [ABSENT] if ABSENT in texts else []
    title = "cell" if name == LABEL else short_axis(name).replace("_", " ")
    places = {text: position for position, text in enumerate([*levels, *absent])}
    return AblationAxis(
        name,
        title,
        (*levels, *absent),
        tuple(numbers[text] for text in levels) if numeric and levels else None,
        tuple(places[text] for text in texts),
    )


def _text(value: Any) -> str:
    text = compact(value) or "(empty)"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _same_split(axis: AblationAxis, other: AblationAxis) -> bool:
    pairs = set(zip(axis.level_of, other.level_of, strict=True))
    return len(pairs) == len(axis.levels) == len(other.levels)
