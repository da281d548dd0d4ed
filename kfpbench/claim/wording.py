"""Numbers of the card as text."""

from __future__ import annotations

import math

from kfpbench.claim.verdict import Number
from kfpbench.report.numbers import format_interval, format_seconds, format_significant, format_value


def value_text(number: Number) -> str:
    """The value with its unit, with the digits that its interval supports."""
    if math.isnan(number.value):
        return "not known"
    if number.unit == "s":
        return format_seconds(number.value)
    half = (number.high - number.low) / 2 if number.has_interval else math.nan
    text = format_value(number.value, half) if math.isfinite(half) else format_significant(number.value)
    return f"{text} times" if number.unit == "times" else text


def interval_text(number: Number) -> str:
    """'low to high', '' where there is no interval or it has no length."""
    if not number.has_interval or number.low == number.high:
        return ""
    if number.unit == "s":
        return f"{format_seconds(number.low)} to {format_seconds(number.high)}"
    return format_interval(number.low, number.high)


def number_text(number: Number) -> str:
    """Name, value, interval and n in one line."""
    ends = interval_text(number)
    n = f", n = {number.n:,}" if number.n is not None and number.unit == "" else ""
    return f"{number.name}: {value_text(number)}{f' (95 %: {ends})' if ends else ''}{n}"
