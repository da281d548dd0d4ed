"""Numbers show the digits that their interval supports."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfpbench.report.numbers import (
    decimals_for,
    format_interval,
    format_plus_minus,
    format_seconds,
    format_value,
)


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.81234, 0.0131, "0.812 ± 0.013"),
        (0.81234, 0.0478, "0.81 ± 0.05"),
        (1234.5, 22.0, "1,234 ± 22"),
        (12345.0, 400.0, "12,300 ± 400"),
        (-0.5, 0.1, "\N{MINUS SIGN}0.50 ± 0.10"),
        (35.0, math.nan, "35"),
        (0.123456, math.nan, "0.123"),
        (2.5, 0.0, "2.50"),
        (math.nan, 0.1, "n/a"),
        (math.inf, math.nan, "∞"),
        (0.0, math.nan, "0"),
    ],
)
def test_plus_minus(value, half, text) -> None:
    assert format_plus_minus(value, half) == text


@given(st.floats(1e-3, 1e5), st.floats(1e-4, 1e4))
def test_rounding_moves_a_value_by_little_of_its_interval(value, half) -> None:
    rounded = round(value, decimals_for(value, half))
    assert abs(rounded - value) <= 0.15 * half


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1e300))
def test_every_float_has_a_text(value, half) -> None:
    assert format_value(value, half)
    assert format_plus_minus(value, half)
    assert format_seconds(abs(value))


def test_interval_without_length_is_not_shown() -> None:
    assert format_interval(1.0, 1.0) == ""
    assert format_interval(math.nan, 1.0) == ""
    assert format_interval(6.4, 6.4 + 1e-15) == ""  # the rounding of a mean of equal values
    assert format_plus_minus(6.4, 1e-16) == "6.40"
    assert format_interval(0.8, 0.826) == "0.800 to 0.826"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00062, "620 µs"), (0.0212, "21.2 ms"), (0.9999, "1.00 s"), (1.25, "1.25 s"), (725.0, "12 min 5 s"),
     (10920.0, "3 h 2 min"), (0.0, "0 µs")],
)  # fmt: skip
def test_seconds(seconds, text) -> None:
    assert format_seconds(seconds) == text
