"""Repeats become one estimate with an interval; estimates are compared by whether their intervals overlap."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.errors import ParameterError
from kfpbench.report.cells import Cell, Measured

CONFIDENCE = 0.95
REPEAT_AXES = frozenset({"seed", "repeat"})


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval (low = high = NaN where there is none).

    ``repeats`` values were averaged; ``excluded`` more were not finite and are not part of the value.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    repeats: int = 1
    excluded: int = 0
    unit: str = ""
    better: str = "neither"

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
        return {name: value for name, value in self.first.axes.items() if not _numbers_repeats(name)}


@dataclass(frozen=True)
class BestSet:
    """The best key and every key whose interval overlaps with the best one's; ``alone`` when there is no
    other.
    """

    members: frozenset[Any]
    alone: bool


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of independent repeats by Student's t: mean -+ t(r - 1) s / sqrt(r).

    Raises ParameterError for fewer than two values or one that is not finite.
    """
    from scipy.special import stdtrit

    r = len(values)
    if r < 2 or not all(math.isfinite(value) for value in values):
        raise ParameterError("an interval needs two or more finite values", got=list(values))
    mean = math.fsum(values) / r
    variance = math.fsum((value - mean) ** 2 for value in values) / (r - 1)
    half = float(stdtrit(r - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance / r)
    return mean, mean - half, mean + half


def combine(measured: Sequence[Measured]) -> Estimate:
    """One estimate out of the repeats of one metric.

    Two or more finite repeats: their mean with the t interval between repeats. One: its own interval. None:
    NaN. Raises ParameterError for an empty sequence.
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
        value, low, high = mean_interval([item.value for item in finite])
    return Estimate(value, low, high, some.n, len(finite), excluded, some.unit, some.better)


def group_repeats(cells: Iterable[Cell]) -> list[Group]:
    """Cells that differ in their seed only, together; in the order of the first of each."""
    by_key: dict[str, list[Cell]] = {}
    for cell in cells:
        by_key.setdefault(_repeat_key(cell), []).append(cell)
    return [_group(members) for members in by_key.values()]


def best_set(estimates: Mapping[Any, Estimate], better: str) -> BestSet:
    """The best finite value and all that it cannot be told from: those whose interval overlaps with its
    interval.

    An estimate without an interval counts as an interval of length zero. Empty for direction 'neither'.
    Overlap is a cautious criterion: two intervals may touch although a paired test would tell the values
    apart.
    """
    finite = {key: item for key, item in estimates.items() if math.isfinite(item.value)}
    if better == "neither" or not finite:
        return BestSet(frozenset(), False)
    sign = 1.0 if better == "lower" else -1.0
    best = min(finite, key=lambda key: sign * finite[key].value)
    low, high = finite[best].bounds
    members = frozenset(key for key, item in finite.items() if item.bounds[0] <= high and low <= item.bounds[1]) | {
        best
    }
    return BestSet(members, len(members) == 1 and len(finite) > 1)


def _group(cells: list[Cell]) -> Group:
    ok = [cell for cell in cells if cell.status == "ok"]
    metrics = dict.fromkeys(name for cell in ok for name in cell.measured)
    estimates = {name: combine([cell.measured[name] for cell in ok if name in cell.measured]) for name in metrics}
    names = dict.fromkeys(name for cell in ok for name in cell.phases)
    phases = {name: math.fsum(cell.phases.get(name, 0.0) for cell in ok) / len(ok) for name in names}
    return Group(_common_label([cell.label for cell in cells]), tuple(cells), estimates, phases)


def _repeat_key(cell: Cell) -> str:
    spec = {name: value for name, value in cell.spec.items() if not _numbers_repeats(name)}
    axes = {name: value for name, value in cell.axes.items() if not _numbers_repeats(name)}
    # A record without a specification has only its label to tell it from others.
    return json.dumps([cell.kind, spec or cell.label, axes], sort_keys=True, default=str)


def _numbers_repeats(axis: str) -> bool:
    return axis.rsplit(".", 1)[-1] in REPEAT_AXES


def _common_label(labels: list[str]) -> str:
    """The label of all repeats: the words of the first that every other has too (a seed is none)."""
    shared = [word for word in labels[0].split() if all(word in label.split() for label in labels[1:])]
    return " ".join(shared).strip(" ,;:/|") or labels[0]
