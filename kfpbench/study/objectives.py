"""What a study optimises: objectives and constraints, read off the records of a trial's cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kfpbench.errors import NumericalError
from kfpbench.store.records import CellRecord

# what the runner measures beside the metrics of the suite
COSTS = {
    "sample": (
        "seconds_per_image",
        "seconds_per_image_batch1",
        "nfe",
        "setup_seconds",
        "setup_nfe",
        "peak_memory_mib",
    ),
    "spectrum": ("setup_seconds", "setup_nfe", "peak_memory_mib", "max_eigenvalue_error", "flagged_modes"),
}
GAINS = {"sample": (), "spectrum": ("sound_modes",)}


@dataclass(frozen=True)
class Objective:
    """A metric and its direction. Times are compared on a logarithmic scale where a volume is taken."""

    metric: str
    direction: Literal["minimize", "maximize"]

    @property
    def better(self) -> Literal["lower", "higher"]:
        """The direction as the project's statistics name it."""
        return "lower" if self.direction == "minimize" else "higher"

    @property
    def sign(self) -> float:
        """Times a value: its cost."""
        return 1.0 if self.direction == "minimize" else -1.0

    @property
    def is_time(self) -> bool:
        """Whether a factor means the same everywhere."""
        return "seconds" in self.metric


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def name(self) -> str:
        """Such as ``peak_memory_mib <= 2000``."""
        return (
            f"{self.metric} <= {self.at_most:g}" if self.at_most is not None else f"{self.metric} >= {self.at_least:g}"
        )

    def excess(self, value: float) -> float:
        """By how much the bound is broken; 0 or less: it is kept."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None  # a constraint has one of them
        return self.at_least - value


@dataclass(frozen=True)
class Reading:
    """What a trial's cells say at one number of images: a value and its interval for each objective, in their order,
    and the excess of each constraint by its name.
    """

    values: list[float]
    low: list[float]
    high: list[float]
    excess: dict[str, float]
    under_load: list[str] = field(default_factory=list)  # objectives whose times others' load may have lengthened

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return all(value <= 0 for value in self.excess.values())

    def as_plain(self) -> dict[str, Any]:
        """For storing."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Reading:
        """What ``as_plain`` gave."""
        known = {key: content[key] for key in ("values", "low", "high", "excess")}
        return cls(**known, under_load=list(content.get("under_load", [])))


def read(records: Sequence[CellRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> Reading:
    """The means over the repeats; of intervals their ends' means, which is wider than the mean's own interval.

    A metric without an interval has one of no length. Raises NumericalError for a metric that a cell has not, or that
    is not finite.
    """
    values, low, high, under_load = [], [], [], []
    for objective in objectives:
        entries = [_entry(record, objective.metric) for record in records]
        if any("load" in (entry.get("details") or {}) for entry in entries):
            under_load.append(objective.metric)
        values.append(_mean([entry["value"] for entry in entries]))
        low.append(_mean([_end(entry, "ci_low") for entry in entries]))
        high.append(_mean([_end(entry, "ci_high") for entry in entries]))
    excess = {
        one.name: one.excess(_mean([_entry(record, one.metric)["value"] for record in records])) for one in constraints
    }
    return Reading(values, low, high, excess, under_load)


def clearly_dominated(mine: Reading, others: Sequence[Reading], objectives: Sequence[Objective]) -> bool:
    """Whether some other configuration is better than this one in every objective, whatever the values in the
    intervals.

    In each objective the good end of this interval must be no better than the bad end of the other's, and in one of
    them worse. Two 95 % intervals that do not meet are a stricter test than one of the difference at 5 %. Others that
    break a constraint do not count.
    """
    signs = [one.sign for one in objectives]
    best = [min(sign * a, sign * b) for sign, a, b in zip(signs, mine.low, mine.high, strict=True)]
    for other in others:
        worst = [max(sign * a, sign * b) for sign, a, b in zip(signs, other.low, other.high, strict=True)]
        pairs = list(zip(worst, best, strict=True))
        if other.feasible and all(w <= b for w, b in pairs) and any(w < b for w, b in pairs):
            return True
    return False


def _entry(record: CellRecord, metric: str) -> dict[str, Any]:
    entry = next((one for one in record.measurements if one["metric"] == metric), None)
    if entry is None:
        reasons = record.details.get("skipped_metrics", {})
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NumericalError(
            f"the cell has no {metric}" + (f" ({why})" if why else ""),
            allowed=", ".join(one["metric"] for one in record.measurements),
        )
    if not math.isfinite(entry["value"]):
        raise NumericalError(f"{metric} is not finite", got=entry["value"])
    return entry


def _end(entry: Mapping[str, Any], key: str) -> float:
    end = entry[key]
    return entry["value"] if end is None or not math.isfinite(end) else end


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
