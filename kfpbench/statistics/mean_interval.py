"""Mean of independent repeats with Student's 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kfpbench.errors import ParameterError

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of independent repeats by Student's t: mean -+ t(r - 1) s / sqrt(r).

    Raises ParameterError for fewer than two values or one that is not finite.
    """
    mean, error = mean_and_error(values)
    half = t_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * error
    return mean, mean - half, mean + half


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error s / sqrt(r), s unbiased. Raises as ``mean_interval``."""
    r = len(values)
    if r < 2 or not all(math.isfinite(value) for value in values):
        raise ParameterError("an interval needs two or more finite values", got=list(values))
    mean = math.fsum(values) / r
    variance = math.fsum((value - mean) ** 2 for value in values) / (r - 1)
    return mean, math.sqrt(variance / r)


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t with ``df`` degrees of freedom, of the normal law for df = inf."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))


def two_sided_p(value: float, error: float, df: float) -> float:
    """P(|T| >= |value| / error) of Student's t; 1 for value = error = 0, 0 for another value without an error."""
    from scipy.special import ndtr, stdtr

    if error == 0:
        return 1.0 if value == 0 else 0.0
    t = -abs(value) / error
    return 2.0 * float(ndtr(t) if math.isinf(df) else stdtr(df, t))
