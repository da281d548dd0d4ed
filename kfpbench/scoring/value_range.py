"""What the numbers of images mean: which values are black and white."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import DataError, ParameterError

OVERSHOOT_SHARE = 0.01  # of values that may lie outside [-1, 1], as those of samplers do, by less than 1
STATED_SHARE = 0.05  # the same for a range that was stated
LEAST_NEGATIVE = 0.05  # fewer values below 0 may as well be the overshoot of images in [0, 1]
_ROWS = 512
_REMEDY = "State what black and white are: --range 0,255, --range 0,1 or --range -1,1."


@dataclass(frozen=True)
class ValueRange:
    """Black is ``low``, white is ``high``; ``reason`` says how that is known, ``outside`` counts values beyond."""

    low: float
    high: float
    reason: str
    outside: int = 0

    def to_model(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values with black at -1 and white at 1, float32, nothing clipped; 0 to 255 exactly as data sets scale it."""
        scale = (self.high - self.low) / 2.0
        rows: NDArray[np.float32] = np.asarray(values, dtype=np.float32) / np.float32(scale)
        rows -= np.float32(self.low / scale + 1.0)
        return rows


@dataclass
class _Census:
    """Facts of all values; NaN and infinities are refused before."""

    count: int = 0
    least: float = np.inf
    most: float = -np.inf
    negative: int = 0
    beyond_one: int = 0


def parse_range(text: str) -> tuple[float, float]:
    """'-1,1' as (-1.0, 1.0). Raises ParameterError."""
    parts = text.split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        low, high = np.nan, np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ParameterError(
            "not a range of values", got=text, allowed="LOW,HIGH with LOW < HIGH, such as 0,255", where="--range"
        )
    return low, high


def decide_range(values: NDArray[Any], stated: tuple[float, float] | None, where: str) -> ValueRange:
    """What black and white are in image values of any shape: ``stated``, or by their type and extent.

    - integers from 0 to at most 255, and not all below 2: 0 to 255
    - floats in [0, 1]: 0 to 1
    - floats with at least 5 % below 0, and within [-1, 1] but for 1 % that are nowhere beyond 2: -1 to 1

    Everything else could mean several things, and raises DataError, as do values of which more than 5 % lie outside a
    stated range, or some by more than its length.
    """
    census = _census(values)
    facts = f"{values.dtype} from {census.least:g} to {census.most:g}"
    if stated is not None:
        return _stated(values, stated, census, facts, where)
    unclear = DataError(
        "it is not clear what the values mean",
        got=facts,
        allowed="integers from 0 to 255, or floats in [0, 1] or in [-1, 1]",
        remedy=_REMEDY,
        where=where,
    )
    if census.least == census.most:
        raise unclear
    if values.dtype.kind in "iu":
        if census.least < 0 or not 2 <= census.most <= 255:
            raise unclear
        return ValueRange(0.0, 255.0, f"{facts}: levels 0 to 255")
    if census.least >= 0 and census.most <= 1:
        return ValueRange(0.0, 1.0, f"{facts}: 0 to 1")
    tame = max(-census.least, census.most) <= 2 and census.beyond_one <= OVERSHOOT_SHARE * census.count
    if tame and census.negative >= LEAST_NEGATIVE * census.count:
        return ValueRange(-1.0, 1.0, f"{facts}: -1 to 1", census.beyond_one)
    raise unclear


def _stated(values: NDArray[Any], stated: tuple[float, float], census: _Census, facts: str, where: str) -> ValueRange:
    low, high = stated
    outside = sum(int(np.count_nonzero((part < low) | (part > high))) for part in _parts(values))
    length = high - low
    if outside > STATED_SHARE * census.count or census.least < low - length or census.most > high + length:
        raise DataError(
            "the values do not lie in the range that is stated",
            got=f"{facts}, {outside} of {census.count} outside",
            allowed=f"--range {low:g},{high:g}, at most {STATED_SHARE:.0%} outside, none by more than {length:g}",
            remedy="Correct --range.",
            where=where,
        )
    return ValueRange(low, high, f"{facts}: {low:g} to {high:g}, as stated", outside)


def _census(values: NDArray[Any]) -> _Census:
    found = _Census()
    for part in _parts(values):
        found.count += part.size
        found.least = min(found.least, float(part.min()))
        found.most = max(found.most, float(part.max()))
        if part.dtype.kind == "f":
            found.negative += int(np.count_nonzero(part < 0))
            found.beyond_one += int(np.count_nonzero(np.abs(part) > 1))
    return found


def _parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), _ROWS):
        yield values[start : start + _ROWS]
