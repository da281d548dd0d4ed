"""What has changed from run A to run B in each metric of each matched cell, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfpbench.compare.machine import machine_difference
from kfpbench.compare.match import Group, Match
from kfpbench.errors import ParameterError
from kfpbench.report.columns import COST_METRICS
from kfpbench.statistics.difference_table import CANNOT, verdict_of
from kfpbench.statistics.main_effects import holm
from kfpbench.statistics.paired_difference import Difference, paired_difference
from kfpbench.store.records import CellRecord

TIMES = frozenset({"seconds_per_image", "seconds_per_image_batch1", "setup_seconds"})
COUNTS = frozenset({"nfe", "setup_nfe"})  # exact: another number is another number
NO_INTERVAL, EQUAL, NOT_COMPARED = "no interval", "equal", "not compared"
ORDER = ("worse", "higher", "lower", "better", NOT_COMPARED, NO_INTERVAL, CANNOT, EQUAL)

Machine = Callable[[CellRecord], Mapping[str, Any]]


@dataclass(frozen=True)
class Change:
    """One metric of one matched cell: its value in A and in B (means over the repeats), and B - A with its interval.

    ``difference`` is None where the two are not compared, for the reason ``why``. ``adjusted_p`` is Holm's p over all
    changes of the comparison, NaN where there is no test.
    """

    label: str
    metric: str
    better: str
    a: float
    b: float
    difference: Difference | None
    why: str = ""
    adjusted_p: float = math.nan

    @property
    def relative(self) -> float:
        """(B - A) / |A|; infinite for A = 0, 0 for A = B."""
        change = self.b - self.a
        if change == 0 or math.isnan(change):
            return change
        return change / abs(self.a) if self.a else math.copysign(math.inf, change)

    @property
    def verdict(self) -> str:
        """'worse' or 'better', 'higher' or 'lower' where no direction is better, when the interval leaves 0 out, or
        for a count; 'equal'; 'cannot be told apart'; 'no interval'; 'not compared'.
        """
        if self.difference is None:
            return NOT_COMPARED
        if math.isclose(self.a, self.b, rel_tol=1e-9):  # two runs of one computation on one machine
            return EQUAL
        if self.metric in COUNTS:
            return self._direction()
        return verdict_of(self.difference, self.better) or NO_INTERVAL

    @property
    def loss(self) -> float:
        """By what share of |A| the metric is worse in B, negative where it is better; where no direction is better, the
        share by which it has changed.
        """
        return {"lower": self.relative, "higher": -self.relative}.get(self.better, abs(self.relative))

    def _direction(self) -> str:
        higher = self.b > self.a
        if self.better == "neither":
            return "higher" if higher else "lower"
        return "better" if higher == (self.better == "higher") else "worse"


def find_changes(
    matches: Sequence[Match], machine_a: Machine, machine_b: Machine, metrics: Sequence[str] | None = None
) -> list[Change]:
    """The changes of all matched cells that ended well in both runs: what is worse first, the largest loss first.

    ``machine_a`` and ``machine_b`` tell on which machine a record was made: times of different machines are not
    compared. ``metrics``: names; all that both cells have when None. Raises ParameterError for a name that no matched
    cell has.
    """
    found = [change for match in matches for change in _of_match(match, machine_a, machine_b, metrics)]
    known = {change.metric for change in found}
    for name in metrics or ():
        if name not in known:
            raise ParameterError(
                "no matched cell has that metric", got=name, allowed=", ".join(sorted(_names(matches))), where="metrics"
            )
    adjusted = holm([math.nan if one.difference is None else one.difference.p_value for one in found])
    tested = [replace(one, adjusted_p=p) for one, p in zip(found, adjusted, strict=True)]
    return sorted(tested, key=lambda one: (ORDER.index(one.verdict), -_sortable(one.loss)))


def _of_match(match: Match, machine_a: Machine, machine_b: Machine, metrics: Sequence[str] | None) -> Iterator[Change]:
    values_a, values_b = _values(match.a), _values(match.b)
    for metric in values_a:
        if metric not in values_b or (metrics is not None and metric not in metrics):
            continue
        a, b = (_with(group, metric) for group in (match.a, match.b))
        common = {record.seed for record in a} & {record.seed for record in b}
        kept_a, kept_b = ([one for one in side if one.seed in common] or side for side in (a, b))
        change = Change(
            match.a.label,
            metric,
            "lower" if metric in COST_METRICS else _better(kept_b[0], metric),
            _mean(kept_a, metric),
            _mean(kept_b, metric),
            None,
        )
        why = _obstacle(match, metric, kept_a, kept_b, machine_a, machine_b)
        if why:
            yield replace(change, why=why)
            continue
        try:
            yield replace(change, difference=paired_difference(kept_b, kept_a, metric))
        except ParameterError as error:
            yield replace(change, why=_reason(error))


def _obstacle(
    match: Match,
    metric: str,
    a: Sequence[CellRecord],
    b: Sequence[CellRecord],
    machine_a: Machine,
    machine_b: Machine,
) -> str:
    """Why a metric of two cells is not compared, beside what ``paired_difference`` refuses; '' when nothing is."""
    if metric in COUNTS:
        return ""
    if metric in COST_METRICS:
        machines = dict.fromkeys(filter(None, (machine_difference(machine_a(x), machine_b(y)) for x in a for y in b)))
        if machines:
            return f"the machines differ: {next(iter(machines))}"
        other = [key for key in ("batch_size", "device") if key in match.differs]
        return f"the cells differ in {', '.join(other)}" if other else ""
    contents = [{_fingerprint(one) for one in side} - {None} for side in (a, b)]
    if all(contents) and not contents[0] & contents[1]:
        return "the data differ in content: another fingerprint under the same name"
    return ""


def _reason(error: ParameterError) -> str:
    """What was refused, with the two values where they are short."""
    got = error.got
    if isinstance(got, dict) and len(got) == 3 and "in" in got:
        values = [str(value) for key, value in got.items() if key != "in"]
        if max(map(len, values)) <= 40:
            return f"{error.what}: {got['in']} {' and '.join(values)}"
    return error.what


def _fingerprint(record: CellRecord) -> Any:
    data = record.details.get("data")
    return data.get("fingerprint") if isinstance(data, dict) else None


def _values(group: Group) -> dict[str, None]:
    """The metrics that some repeat which ended well has, in order."""
    return dict.fromkeys(entry["metric"] for record in group.ok for entry in record.measurements)


def _names(matches: Sequence[Match]) -> set[str]:
    return {name for match in matches for name in _values(match.a) if name in _values(match.b)}


def _with(group: Group, metric: str) -> list[CellRecord]:
    return [record for record in group.ok if any(entry["metric"] == metric for entry in record.measurements)]


def _entry(record: CellRecord, metric: str) -> dict[str, Any]:
    return next(entry for entry in record.measurements if entry["metric"] == metric)


def _better(record: CellRecord, metric: str) -> str:
    return str(_entry(record, metric)["better"])


def _mean(records: Sequence[CellRecord], metric: str) -> float:
    return math.fsum(_entry(record, metric)["value"] for record in records) / len(records)


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
