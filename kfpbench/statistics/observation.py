"""One metric of one cell as the comparisons need it: value, interval, half-sample values, and what has to agree."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfpbench.errors import ParameterError

REPEAT_AXES = frozenset({"seed", "repeat"})
_SHARES = (None, (0.0, 1.0), (-1.0, 1.0))  # ranges of shares of rows, and of differences of two; None: not recorded
_MATCHED = ("reference", "features", "features_version", "feature_dimension", "resize")
# What a metric was told to measure. Parameters that only make a value more exact (projections, partitions) are not it.
PARAMETERS = (
    "k",
    "kernel",
    "bandwidth",
    "order",
    "degree",
    "gamma",
    "coef0",
    "neighbours",
    "labelled_rows",
    "cells_asked",
)


@dataclass(frozen=True)
class Observation:
    """A measurement of one cell.

    ``replicates`` are the metric's values on the half-samples (none where its interval is not made of them),
    ``extra_sd`` the standard deviation that the interval has besides theirs (random projections). ``fraction``: the
    value is a share of n rows. ``unknown``: the metric could give no interval (n < 8), so that the value is not exact
    for want of one. ``limits`` are the least and the largest value of the metric, where it says so. ``matched`` holds
    what two cells must agree in to be compared: data, reference, features, the metric's own parameters (the k of
    nearest neighbours), and n of metrics that compare rows.
    """

    label: str
    metric: str
    seed: int
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    better: str = "neither"
    replicates: tuple[float, ...] = ()
    extra_sd: float = 0.0
    fraction: bool = False
    unknown: bool = False
    limits: tuple[float, float] | None = None
    matched: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_interval(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def observe(record: Any, metric: str) -> Observation:
    """The observation of a cell record, given as a mapping (a line of cells.jsonl) or an object with those names.

    Raises ParameterError when the cell has no such measurement.
    """
    entries = {part(entry, "metric"): entry for entry in part(record, "measurements") or ()}
    label = str(part(record, "label") or part(record, "cell"))
    if metric not in entries:
        raise ParameterError("the cell has no such measurement", got=metric, allowed=", ".join(entries), where=label)
    entry = entries[metric]
    return observation(
        label,
        part(record, "spec") or {},
        int(part(record, "seed") or 0),
        metric=metric,
        value=_number(part(entry, "value")),
        low=_number(part(entry, "ci_low")),
        high=_number(part(entry, "ci_high")),
        n=part(entry, "n"),
        better=str(part(entry, "better") or "neither"),
        details=part(entry, "details") or {},
    )


def observation(
    label: str,
    spec: Mapping[str, Any],
    seed: int,
    *,
    metric: str,
    value: float,
    low: float,
    high: float,
    n: int | None,
    better: str,
    details: Mapping[str, Any],
) -> Observation:
    """The observation of a measurement of the cell with that label, specification and seed."""
    replicates = _replicates(details)
    matched = {"data": spec.get("data"), **{name: details.get(name) for name in _MATCHED}}
    matched |= {name: _rounded(details[name]) for name in PARAMETERS if name in details}
    limits = _limits(details)
    compares_rows = bool(replicates) or "reference" in details
    if compares_rows:  # the n of a time counts its repeats, which need not agree
        matched["n"] = n
    return Observation(
        label=label,
        metric=metric,
        seed=seed,
        value=value,
        low=low,
        high=high,
        n=n,
        better=better,
        replicates=replicates,
        extra_sd=_extra_sd(details, replicates, n),
        fraction=compares_rows and limits in _SHARES and _is_fraction(value, n, replicates),
        unknown=compares_rows and str(details.get("interval") or "").startswith("none"),
        limits=limits,
        matched=matched,
    )


def repeat_key(kind: str, label: str, spec: Mapping[str, Any], axes: Mapping[str, Any]) -> str:
    """Equal for cells that differ in their seed alone. A record without a specification has only its label."""
    kept = {name: value for name, value in spec.items() if not numbers_repeats(name)}
    varied = {name: value for name, value in axes.items() if not numbers_repeats(name)}
    return json.dumps([kind, kept or label, varied], sort_keys=True, default=str)


def numbers_repeats(axis: str) -> bool:
    """Whether an axis only numbers the repeats of a cell."""
    return axis.rsplit(".", 1)[-1] in REPEAT_AXES


def by_repeats(records: Iterable[Any]) -> list[list[Any]]:
    """The records that ended well, those that differ in their seed alone together, in order of appearance."""
    groups: dict[str, list[Any]] = {}
    for record in records:
        if part(record, "status") == "ok":
            label = str(part(record, "label") or part(record, "cell"))
            key = repeat_key(str(part(record, "kind")), label, part(record, "spec") or {}, part(record, "axes") or {})
            groups.setdefault(key, []).append(record)
    return list(groups.values())


def part(holder: Any, name: str) -> Any:
    """The value of a key or an attribute; None when there is none."""
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _replicates(details: Mapping[str, Any]) -> tuple[float, ...]:
    """The half-sample values, where all are finite; they are recorded by metrics with other intervals too."""
    values = tuple(_number(value) for value in details.get("replicate_values") or ())
    return values if len(values) > 1 and all(map(math.isfinite, values)) else ()


def _extra_sd(details: Mapping[str, Any], replicates: tuple[float, ...], n: int | None) -> float:
    """sqrt(sd^2 - s^2) of a jackknife's interval: its standard deviation besides that of the half-samples."""
    sd = details.get("sd")
    if not replicates or sd is None or not n or details.get("interval") != "delete-half jackknife":
        return 0.0
    from kfpbench.metrics.intervals import jackknife_sd

    extra = float(sd) ** 2 - jackknife_sd(replicates, n) ** 2
    return math.sqrt(extra) if extra > 1e-9 * float(sd) ** 2 else 0.0  # else rounding


def _limits(details: Mapping[str, Any]) -> tuple[float, float] | None:
    """The range [least, most] in a measurement's details, null standing for an open end; None without one."""
    if "range" not in details:
        return None
    least, most = details["range"]
    return (-math.inf if least is None else float(least), math.inf if most is None else float(most))


def _is_fraction(value: float, n: int | None, replicates: tuple[float, ...]) -> bool:
    """Whether the value is a whole number of n rows, and every half-sample value one of n // 2: a share of them.

    Recall and coverage are; a distance of exactly 0, or a density that happens to be a multiple of 1 / n, is not.
    """
    if n is None or n < 1:
        return False
    return _is_whole(value, n) and all(_is_whole(one, n // 2) for one in replicates)


def _is_whole(share: float, rows: int) -> bool:
    return abs(share) <= 1 and abs(share * rows - round(share * rows)) < 1e-9 * max(rows, 1)


def _rounded(value: Any) -> Any:
    """A float without its last digits: a bandwidth that was found from the data differs in them between machines."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _number(value: Any) -> float:
    """A float; JSON has no NaN, so null means 'not a number'."""
    return math.nan if value is None else float(value)
