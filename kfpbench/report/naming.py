"""How a cell is called in a figure: its family, which has a colour and a marker, and a label short enough for
a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kfpbench.errors import StoreError
from kfpbench.report.aggregate import Group
from kfpbench.suite.cell_name import compact, own_names, short_axis

# Okabe and Ito's palette without black; shape advances with colour, so that a family is told by either.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
LONGEST_LABEL = 26


@dataclass(frozen=True)
class Family:
    """Cells that share a marker."""

    name: str
    colour: str
    symbol: str


def families(groups: Sequence[Group]) -> tuple[list[Family], list[int]]:
    """The families of a section, and for every group the number of its own.

    A family is a sampler. In an ablation of one sampler it is a value of the axis that splits the cells into
    the fewest parts, as long as there are no more parts than colours.
    """
    keys = [group.first.sampler for group in groups]
    if len(set(keys)) == 1:
        splits = {axis: [compact(group.axes.get(axis)) for group in groups] for axis in varying_axes(groups)}
        usable = {axis: values for axis, values in splits.items() if len(set(values)) <= len(COLOURS)}
        if usable:
            axis = min(usable, key=lambda name: len(set(usable[name])))
            keys = [f"{short_axis(axis)} {value}" for value in usable[axis]]
    names = list(dict.fromkeys(keys))
    made = [Family(name, COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]) for i, name in enumerate(names)]
    return made, [names.index(key) for key in keys]


def varying_axes(groups: Sequence[Group]) -> list[str]:
    """Axes on which the groups differ, in order of appearance; an axis that only some have counts as
    differing.
    """
    axes = dict.fromkeys(axis for group in groups for axis in group.axes)
    return [axis for axis in axes if len({compact(group.axes.get(axis)) for group in groups}) > 1]


def with_own_labels(groups: Sequence[Group]) -> list[Group]:
    """The groups with labels that tell them apart: where several share one, the axes on which they differ
    follow in brackets.
    """
    names = own_names([group.label for group in groups], [group.axes for group in groups])
    return [replace(group, label=name) for group, name in zip(groups, names, strict=True)]


def of_label(groups: Sequence[Group], label: str) -> Group:
    """The one group of that label. Raises StoreError where none has it, or several."""
    found = [group for group in groups if group.label == label]
    if len(found) != 1:
        what = "no cell has that label" if not found else "several cells have that label"
        raise StoreError(what, got=label, allowed="; ".join(group.label for group in groups))
    return found[0]


def point_labels(groups: Sequence[Group]) -> list[str]:
    """A label short enough for a point: its own, else the sampler with the values of the axes on which it
    varies.
    """
    labels = []
    for group in groups:
        label = group.label
        if len(label) > LONGEST_LABEL:
            sampler = group.first.sampler
            kin = varying_axes([other for other in groups if other.first.sampler == sampler])
            values = [compact(group.axes.get(axis)) for axis in kin if axis in group.axes]
            label = " ".join([sampler, " / ".join(value for value in values if value != sampler)]).strip()
        labels.append(label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1].rstrip(" ,/") + "…")
    return labels
