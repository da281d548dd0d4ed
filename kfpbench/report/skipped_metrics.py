"""Metrics that a cell was asked for and could not take: why an entry of a table is blank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import COST_METRICS
from kfpbench.report.naming import with_own_labels

_NAMES = 12  # in one sentence


@dataclass(frozen=True)
class SkippedMetric:
    """A metric, as the suite names it, with the reason for which the cells of these labels have none of its numbers."""

    metric: str
    reason: str
    labels: tuple[str, ...]

    @property
    def cells(self) -> str:
        """The labels in words, the first twelve by name."""
        more = len(self.labels) - _NAMES
        return "; ".join(self.labels[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def reasons(group: Group) -> dict[str, str]:
    """Metric and reason of what the group's good repeats left out, from their ``details["skipped_metrics"]``.

    Of repeats with several reasons the first one's is given.
    """
    found: dict[str, str] = {}
    for cell in group.cells:
        told = cell.details.get("skipped_metrics")
        if cell.status == "ok" and isinstance(told, Mapping):
            for metric, reason in told.items():
                found.setdefault(str(metric), str(reason))
    return found


def skipped_metrics(groups: Sequence[Group]) -> list[SkippedMetric]:
    """What the groups left out, together where metric and reason agree; metrics by name, reasons as they come."""
    labels: dict[tuple[str, str], list[str]] = {}
    for group in with_own_labels(groups):
        for key in reasons(group).items():
            labels.setdefault(key, []).append(group.label)
    return [SkippedMetric(*key, tuple(labels[key])) for key in sorted(labels, key=lambda key: key[0])]


def why_blank(group: Group, metric: str) -> str:
    """The note of an entry without a number.

    A metric gives several numbers under names of their own, which a record does not trace back to it: so all metrics
    that were left out are told. Costs are none of them.
    """
    told = {} if metric in COST_METRICS else reasons(group)
    return "; ".join(["not measured", *(f"{name} was left out: {reason}" for name, reason in told.items())])
