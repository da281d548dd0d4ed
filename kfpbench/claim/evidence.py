"""What the records of a run say of the samplers that a claim names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.claim.verdict import Number
from kfpbench.errors import ParameterError
from kfpbench.statistics.difference_table import unique_labels
from kfpbench.statistics.observation import Observation, observe, part, repeat_key
from kfpbench.statistics.repeats_interval import repeats_interval

LATENCY, THROUGHPUT = "seconds_per_image_batch1", "seconds_per_image"


@dataclass(frozen=True)
class Sampled:
    """The cells of one sampler that differ in their seed alone: those that ended well, or why there is none."""

    label: str
    records: tuple[Any, ...] = ()
    reason: str = ""

    @property
    def first(self) -> Any:
        """Its first record; there must be one."""
        return self.records[0]

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was run."""
        return part(self.first, "spec") or {} if self.records else {}

    @property
    def cell(self) -> str:
        """The id of its first cell; '' where there is none."""
        return str(part(self.first, "cell")) if self.records else ""

    def details(self, metric: str) -> Mapping[str, Any]:
        """The details of the first record's measurement; empty where it has none."""
        for entry in part(self.first, "measurements") or () if self.records else ():
            if part(entry, "metric") == metric:
                return part(entry, "details") or {}
        return {}


def find_samplers(records: Iterable[Any], label: str) -> list[Sampled]:
    """All samplers whose cells have that label, repeats together, in order of appearance.

    One entry with a reason where no cell has it; an entry whose cells all ended otherwise than ok has the first one's
    status and reason.
    """
    groups: dict[str, list[Any]] = {}
    for record in records:
        if part(record, "label") == label and part(record, "kind") == "sample":
            key = repeat_key("sample", label, part(record, "spec") or {}, part(record, "axes") or {})
            groups.setdefault(key, []).append(record)
    if not groups:
        return [Sampled(label, reason=f"the cell {label} has not been run")]
    names = unique_labels(list(groups.values()))
    return [_sampled(name, group) for name, group in zip(names, groups.values(), strict=True)]


def find_sampler(records: Iterable[Any], label: str) -> Sampled:
    """The one sampler of that label; one with a reason where there is none, or several."""
    found = find_samplers(records, label)
    if len(found) > 1:
        return Sampled(label, reason=f"{label} has {len(found)} cells: the claim needs one")
    return found[0]


def _sampled(label: str, group: Sequence[Any]) -> Sampled:
    good = tuple(record for record in group if part(record, "status") == "ok")
    if good:
        return Sampled(label, good)
    status = {"failed": "failed", "timeout": "ran out of time", "skipped": "was skipped"}
    word = status.get(str(part(group[0], "status")), str(part(group[0], "status")))
    return Sampled(label, reason=f"the cell {label} {word}: {part(group[0], 'reason')}")


def number_of(sampled: Sampled, metric: str, name: str = "", unit: str = "") -> Number:
    """A metric of a sampler: one repeat has its own interval, several have that of ``repeats_interval``.

    Raises ParameterError where a repeat lacks the metric.
    """
    seen = [_observed(record, metric) for record in sampled.records]
    name = name or f"{metric} of {sampled.label}"
    if len(seen) == 1:
        own = seen[0]
        how = str(sampled.details(metric).get("interval") or "")
        return Number(name, own.value, own.low, own.high, unit, own.n, how)
    values = [one.value for one in seen]
    if not all(map(math.isfinite, values)):
        return Number(name, math.nan, unit=unit, how="a repeat has no finite value")
    mean, low, high = repeats_interval(seen)
    return Number(name, mean, low, high, unit, seen[0].n, f"Student's t over {len(values)} seeds")


def numbers_of(sampled: Sampled, metrics: Iterable[str]) -> tuple[Number, ...]:
    """Those of the metrics that the sampler's cells have."""
    names = {str(part(entry, "metric")) for entry in part(sampled.first, "measurements") or ()}
    return tuple(number_of(sampled, metric) for metric in metrics if metric in names)


def pairs_of(a: Sampled, b: Sampled, metric: str) -> list[tuple[Observation, Observation]]:
    """The metric of both samplers at every seed that they have in common.

    Raises ParameterError where a cell lacks the metric, or they have no seed in common.
    """
    other = {one.seed: one for one in (_observed(record, metric) for record in b.records)}
    pairs = [(one, other[one.seed]) for one in (_observed(r, metric) for r in a.records) if one.seed in other]
    if not pairs:
        raise ParameterError(f"{a.label} and {b.label} have no seed in common")
    return pairs


def _observed(record: Any, metric: str) -> Observation:
    """``observe``, with the reason that the cell gave for a metric that it could not take."""
    try:
        return observe(record, metric)
    except ParameterError:
        label = part(record, "label")
        skipped = (part(record, "details") or {}).get("skipped_metrics") or {}
        why = "; ".join(f"{name} was left out: {reason}" for name, reason in skipped.items())
        raise ParameterError(f"{label} has no {metric}" + (f" ({why})" if why else "")) from None


def unlike(a: Sampled, b: Sampled, keys: Sequence[str]) -> str:
    """A sentence that names the parts of the specification in which the two differ; '' where they agree."""
    different = [key for key in keys if a.spec.get(key) != b.spec.get(key)]
    if not different:
        return ""
    shown = ", ".join(f"{key} ({_shown(a.spec.get(key))} and {_shown(b.spec.get(key))})" for key in different)
    return f"{a.label} and {b.label} were run with unequal {shown}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name") or dict(value))
    return str(value)
