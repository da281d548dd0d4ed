"""Main effects of the axes of an ablation: what a level changes, averaged over the cells that match otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfpbench.errors import ParameterError, ShapeError
from kfpbench.statistics.mean_interval import CONFIDENCE
from kfpbench.statistics.paired_difference import Difference, check_match, mean_difference
from kfpbench.statistics.pairwise_bounds import Cells


@dataclass(frozen=True)
class Effect:
    """What ``level`` of an axis changes against its ``base``: the mean over ``pairs`` of the difference level - base.

    ``axes`` are several when they only ever vary together; level and base then hold a value of each. ``unmatched``
    cells at the two levels have no partner, ``refused`` pairs may not be compared. ``adjusted_p`` is Holm's over all
    effects of the call.
    """

    axes: tuple[str, ...]
    level: tuple[Any, ...]
    base: tuple[Any, ...]
    difference: Difference
    pairs: int
    unmatched: int
    refused: int
    adjusted_p: float = math.nan

    @property
    def is_told(self) -> bool:
        """Whether the effect is told from none: its own interval leaves out 0 and Holm's p is below 0.05."""
        return self.difference.told_apart and self.adjusted_p < 1 - CONFIDENCE


def main_effects(axes: Sequence[Mapping[str, Any]], blocks: Sequence[str], cells: Cells) -> list[Effect]:
    """The effects of every axis on one metric. Cell i has the axis values ``axes[i]`` and repeats ``cells[i]``.

    Two cells match in an axis when they are of one block (the sampler's entry in the suite) and agree in every other
    axis. For each level but the base (of the block's levels the smallest number, else the first that appears) the
    differences level - base of all matched pairs are averaged, those of blocks with one base together. Cells of one
    seed were halved alike, so the mean of the pairs' half-sample differences gives the interval of the mean effect,
    correlations between the pairs included; with several seeds Student's t between seeds. See ``mean_difference``. It
    is the mean over these cells of the grid, not over settings that were not run.

    An unbalanced grid is no obstacle: unmatched cells are left out and counted. Interactions are not modelled: the
    effect may differ between the pairs, even in sign. Multiplicity: Holm (Scandinavian Journal of Statistics 6:65,
    1979), over all effects of the call. Axes that vary only together in the cells (in one-to-one relation, in every
    block) are one, since nothing can tell their effects apart.

    Cost O(m^2) comparisons of keys and O(P R). Raises ShapeError when the arguments have different lengths.
    """
    if not len(axes) == len(blocks) == len(cells):
        raise ShapeError("one entry per cell", got=(len(axes), len(blocks), len(cells)), allowed="equal lengths")
    found = [effect for axis in _joint_axes(axes, blocks) for effect in _effects(axis, axes, blocks, cells)]
    return [
        replace(effect, adjusted_p=p)
        for effect, p in zip(found, holm([effect.difference.p_value for effect in found]), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p: max over the i smallest of (m - i + 1) p_(i), at most 1. NaN stays and is not counted."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min((len(order) - rank) * p_values[i], 1.0))
        adjusted[i] = largest
    return adjusted


def _joint_axes(axes: Sequence[Mapping[str, Any]], blocks: Sequence[str]) -> list[tuple[str, ...]]:
    """The axes that vary within a block, those that vary only together in one tuple."""
    names = dict.fromkeys(name for own in axes for name in own)
    by_block = {
        block: [own for own, of in zip(axes, blocks, strict=True) if of == block] for block in dict.fromkeys(blocks)
    }
    varying = [
        name for name in names if any(len({_key(own.get(name)) for own in many}) > 1 for many in by_block.values())
    ]
    joint: list[list[str]] = []
    for name in varying:
        for together in joint:
            if all(_in_step(many, together[0], name) for many in by_block.values()):
                together.append(name)
                break
        else:
            joint.append([name])
    return [tuple(together) for together in joint]


def _in_step(many: Sequence[Mapping[str, Any]], a: str, b: str) -> bool:
    """Whether two axes are in one-to-one relation."""
    pairs = {(_key(own.get(a)), _key(own.get(b))) for own in many}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _effects(
    axis: tuple[str, ...], axes: Sequence[Mapping[str, Any]], blocks: Sequence[str], cells: Cells
) -> list[Effect]:
    by_level: dict[str, dict[str, int]] = {}  # level -> what else the cell is -> its number
    values: dict[str, tuple[Any, ...]] = {}
    levels_of: dict[str, set[str]] = {}  # block -> its levels
    for i, own in enumerate(axes):
        if cells[i] and all(name in own for name in axis):
            level = tuple(own[name] for name in axis)
            rest = {name: value for name, value in own.items() if name not in axis}
            values.setdefault(_key(level), level)
            levels_of.setdefault(blocks[i], set()).add(_key(level))
            by_level.setdefault(_key(level), {})[_key([blocks[i], rest])] = i
    order = list(values)
    if all(_is_number(value) for level in values.values() for value in level):
        order.sort(key=lambda key: values[key])
    effects = []
    for first in order:
        members = {block for block, own in levels_of.items() if min(own, key=order.index) == first}
        for key in order[order.index(first) + 1 :]:
            base, own = (
                {rest: i for rest, i in by_level[level].items() if blocks[i] in members} for level in (first, key)
            )
            shared = [rest for rest in base if rest in own]
            pairs = [(cells[own[rest]], cells[base[rest]]) for rest in shared]
            kept = [pair for pair in pairs if _match(*pair)]
            if kept:
                try:
                    made = mean_difference(kept)
                except ParameterError:  # no seed that all pairs have
                    made = Difference(math.nan, math.nan, math.nan, "the cells have no seed in common")
                unmatched = len(base) + len(own) - 2 * len(shared)
                refused = len(pairs) - len(kept)
                effects.append(Effect(axis, values[key], values[first], made, len(kept), unmatched, refused))
    return effects


def _match(a: Sequence[Any], b: Sequence[Any]) -> bool:
    try:
        check_match(a[0], b[0])
    except ParameterError:
        return False
    return True


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
