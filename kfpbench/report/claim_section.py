"""What the report shows of the claim card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfpbench.claim.card import SENTENCE, SOURCE, Card
from kfpbench.claim.verdict import FAILS, HOLDS, Number, Part
from kfpbench.claim.wording import interval_text, number_text, value_text

_CLASSES = {HOLDS: "ok", FAILS: "failed"}  # of the report's style; anything else is grey


@dataclass(frozen=True)
class PartRow:
    """One part as the table shows it; ``mark`` is the style of its verdict."""

    title: str
    verdict: str
    mark: str
    value: str
    interval: str
    what: str
    rule: str
    reason: str
    evidence: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CandidateRow:
    """One few-step cell."""

    label: str
    sampler: str
    seconds: tuple[str, str]
    frechet: tuple[str, str]
    difference: tuple[str, str]
    quality: str
    why: str


@dataclass(frozen=True)
class AnswerView:
    """The parts of one spectral sampler, and the few-step cells that it was compared with."""

    label: str
    parts: tuple[PartRow, ...]
    candidates: tuple[CandidateRow, ...]


@dataclass(frozen=True)
class ClaimSection:
    """The card for the template."""

    sentence: str
    source: str
    answers: tuple[AnswerView, ...]
    conditions: dict[str, str]
    limits: tuple[str, ...]


def build_claim(card: Card) -> ClaimSection:
    """The section of a card."""
    answers = tuple(
        AnswerView(
            answer.label,
            tuple(_row(part) for part in answer.parts),
            tuple(_candidate(one) for part in answer.parts for one in part.candidates),
        )
        for answer in card.answers
    )
    return ClaimSection(SENTENCE, SOURCE, answers, card.conditions, card.limits)


def _row(part: Part) -> PartRow:
    number = part.number
    return PartRow(
        title=part.title,
        verdict=part.verdict,
        mark=_CLASSES.get(part.verdict, "skipped"),
        value="" if number is None else value_text(number),
        interval="" if number is None else interval_text(number),
        what="" if number is None else f"{number.name}{f'; {number.how}' if number.how else ''}",
        rule=part.rule,
        reason=part.reason,
        evidence=tuple(number_text(one) for one in part.evidence),
        notes=part.notes,
    )


def _candidate(one: Mapping[str, Any]) -> CandidateRow:
    return CandidateRow(
        label=one["label"],
        sampler=one["sampler"],
        seconds=_shown(one["seconds"]),
        frechet=_shown(one["frechet"]),
        difference=_shown(one["difference"]),
        quality=one["quality"],
        why=one["why"],
    )


def _shown(number: Number | None) -> tuple[str, str]:
    return ("", "") if number is None else (value_text(number), interval_text(number))
