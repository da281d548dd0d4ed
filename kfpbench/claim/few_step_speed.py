"""Part 3: speed-up against the best few-step solver at equal Frechet distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.claim.evidence import LATENCY, Sampled, number_of, unlike
from kfpbench.claim.interleaved import InterleavedRatios
from kfpbench.claim.reference_speed import sampler_name
from kfpbench.claim.speed_up import speed_up, throughput_speed_up
from kfpbench.claim.verdict import Number, Part, above
from kfpbench.errors import ParameterError
from kfpbench.statistics.paired_difference import paired_difference

METRIC = "frechet"
EQUAL, BETTER, WORSE, UNCOMPARED = "cannot be told apart", "clearly better", "clearly worse", "not compared"


@dataclass(frozen=True)
class Candidate:
    """A few-step cell: its time, its Frechet distance, and the difference of that from the spectral sampler's."""

    sampled: Sampled
    quality: str
    seconds: Number | None = None
    frechet: Number | None = None
    difference: Number | None = None
    why: str = ""

    @property
    def as_good(self) -> bool:
        """Whether its distance is not clearly worse."""
        return self.quality in (EQUAL, BETTER)


def judge_few_step_speed(
    spectral: Sampled, few_step: Sequence[Sampled], threshold: float, ratios: InterleavedRatios, load: tuple[str, ...]
) -> Part:
    """Holds where the fastest few-step cell of no clearly worse Frechet distance takes more time than the spectral
    sampler, by the whole interval of the ratio at batch 1.
    """
    title = "speed-up against the best few-step solver at equal Fréchet distance"
    rule = (
        "among the few-step cells whose Fréchet distance is not clearly worse (95 % interval of the paired "
        f"difference), the fastest one's time, over the spectral sampler's, is above {threshold:g} with its whole 95 % "
        "interval"
    )
    given = ("few_step_speed", title, rule, threshold)
    if not spectral.records:
        return Part(*given, "missing", spectral.reason)
    found = [_candidate(one, spectral) for one in few_step]
    table = tuple(_row(one) for one in found)
    compared = [one for one in found if one.quality != UNCOMPARED]
    usable = [one for one in compared if one.as_good and one.seconds is not None and math.isfinite(one.seconds.value)]
    if not compared:
        why = "; ".join(dict.fromkeys(one.why for one in found if one.why))
        return Part(*given, "missing", f"no few-step cell can be compared: {why}", candidates=table)
    if not usable:
        reason = f"none of the {len(compared)} few-step cells reaches the spectral sampler's Fréchet distance"
        return Part(*given, "missing", reason, candidates=table, cells={"spectral": spectral.cell})
    best = min(usable, key=_seconds)
    try:
        number = speed_up(best.sampled, spectral, ratios)
    except ParameterError as error:
        return Part(*given, "missing", error.what, candidates=table)
    evidence = [*throughput_speed_up(best.sampled, spectral, ratios)]
    evidence += [one for one in (best.frechet, best.difference) if one is not None]
    evidence.append(number_of(spectral, METRIC))
    return Part(
        *given,
        *above(number, threshold),
        number,
        tuple(evidence),
        (_choice(best, len(usable), found), *load, *ratios.load(best.sampled, spectral)),
        {"spectral": spectral.cell, "few_step": best.sampled.cell},
        table,
    )


def _candidate(one: Sampled, spectral: Sampled) -> Candidate:
    if not one.records:
        return Candidate(one, UNCOMPARED, why=one.reason)
    fault = unlike(one, spectral, ("data", "score", "process"))
    if fault:
        return Candidate(one, UNCOMPARED, why=fault)
    try:
        seconds, frechet = number_of(one, LATENCY, unit="s"), number_of(one, METRIC)
        made = paired_difference(one.records, spectral.records, METRIC)
    except ParameterError as error:
        return Candidate(one, UNCOMPARED, why=error.what)
    name = f"Fréchet distance of {one.label} less that of {spectral.label}"
    difference = Number(name, made.value, made.low, made.high, how=made.how)
    if not difference.has_interval:
        why = f"the difference has no interval: {made.how}"
        return Candidate(one, UNCOMPARED, seconds, frechet, difference, why)
    quality = WORSE if made.low > 0 else BETTER if made.high < 0 else EQUAL
    return Candidate(one, quality, seconds, frechet, difference)


def _seconds(one: Candidate) -> float:
    assert one.seconds is not None  # usable candidates have a time
    return one.seconds.value


def _choice(best: Candidate, usable: int, found: Sequence[Candidate]) -> str:
    word = "clearly better" if best.quality == BETTER else "not to be told apart from the spectral sampler's"
    note = f"taken: {best.sampled.label}, that is {sampler_name(best.sampled)}, the fastest of {usable} cells that "
    note += f"reach the spectral sampler's Fréchet distance, of {len(found)}; its own is {word}"
    left = [one.sampled.label for one in found if one.quality == UNCOMPARED]
    return f"{note}; not compared: {', '.join(left)}" if left else note


def _row(one: Candidate) -> dict[str, Any]:
    return {
        "label": one.sampled.label,
        "sampler": sampler_name(one.sampled),
        "quality": one.quality,
        "seconds": one.seconds,
        "frechet": one.frechet,
        "difference": one.difference,
        "why": one.why,
    }
