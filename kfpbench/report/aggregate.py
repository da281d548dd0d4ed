"""Repeats become one estimate with an interval; estimates are compared in pairs, or by whether intervals overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfpbench.errors import ParameterError
from kfpbench.report.cells import Cell, Measured
from kfpbench.statistics.front_membership import front_membership
from kfpbench.statistics.observation import Observation, numbers_repeats, observation, repeat_key
from kfpbench.statistics.repeats_interval import repeats_interval


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval (low = high = NaN where there is none).

    ``repeats`` values were averaged; ``excluded`` more were not finite and are not part of the value. ``observations``
    are the repeats themselves, by which cells are compared in pairs.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    repeats: int = 1
    excluded: int = 0
    unit: str = ""
    better: str = "neither"
    observations: tuple[Observation, ...] = field(default=(), compare=False, repr=False)

    @property
    def cells(self) -> tuple[Observation, ...]:
        """The repeats; the estimate itself where they are not known."""
        return self.observations or (
            Observation("", "", 0, self.value, self.low, self.high, self.n, better=self.better),
        )

    @property
    def has_interval(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the value twice where there is none."""
        return (self.low, self.high) if self.has_interval else (self.value, self.value)

    @property
    def half_width(self) -> float:
        """Half the length of the interval; NaN where there is none."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Group:
    """The repeats of one cell: same specification, other seeds. ``cells`` are all of them, ``ok`` those that
    ended well.
    """

    label: str
    cells: tuple[Cell, ...]
    estimates: dict[str, Estimate]
    phases: dict[str, float]

    @property
    def first(self) -> Cell:
        """The first repeat that ended well, else the first."""
        return next((cell for cell in self.cells if cell.status == "ok"), self.cells[0])

    @property
    def ok(self) -> int:
        """How many repeats ended well."""
        return sum(cell.status == "ok" for cell in self.cells)

    @property
    def axes(self) -> dict[str, Any]:
        """The axes of the ablation, without those that only number the repeats."""
        return {name: value for name, value in self.first.axes.items() if not numbers_repeats(name)}


@dataclass(frozen=True)
class BestSet:
    """The keys that may be the best, for all that the intervals say; ``alone`` when there is one of several."""

    members: frozenset[Any]
    alone: bool


def combine(measured: Sequence[Measured]) -> Estimate:
    """One estimate out of the repeats of one metric.

    Two or more finite repeats: their mean with the interval of ``repeats_interval``: Student's between the repeats,
    which holds the exact binomial one of a share of rows and does not leave the metric's range. One: its own interval.
    None: NaN. Raises ParameterError for an empty sequence.
    """
    if not measured:
        raise ParameterError("nothing to combine")
    finite = [item for item in measured if math.isfinite(item.value)]
    some = measured[0]
    excluded = len(measured) - len(finite)
    if not finite:
        return Estimate(math.nan, n=some.n, repeats=0, excluded=excluded, unit=some.unit, better=some.better)
    if len(finite) == 1:
        value, low, high = finite[0].value, finite[0].low, finite[0].high
    else:
        value, low, high = repeats_interval([_observed(item) for item in finite])
    return Estimate(value, low, high, some.n, len(finite), excluded, some.unit, some.better)


def group_repeats(cells: Iterable[Cell]) -> list[Group]:
    """Cells that differ in their seed only, together; in the order of the first of each."""
    by_key: dict[str, list[Cell]] = {}
    for cell in cells:
        by_key.setdefault(_repeat_key(cell), []).append(cell)
    return [_group(members) for members in by_key.values()]


def best_set(estimates: Mapping[Any, Estimate], better: str) -> BestSet:
    """The finite values that may be the best: those that no other one surely beats.

    That is the front of one objective (``front_membership``): differences are paired where the cells are, else two
    values differ when their intervals do not overlap, one without an interval being exact; both stretched for the
    number of cells, so that a cell is left out, or stands alone, by mistake with probability at most 2.5 %. Empty for
    direction 'neither'.
    """
    finite = {key: item for key, item in estimates.items() if math.isfinite(item.value)}
    if better == "neither" or not finite:
        return BestSet(frozenset(), False)
    classes = front_membership([[item.cells for item in finite.values()]], (better,)).classes
    members = frozenset(key for key, own in zip(finite, classes, strict=True) if own != "not")
    return BestSet(members, len(members) == 1 and len(finite) > 1)


def _group(cells: list[Cell]) -> Group:
    ok = [cell for cell in cells if cell.status == "ok"]
    metrics = dict.fromkeys(name for cell in ok for name in cell.measured)
    estimates = {name: _estimate([cell for cell in ok if name in cell.measured], name) for name in metrics}
    names = dict.fromkeys(name for cell in ok for name in cell.phases)
    phases = {name: math.fsum(cell.phases.get(name, 0.0) for cell in ok) / len(ok) for name in names}
    return Group(_common_label([cell.label for cell in cells]), tuple(cells), estimates, phases)


def _estimate(cells: Sequence[Cell], metric: str) -> Estimate:
    made = combine([cell.measured[metric] for cell in cells])
    finite = tuple(_observation(cell, metric) for cell in cells if math.isfinite(cell.measured[metric].value))
    return replace(made, observations=finite)


def _repeat_key(cell: Cell) -> str:
    return repeat_key(cell.kind, cell.label, cell.spec, cell.axes)


def _observation(cell: Cell, metric: str) -> Observation:
    return _observed(cell.measured[metric], cell.label, cell.spec, cell.seed)


def _observed(one: Measured, label: str = "", spec: Mapping[str, Any] | None = None, seed: int = 0) -> Observation:
    return observation(
        label,
        spec or {},
        seed,
        metric=one.metric,
        value=one.value,
        low=one.low,
        high=one.high,
        n=one.n,
        better=one.better,
        details=one.details,
    )


def _common_label(labels: list[str]) -> str:
    """The label of all repeats: the words of the first that every other has too (a seed is none)."""
    shared = [word for word in labels[0].split() if all(word in label.split() for label in labels[1:])]
    return " ".join(shared).strip(" ,;:/|") or labels[0]
