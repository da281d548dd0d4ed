"""The labels by which blocks of a suite name its samplers: those of `claim` and the anchor of `timing`.

Whether each is a sampler of the suite, and whether it stands for as many cells as the block allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfpbench.suite.grid import combinations, read_axes
from kfpbench.suite.paths import label_of
from kfpbench.suite.problems import closest
from kfpbench.suite.schema import ClaimBlock


def fault_of_labels(claim: ClaimBlock, samplers: Sequence[Mapping[str, Any]], grid: Mapping[str, list[Any]]) -> str:
    """What is wrong with the labels that `claim` names, in words; '' when nothing is.

    ``spectral``, ``reference`` and ``control`` stand for one cell each, whatever its repeats: the grid may not sweep
    them. ``few_step`` labels may have any number of cells.
    """
    for key, label in _named(claim):
        if fault := _fault_of_name(label, samplers):
            return f"{key} names {fault}"
        if key != "few_step" and _is_swept(f"samplers.{label}", grid):
            return f"{key} names {label!r}, of which the grid makes several cells: it has to stand for one"
    return ""


def fault_of_anchor(anchor: str | None, samplers: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the anchor that `timing` names, in words; '' when nothing is.

    It may stand for several cells, since the grid may sweep it: the first of each data set, device and dtype is the
    anchor there.
    """
    return _fault_of_name(anchor, samplers) if anchor is not None else ""


def _fault_of_name(label: str, samplers: Sequence[Mapping[str, Any]]) -> str:
    labels = [own for block in samplers if (own := label_of(block, "samplers")) is not None]
    if label in labels:
        return ""
    hint = closest(label, labels)
    text = f"{label!r}, which is no sampler of this suite: {', '.join(labels) or 'it has none'}"
    return f"{text}. {hint}" if hint else text


def _named(claim: ClaimBlock) -> Iterator[tuple[str, str]]:
    yield from (("spectral", label) for label in claim.spectral_labels)
    yield "reference", claim.reference
    if claim.control is not None:
        yield "control", claim.control
    yield from (("few_step", label) for label in claim.few_step)


def _is_swept(owner: str, grid: Mapping[str, list[Any]]) -> bool:
    axes, _ = read_axes({key: list(values) for key, values in grid.items() if key != "seed"}, [owner])
    return len(list(itertools.islice(combinations(axes, owner), 2))) > 1
