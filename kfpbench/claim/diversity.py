"""Part 4: loss of diversity against the reference sampler."""

from __future__ import annotations

import math

from kfpbench.claim.evidence import Sampled, numbers_of, pairs_of, unlike
from kfpbench.claim.paired_ratio import paired_ratio
from kfpbench.claim.reference_speed import sampler_name
from kfpbench.claim.verdict import Judged, Number, Part, all_of, at_most
from kfpbench.errors import ParameterError

METRICS = ("recall", "coverage", "vendi_ratio")
_SAME = ("data", "score", "process", "metrics", "n_samples")
_FEWEST_ROWS = 6  # as in paired differences: fewer rows of n are told from nothing by no test


def judge_diversity(spectral: Sampled, reference: Sampled, slight: float) -> Part:
    """Holds where the loss 1 - spectral / reference of each of recall, coverage and Vendi ratio is at most ``slight``.

    Fails where one of them is above it with its whole interval. The number shown is the one that decides.
    """
    title = f"loss of diversity against {sampler_name(reference)}, same score, equal n"
    rule = (
        f"recall, coverage and Vendi ratio each lose at most {100 * slight:g} % of the reference sampler's value, "
        "with their whole 95 % intervals (our reading of 'slight')"
    )
    given = ("diversity", title, rule, slight)
    for one in (spectral, reference):
        if not one.records:
            return Part(*given, "missing", one.reason)
    fault = unlike(spectral, reference, _SAME)
    if fault:
        return Part(*given, "missing", fault)
    judged = [_judge(spectral, reference, metric, slight) for metric in METRICS]
    decision, reason, number = all_of(judged)
    evidence = [one.number for one in judged if one.number is not number]
    evidence += [*numbers_of(spectral, METRICS), *numbers_of(reference, METRICS)]
    notes = ("noise and artefacts can raise recall and Vendi; read them beside coverage and the Fréchet distance",)
    cells = {"spectral": spectral.cell, "reference": reference.cell}
    shown = None if math.isnan(number.value) else number
    return Part(*given, decision, reason, shown, tuple(evidence), notes, cells)


def _judge(spectral: Sampled, reference: Sampled, metric: str, slight: float) -> Judged:
    name = f"loss of {metric.replace('_', ' ')}"
    try:
        pairs = pairs_of(spectral, reference, metric)
        ratio = paired_ratio(pairs)
    except ParameterError as error:
        return Judged(Number(name, math.nan), "missing", error.what)
    loss = Number(name, 1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low, "", pairs[0][0].n, ratio.how)
    if not loss.has_interval:
        return Judged(loss, "missing", ratio.how)
    decision, reason = at_most(loss, slight)
    rows = sum(abs(a.value - (1.0 - slight) * b.value) * (a.n or 0) for a, b in pairs)
    if decision in ("cleared", "missed") and pairs[0][0].fraction and rows < _FEWEST_ROWS:
        reason = f"the margin to the threshold is {rows:.1f} of {pairs[0][0].n} rows: too few to tell"
        return Judged(loss, "crosses", reason)
    return Judged(loss, decision, reason)
