"""Numbers as text: as many digits as the interval supports, never more."""

from __future__ import annotations

import math


def decimals_for(value: float, half_width: float) -> int:
    """Decimal places for a value with an interval of that half-width; without one, three significant digits.

    The half-width keeps two significant digits when they are 10 to 35 and one above, so that neither the
    value nor its interval shows digits that mean nothing. The result is negative for places before the point
    (-1: tens).
    """
    if _has_length(value, half_width):
        exponent = _exponent(half_width)
        return (1 if half_width < 3.55 * 10.0**exponent else 0) - exponent
    if value == 0 or not math.isfinite(value):
        return 0
    return 0 if float(value).is_integer() and abs(value) < 1e6 else 2 - _exponent(value)


def format_number(value: float, decimals: int) -> str:
    """A value rounded to that many decimal places; thousands grouped; scientific where the plain form is
    unreadable.
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "\N{MINUS SIGN}∞"
    if abs(value) >= 1e300:  # what rounding could carry beyond the largest float
        return f"{value:.0e}".replace("e+", "e").replace("-", "\N{MINUS SIGN}", value < 0)
    rounded = round(value, decimals)
    size = abs(rounded) if rounded else 10.0 ** -max(decimals, 0)
    if size >= 1e7 or size < 1e-4:
        digits = min(max(_exponent(size) + decimals, 0), 6)
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        text = f"{mantissa}e{int(exponent)}" if rounded else "0"
    else:
        text = f"{rounded:,.{max(decimals, 0)}f}"
    # The exponent keeps its hyphen, so that the number can be pasted.
    return "\N{MINUS SIGN}" + text[1:] if text.startswith("-") else text


def format_value(value: float, half_width: float = math.nan) -> str:
    """The value alone, with the digits that its interval supports."""
    return format_number(value, decimals_for(value, half_width))


def format_interval(low: float, high: float) -> str:
    """'low to high' with the digits that its half-width supports; '' where there is no interval or it has no
    length.
    """
    half_width = (high - low) / 2
    if not _has_length(low, half_width):
        return ""
    decimals = decimals_for(low, half_width)
    return f"{format_number(low, decimals)} to {format_number(high, decimals)}"


def format_plus_minus(value: float, half_width: float) -> str:
    """'0.812 ± 0.013', or the value alone where there is no interval or it has no length."""
    decimals = decimals_for(value, half_width)
    if not _has_length(value, half_width):
        return format_number(value, decimals)
    return f"{format_number(value, decimals)} ± {format_number(half_width, decimals)}"


def format_seconds(seconds: float) -> str:
    """A duration in the unit that fits, three significant digits: '620 µs', '1.25 s', '12 min 5 s', '3 h 2
    min'.
    """
    if not math.isfinite(seconds):
        return format_number(seconds, 0)
    if abs(seconds) >= 3600:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    if abs(seconds) >= 119.5:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60} s"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(seconds) * scale >= 0.9995 or unit == "µs":
            return f"{format_significant(seconds * scale)} {unit}"
    raise AssertionError("the last unit always fits")


def format_significant(value: float, digits: int = 3) -> str:
    """The value with that many significant digits."""
    if value == 0:
        return "0"
    return format_number(value, digits - 1 - _exponent(float(f"{value:.{digits - 1}e}")))


def _has_length(value: float, half_width: float) -> bool:
    """Whether there is an interval that is more than the rounding of equal numbers."""
    return math.isfinite(value) and math.isfinite(half_width) and half_width > 1e-12 * abs(value)


def _exponent(value: float) -> int:
    """Decimal exponent: 3 for 1234, -2 for 0.012."""
    return math.floor(math.log10(abs(value)))
