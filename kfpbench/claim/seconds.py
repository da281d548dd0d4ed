"""Part 1: seconds per image."""

from __future__ import annotations

from kfpbench.claim.evidence import LATENCY, THROUGHPUT, Sampled, number_of, numbers_of
from kfpbench.claim.verdict import Part, at_most
from kfpbench.errors import ParameterError


def judge_seconds(spectral: Sampled, threshold: float, load: tuple[str, ...]) -> Part:
    """Holds where the whole interval of the median time of one image at batch 1 is at most the threshold.

    ``load`` are notes on a machine that had other work to do.
    """
    rule = f"the median time of one image at batch 1 is at most {threshold:g} s, with its whole 95 % interval"
    given = ("seconds", "seconds per image, batch 1", rule, threshold)
    if not spectral.records:
        return Part(*given, "missing", spectral.reason)
    try:
        number = number_of(spectral, LATENCY, f"seconds per image of {spectral.label} at batch 1", "s")
    except ParameterError as error:
        return Part(*given, "missing", error.what)
    note = str(spectral.details(LATENCY).get("note") or "")
    notes = tuple(dict.fromkeys((*load, *([note] if note else []))))
    evidence = numbers_of(spectral, (THROUGHPUT, "setup_seconds", "nfe"))
    return Part(*given, *at_most(number, threshold), number, evidence, notes, {"spectral": spectral.cell})
