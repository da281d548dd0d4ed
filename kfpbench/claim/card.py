"""The claim card of a run: the five parts for every spectral sampler, what they were tested under, and claim.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kfpbench.claim.conditions import conditions, limits, load_notes
from kfpbench.claim.diversity import judge_diversity
from kfpbench.claim.evidence import Sampled, find_sampler, find_samplers
from kfpbench.claim.few_step_speed import judge_few_step_speed
from kfpbench.claim.interleaved import InterleavedRatios, read_times
from kfpbench.claim.memorisation import judge_memorisation
from kfpbench.claim.reference_speed import judge_reference_speed
from kfpbench.claim.seconds import judge_seconds
from kfpbench.claim.verdict import Number, Part
from kfpbench.errors import StoreError
from kfpbench.store.atomic import write_bytes
from kfpbench.suite.schema import ClaimBlock

FILE_NAME = "claim.json"
SCHEMA_VERSION = 1
SENTENCE = "0.29 s per CIFAR-10 image with a slight loss of diversity"
SOURCE = "Wu and Kawahara, Entropy 2026, 28(3):290, doi 10.3390/e28030290"


@dataclass(frozen=True)
class Answer:
    """The five parts for one spectral sampler; ``sampler`` is what was run, as recorded."""

    label: str
    sampler: dict[str, Any]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Card:
    """The claim card. ``conditions`` are name and text, ``limits`` sentences, ``options`` the `claim:` block."""

    suite: str
    options: dict[str, Any]
    conditions: dict[str, str]
    limits: tuple[str, ...]
    answers: tuple[Answer, ...]


def build_card(
    manifest: Mapping[str, Any], records: Iterable[Any], ratios: InterleavedRatios | None = None
) -> Card | None:
    """The card of a run, None where its manifest has no `claim`.

    ``records`` are cell records, as mappings (lines of cells.jsonl) or objects; the last of each cell. Raises
    StoreError for a `claim` that is none.
    """
    if not manifest.get("claim"):
        return None
    try:
        claim = ClaimBlock.model_validate_json(json.dumps(manifest["claim"]))
    except ValidationError as error:
        raise StoreError(f"the manifest's claim cannot be read: {error}") from error
    records = list(records)
    ratios = ratios or InterleavedRatios()
    reference = find_sampler(records, claim.reference)
    few_step = [one for label in claim.few_step for one in find_samplers(records, label)]
    spectral = [find_sampler(records, label) for label in claim.spectral_labels]
    control = None if claim.control is None else find_sampler(records, claim.control)
    suite = manifest.get("suite")
    return Card(
        str(suite.get("name") if isinstance(suite, Mapping) else suite),
        claim.model_dump(mode="json"),
        conditions(manifest, reference, spectral),
        tuple(limits(reference, spectral, control, claim.slight, claim.copied)),
        tuple(_answer(claim, manifest, one, reference, few_step, ratios) for one in spectral),
    )


def _answer(
    claim: ClaimBlock,
    manifest: Mapping[str, Any],
    spectral: Sampled,
    reference: Sampled,
    few_step: list[Sampled],
    ratios: InterleavedRatios,
) -> Answer:
    own = load_notes(manifest, spectral)
    in_turns = () if not ratios.note else (ratios.note,)
    parts = (
        judge_seconds(spectral, claim.seconds, own),
        judge_reference_speed(
            spectral, reference, claim.faster, ratios, (*load_notes(manifest, spectral, reference), *in_turns)
        ),
        judge_few_step_speed(spectral, few_step, claim.faster, ratios, (*own, *in_turns)),
        judge_diversity(spectral, reference, claim.slight),
        judge_memorisation(spectral, reference, claim.copied),
    )
    return Answer(spectral.label, dict(spectral.spec.get("sampler") or {}), parts)


def write_claim(manifest: Mapping[str, Any], records: Iterable[Any], folder: Path) -> Card | None:
    """Write claim.json of a run whose suite has a `claim`, and return the card; None, and no file, for any other."""
    card = card_of_run(manifest, records, folder)
    if card is None:
        (folder / FILE_NAME).unlink(missing_ok=True)  # of an earlier version of the suite
    else:
        text = json.dumps(card_as_plain(card), indent=2, allow_nan=False)
        write_bytes(folder / FILE_NAME, (text + "\n").encode("ascii"))
    return card


def card_of_run(manifest: Mapping[str, Any], records: Iterable[Any], folder: Path) -> Card | None:
    """``build_card`` with the times that the run folder holds; nothing is read where there is no claim."""
    return build_card(manifest, records, read_times(folder)) if manifest.get("claim") else None


def card_as_plain(card: Card) -> dict[str, Any]:
    """claim.json as plain values: numbers that are not known are null, infinite ones the text 'inf' or '-inf'.

    Schema version 1. Later versions may add keys; what is here keeps its name and its meaning.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "sentence": SENTENCE,
        "source": SOURCE,
        "suite": card.suite,
        "options": card.options,
        "conditions": card.conditions,
        "limits": list(card.limits),
        "answers": [
            {"spectral": one.label, "sampler": _plain(one.sampler), "parts": [_part(item) for item in one.parts]}
            for one in card.answers
        ],
    }


def _part(item: Part) -> dict[str, Any]:
    return {
        "part": item.key,
        "title": item.title,
        "verdict": item.verdict,
        "decision": item.decision,
        "reason": item.reason,
        "rule": item.rule,
        "threshold": item.threshold,
        "number": _plain(item.number),
        "evidence": _plain(item.evidence),
        "notes": list(item.notes),
        "cells": dict(item.cells),
        "candidates": _plain(item.candidates),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        names = {"low": "ci_low", "high": "ci_high"}
        return {names.get(one.name, one.name): _plain(getattr(value, one.name)) for one in fields(value)}
    if is_dataclass(value):
        raise TypeError(f"{type(value).__name__} has no plain form")
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
