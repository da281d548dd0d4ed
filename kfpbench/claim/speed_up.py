"""How many times as long one sampler takes for an image as another."""

from __future__ import annotations

import math

from kfpbench.claim.evidence import LATENCY, THROUGHPUT, Sampled, number_of, unlike
from kfpbench.claim.interleaved import InterleavedRatios
from kfpbench.claim.verdict import Number
from kfpbench.errors import ParameterError

MACHINE = ("device", "dtype")


def speed_up(slow: Sampled, fast: Sampled, ratios: InterleavedRatios, metric: str = LATENCY) -> Number:
    """seconds(slow) / seconds(fast) with its 95 % interval.

    From times taken in turns where the run has them: what disturbs the machine then hits both. Else from the cells' own
    medians, by the ends of their intervals (low / high to high / low): at least 95 % where the two are independent.
    Raises ParameterError where a cell has no time, or they ran on unequal devices or at unequal batches.
    """
    fault = unlike(slow, fast, MACHINE if metric == LATENCY else (*MACHINE, "batch_size"))
    if fault:
        raise ParameterError(fault)
    at = "batch 1" if metric == LATENCY else f"batch {fast.spec.get('batch_size')}"
    name = f"time of {slow.label} over time of {fast.label} at {at}"
    found = ratios.find(slow, fast) if metric == LATENCY else None
    if found is not None:
        return Number(name, *found.interval, "times", found.rounds, found.how)
    above, below = number_of(slow, metric), number_of(fast, metric)
    if not (below.value > 0 and above.value > 0):
        return Number(name, math.nan, unit="times", how="a time is not positive")
    value = above.value / below.value
    if not (above.has_interval and below.has_interval and below.low > 0):
        return Number(name, value, unit="times", how="a time has no interval")
    how = "ends of the intervals of both times, which were not taken in turns"
    return Number(name, value, above.low / below.high, above.high / below.low, "times", how=how)


def throughput_speed_up(slow: Sampled, fast: Sampled, ratios: InterleavedRatios) -> tuple[Number, ...]:
    """The same at the stated batch, as evidence; nothing where it cannot be had."""
    try:
        return (speed_up(slow, fast, ratios, THROUGHPUT),)
    except ParameterError:
        return ()
