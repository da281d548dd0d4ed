"""The comparison of two run folders as one value: matches, changes, what is lost, and the gate's verdict."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kfpbench.compare.changes import Change, find_changes
from kfpbench.compare.conditions import differing_conditions
from kfpbench.compare.gate import Failure, Limits, judge
from kfpbench.compare.machine import machine_of
from kfpbench.compare.match import Matching, match_cells
from kfpbench.store.run_folder import RunFolder

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunComparison:
    """Run B against run A, B - A.

    ``changes``: what is worse first. ``lost``: label and reason of cells that ended well in A and have no result in B;
    ``gained`` the labels of the opposite. ``conditions``: what differs beside the cells. ``failures`` is None without
    a gate.
    """

    a: str
    b: str
    matching: Matching
    changes: tuple[Change, ...]
    lost: tuple[tuple[str, str], ...]
    gained: tuple[str, ...]
    conditions: dict[str, tuple[Any, Any]]
    failures: tuple[Failure, ...] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many changes have each verdict."""
        return dict(Counter(change.verdict for change in self.changes))

    @property
    def exit_code(self) -> int:
        """1 when the gate fails, else 0."""
        return int(bool(self.failures))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values, without NaN (null) and infinity ('inf' or '-inf'). Schema version 1: later
        versions may add keys; what is here keeps its name and its meaning.
        """
        content = {
            "schema_version": SCHEMA_VERSION,
            "a": self.a,
            "b": self.b,
            "difference": "b - a",
            "conditions": {name: {"a": ours, "b": theirs} for name, (ours, theirs) in self.conditions.items()},
            "matches": [
                {
                    "label": match.a.label,
                    "label_b": match.b.label,
                    "by": match.by,
                    "cells_a": [record.cell for record in match.a.records],
                    "cells_b": [record.cell for record in match.b.records],
                    "differs": {key: {"a": ours, "b": theirs} for key, (ours, theirs) in match.differs.items()},
                }
                for match in self.matching.matches
            ],
            "only_a": [group.label for group in self.matching.only_a],
            "only_b": [group.label for group in self.matching.only_b],
            "lost": [{"label": label, "reason": why} for label, why in self.lost],
            "gained": list(self.gained),
            "verdicts": self.counts,
            "changes": [_change(one) for one in self.changes],
            "failures": None
            if self.failures is None
            else [{"label": one.label, "metric": one.metric or None, "text": one.text} for one in self.failures],
        }
        return dict(_finite(content))


def compare_runs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    limits: Limits | None = None,
) -> RunComparison:
    """Compare the run in folder ``b`` with that in folder ``a``, the base. Writes nothing.

    Cells are matched by identity, else by label and axes (``match_cells``); differences are paired, with intervals
    (``find_changes``); cells that differ in data, reference, features or n, or have no seed in common, are not
    compared, and times of different machines are not either: the reason stands beside them. Raises StoreError for a
    folder without a run, ParameterError as ``find_changes`` and ``judge`` do.
    """
    folders = RunFolder.open(a), RunFolder.open(b)
    manifests = [folder.read_manifest() for folder in folders]
    matching = match_cells(*(folder.records() for folder in folders))
    machine_a, machine_b = (partial(machine_of, manifest=manifest) for manifest in manifests)
    changes = find_changes(matching.matches, machine_a, machine_b, metrics)
    lost = tuple(
        (match.a.label, match.b.records[0].status + ", " + match.b.records[0].reason)
        for match in matching.matches
        if match.a.ok and not match.b.ok
    )
    gained = tuple(match.a.label for match in matching.matches if match.b.ok and not match.a.ok)
    failures = None
    if limits is not None:
        compared = {change.label for change in changes if change.difference is not None}
        known = {label for label, _ in lost}
        groups = [*matching.only_a, *(match.a for match in matching.matches)]
        missing = [one.label for one in groups if one.ok and one.label not in compared and one.label not in known]
        failures = tuple(judge(limits, changes, lost, missing))
    return RunComparison(
        os.fspath(a), os.fspath(b), matching, tuple(changes), lost, gained, differing_conditions(*manifests), failures
    )


def _change(one: Change) -> dict[str, Any]:
    made = one.difference
    return {
        "label": one.label,
        "metric": one.metric,
        "better": one.better,
        "verdict": one.verdict,
        "a": one.a,
        "b": one.b,
        "relative": one.relative,
        "difference": None if made is None else made.value,
        "ci_low": None if made is None else made.low,
        "ci_high": None if made is None else made.high,
        "how": None if made is None else made.how,
        "adjusted_p": one.adjusted_p,
        "why": one.why or None,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
