"""What black and white are: decided where it is clear, refused where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench.errors import DataError, ParameterError
from kfpbench.scoring.value_range import decide_range, parse_range

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (20, 48), dtype=np.uint8)
UNIT = LEVELS / 255.0
SYMMETRIC = LEVELS.astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize(
    ("values", "extent"),
    [
        (LEVELS, (0, 255)),
        (LEVELS.astype(np.int64), (0, 255)),
        (UNIT, (0, 1)),
        (UNIT.astype(np.float16), (0, 1)),
        (SYMMETRIC, (-1, 1)),
        (SYMMETRIC.astype(np.float64), (-1, 1)),
    ],
)
def test_clear_values_become_rows_of_the_model(values, extent):
    decided = decide_range(values, None, "here")
    assert (decided.low, decided.high, decided.outside) == (*extent, 0)
    rows = decided.to_model(values)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, SYMMETRIC, atol=1e-3 if values.dtype == np.float16 else 3e-7)
    if values.dtype == np.uint8:
        np.testing.assert_array_equal(rows, SYMMETRIC)  # the very floats of the data sets: a copy is at distance 0
    if values.dtype == np.float32:
        np.testing.assert_array_equal(rows, values)


def test_overshoot_of_a_sampler_is_kept_and_counted():
    values = SYMMETRIC.copy()
    values.flat[:9] = 1.3
    decided = decide_range(values, None, "here")
    assert (decided.low, decided.high, decided.outside) == (-1, 1, 9)
    assert decided.to_model(values).max() == np.float32(1.3)


@pytest.mark.parametrize(
    "values",
    [
        LEVELS // 200,  # 0 and 1: black and white, or nearly black?
        LEVELS.astype(np.uint16) * 257,
        LEVELS.astype(np.int16) - 128,
        LEVELS.astype(np.float32),
        UNIT * 1.2,
        np.where(UNIT < 0.005, -0.01, UNIT),  # [0, 1] with some overshoot, not [-1, 1]
        RNG.standard_normal((20, 48)),
        SYMMETRIC * 2.5,
        np.zeros((20, 48)),
        np.full((20, 48), 7, dtype=np.uint8),
    ],
)
def test_unclear_values_are_refused_with_the_remedy(values):
    with pytest.raises(DataError, match=r"here: it is not clear what the values mean; got .*--range 0,255"):
        decide_range(values, None, "here")


def test_a_stated_range_holds():
    decided = decide_range(LEVELS.astype(np.float32), (0.0, 255.0), "here")
    np.testing.assert_array_equal(decided.to_model(LEVELS.astype(np.float32)), SYMMETRIC)
    assert decided.reason == "float32 from 0 to 255: 0 to 255, as stated"
    sixteen = LEVELS.astype(np.uint16) * 257
    np.testing.assert_allclose(decide_range(sixteen, (0.0, 65535.0), "here").to_model(sixteen), SYMMETRIC, atol=3e-7)
    with pytest.raises(DataError, match=r"do not lie in the range that is stated; got 'uint8 .* outside'"):
        decide_range(LEVELS, (0.0, 1.0), "here")


@pytest.mark.parametrize("text", ["", "1", "1,0", "0,0", "0,1,2", "a,b", "0,inf", "nan,1"])
def test_bad_ranges_are_refused(text):
    with pytest.raises(ParameterError, match="--range: not a range"):
        parse_range(text)
    assert parse_range("-1, 1") == (-1.0, 1.0)
