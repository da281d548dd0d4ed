"""How a cell is called, everywhere: its label, and in brackets the axes that tell it from others: 'heun (steps 9)'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def cell_name(label: str, axes: Mapping[str, Any]) -> str:
    """'heun (steps 9, time piecewise)'; the label alone without axes."""
    return f"{label} ({axes_text(axes)})" if axes else label


def own_names(labels: Sequence[str], axes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each of the cells of these labels: where several share one, with the axes on which they differ.

    An axis that only some of them have counts as differing.
    """
    names = []
    for label, own in zip(labels, axes, strict=True):
        kin = [other for name, other in zip(labels, axes, strict=True) if name == label]
        varying = [axis for axis in own if len({compact(other.get(axis)) for other in kin}) > 1]
        names.append(cell_name(label, {axis: own[axis] for axis in varying}))
    return names


def axes_text(axes: Mapping[str, Any]) -> str:
    """'rank 64, time piecewise': every axis with its value."""
    return ", ".join(f"{short_axis(axis)} {compact(value)}" for axis, value in axes.items())


def short_axis(axis: str) -> str:
    """The last part of a dotted axis name; the part before it where the last is only 'name'."""
    parts = axis.split(".")
    return parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]


def compact(value: Any) -> str:
    """One axis value as short text: a component is called by its name, with its parameters in brackets."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {compact(item)}" for key, item in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name} ({rest})" if name and rest else name or rest
    if isinstance(value, list | tuple):
        return "[" + ", ".join(compact(item) for item in value) + "]"
    # a suite's text may hold control characters, which must not reach a terminal
    return "".join(one if one.isprintable() else "?" for one in str(value))
