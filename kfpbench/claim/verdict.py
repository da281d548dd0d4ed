"""Verdicts: a number with its interval against a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "cannot be tested here"
Verdict = Literal["holds", "does not hold", "cannot be tested here"]
Decision = Literal["cleared", "missed", "crosses", "missing"]

_VERDICTS: dict[Decision, Verdict] = {
    "cleared": "holds",
    "missed": "does not hold",
    "crosses": "cannot be tested here",
    "missing": "cannot be tested here",
}


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval, NaN where there is none; ``how`` says how the interval was made."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    n: int | None = None
    how: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known; an end may be infinite where a quantity has no bound."""
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Part:
    """One part of the card.

    ``rule`` and ``threshold`` are what it was decided by, ``number`` is what was compared, ``evidence`` what bears on
    it without deciding, ``cells`` the ids of the cells by role. ``decision`` tells the two kinds of 'cannot be tested
    here' apart: ``crosses``, the interval holds the threshold; ``missing``, there is nothing to compare.
    """

    key: str
    title: str
    rule: str
    threshold: float
    decision: Decision
    reason: str = ""
    number: Number | None = None
    evidence: tuple[Number, ...] = ()
    notes: tuple[str, ...] = ()
    cells: dict[str, str] = field(default_factory=dict)
    candidates: tuple[dict[str, Any], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """In the card's three words."""
        return _VERDICTS[self.decision]


def at_most(number: Number, threshold: float) -> tuple[Decision, str]:
    """``cleared`` where the whole interval is at most the threshold, ``missed`` where it is all above."""
    if not math.isfinite(number.value) or not number.has_interval:
        return "missing", f"{number.name} has no interval" + (f": {number.how}" if number.how else "")
    if number.high <= threshold:
        return "cleared", ""
    if number.low > threshold:
        return "missed", ""
    return "crosses", "the 95 % interval holds the threshold: with more images, or more repeats, it may be told"


@dataclass(frozen=True)
class Judged:
    """A number of a part that has several, with what it says."""

    number: Number
    decision: Decision
    reason: str = ""


def all_of(judged: Sequence[Judged]) -> tuple[Decision, str, Number]:
    """All must be cleared; one that misses decides. Returns the decision, the reasons, and the number that decides.

    That is the largest one of those with the decision. No correction for their number: 'holds' needs none, since
    every one must be cleared; a false 'does not hold' is as many times as likely as there are numbers.
    """
    order: tuple[Decision, ...] = ("missed", "missing", "crosses", "cleared")
    decision = min((one.decision for one in judged), key=order.index)
    deciding = [one.number for one in judged if one.decision == decision]
    number = max(deciding, key=lambda one: -math.inf if math.isnan(one.value) else one.value)
    reasons = [f"{one.number.name}: {one.reason}" for one in judged if one.reason and one.decision == decision]
    return decision, "; ".join(reasons), number


def above(number: Number, threshold: float) -> tuple[Decision, str]:
    """``cleared`` where the whole interval is above the threshold, ``missed`` where it is at most the threshold."""
    decision, reason = at_most(number, threshold)
    opposite: dict[Decision, Decision] = {"cleared": "missed", "missed": "cleared"}
    return opposite.get(decision, decision), reason
