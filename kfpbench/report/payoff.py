"""After how many images a sampler's setup has paid for itself against another sampler, setup for setup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.numbers import format_number


@dataclass(frozen=True)
class BreakEven:
    """Number of images with the range that the intervals of setups and times allow; infinity: never."""

    images: float
    low: float
    high: float


@dataclass(frozen=True)
class PayoffTable:
    """Rows of (label, entries, cell) against baseline labels; an entry is (images, range), both text."""

    baselines: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...], str], ...]


def images_to_pay(setup: float, seconds: float, baseline_seconds: float, baseline_setup: float = 0.0) -> float:
    """The n at which setup + n seconds = baseline_setup + n baseline_seconds: (setup difference) / (time
    difference).

    Infinity when the sampler is no faster than the baseline, 0 when its setup is the cheaper one, NaN when a
    number is missing.
    """
    if not all(map(math.isfinite, (setup, seconds, baseline_seconds, baseline_setup))):
        return math.nan
    if seconds >= baseline_seconds:
        return math.inf
    return max(setup - baseline_setup, 0.0) / (baseline_seconds - seconds)


def break_even(
    setup: Estimate, seconds: Estimate, baseline_seconds: Estimate, baseline_setup: Estimate | None = None
) -> BreakEven:
    """``images_to_pay`` at the estimates, and at those ends of all intervals, of setups and times, that favour and
    disfavour it.
    """
    other = Estimate(0.0) if baseline_setup is None else baseline_setup
    (low, high), (base_low, base_high) = seconds.bounds, baseline_seconds.bounds
    (setup_low, setup_high), (other_low, other_high) = setup.bounds, other.bounds
    return BreakEven(
        images_to_pay(setup.value, seconds.value, baseline_seconds.value, other.value),
        images_to_pay(setup_low, low, base_high, other_high),
        images_to_pay(setup_high, high, base_low, other_low),
    )


def break_even_of_saving(setup: float, saved: float, low: float = math.nan, high: float = math.nan) -> BreakEven:
    """The number of images at which ``saved`` seconds per image, in [low, high], have paid for ``setup`` more seconds
    of setup than the baseline's. The range is NaN without an interval.
    """
    return BreakEven(*(images_to_pay(setup, 0.0, each) for each in (saved, high, low)))


def payoff_table(groups: Sequence[Group]) -> PayoffTable | None:
    """Samplers that evaluate the score in their setup, against those that do not; None when one side is
    empty.
    """
    needed = ("setup_seconds", "seconds_per_image")
    timed = [group for group in groups if all(name in group.estimates for name in needed)]
    learners = [group for group in timed if group.estimates.get("setup_nfe", Estimate(math.nan)).value > 0]
    baselines = [group for group in timed if group not in learners]
    if not learners or not baselines:
        return None
    rows = []
    for group in learners:
        cells = [
            break_even(
                group.estimates["setup_seconds"],
                group.estimates["seconds_per_image"],
                other.estimates["seconds_per_image"],
                other.estimates["setup_seconds"],
            )
            for other in baselines
        ]
        rows.append((group.label, tuple(payoff_text(cell) for cell in cells), group.first.ident))
    return PayoffTable(tuple(group.label for group in baselines), tuple(rows))


def payoff_text(cell: BreakEven) -> tuple[str, str]:
    """The number and its range as text; '' for what is not known."""
    if math.isnan(cell.images):
        return "", ""
    if math.isinf(cell.images) and math.isinf(cell.low):
        return "never", ""
    value = "never" if math.isinf(cell.images) else _images(cell.images)
    if math.isnan(cell.low) or math.isnan(cell.high):
        return value, ""
    low, high = _images(cell.low), _images(cell.high)
    return value, "" if low == high else f"{low} to {'never' if math.isinf(cell.high) else high}"


def _images(number: float) -> str:
    """A count of images, rounded up, to three significant digits."""
    if math.isinf(number):
        return "∞"
    whole = math.ceil(number)
    return format_number(whole, min(3 - len(str(whole)), 0))
