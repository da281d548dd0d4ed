"""Part 2: speed-up against the slow reference sampler, Euler-Maruyama with 1000 steps."""

from __future__ import annotations

from kfpbench.claim.evidence import LATENCY, Sampled, numbers_of, unlike
from kfpbench.claim.interleaved import InterleavedRatios
from kfpbench.claim.speed_up import speed_up, throughput_speed_up
from kfpbench.claim.verdict import Part, above
from kfpbench.errors import ParameterError


def judge_reference_speed(
    spectral: Sampled, reference: Sampled, threshold: float, ratios: InterleavedRatios, load: tuple[str, ...]
) -> Part:
    """Holds where the whole interval of time(reference) / time(spectral) at batch 1 is above the threshold."""
    title = f"speed-up against {sampler_name(reference)}"
    rule = f"the time of one image, over the spectral sampler's, is above {threshold:g} with its whole 95 % interval"
    given = ("reference_speed", title, rule, threshold)
    for one in (spectral, reference):
        if not one.records:
            return Part(*given, "missing", one.reason)
    fault = unlike(reference, spectral, ("data", "score", "process"))
    if fault:
        return Part(*given, "missing", fault)
    try:
        number = speed_up(reference, spectral, ratios)
    except ParameterError as error:
        return Part(*given, "missing", error.what)
    evidence = (*throughput_speed_up(reference, spectral, ratios), *numbers_of(reference, (LATENCY, "nfe")))
    cells = {"spectral": spectral.cell, "reference": reference.cell}
    return Part(*given, *above(number, threshold), number, evidence, (*load, *ratios.load(reference, spectral)), cells)


def sampler_name(sampled: Sampled) -> str:
    """What was run, in words: 'euler_maruyama, 1000 steps'."""
    block = sampled.spec.get("sampler") or {}
    steps = block.get("steps")
    name = str(block.get("name") or sampled.label)
    return name if steps is None else f"{name}, {steps} step{'' if steps == 1 else 's'}"
