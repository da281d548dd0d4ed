"""The ratio of a metric between two samplers, from values that were paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfpbench.errors import ParameterError
from kfpbench.statistics.mean_interval import CONFIDENCE, t_quantile
from kfpbench.statistics.observation import Observation
from kfpbench.statistics.paired_difference import check_match


@dataclass(frozen=True)
class Ratio:
    """A / B with its 95 % interval, NaN where it has none, and how it was made or why it was not."""

    value: float
    low: float
    high: float
    how: str


def paired_ratio(pairs: Sequence[tuple[Observation, Observation]]) -> Ratio:
    """theta_A / theta_B; ``pairs`` are the two at each seed. The interval is Fieller's:

        all q with (A - q B)^2 <= t^2 (V_A - 2 q V_AB + q^2 V_B)

    so that q is outside exactly when A - q B is told from 0: what both cells share cancels, and nothing is assumed of
    the law of a ratio. One seed: variances and covariance are the delete-half jackknife's, over the half-sample values
    that both cells have in common (``paired_difference``), t with R - 1 degrees of freedom. Two or more seeds: those of
    the means over them. There is no interval where B is not told from 0: the set of all such q has no bound. Cost O(R).
    Raises ParameterError for cells that do not match in data, reference, features or n.

    Source: Fieller, "Some problems in interval estimation", J. Royal Statistical Society B 16(2):175, 1954.
    """
    for a, b in pairs:
        check_match(a, b)
    if not pairs or not all(math.isfinite(one.value) for pair in pairs for one in pair):
        raise ParameterError("a ratio needs finite values", got=[(a.value, b.value) for a, b in pairs])
    values = np.array([[a.value, b.value] for a, b in pairs])  # (seeds, 2)
    top, bottom = values.mean(axis=0)
    if bottom <= 0:
        return Ratio(math.nan, math.nan, math.nan, "the reference's value is 0: there is nothing to lose")
    if len(pairs) > 1:
        covariance, df = np.cov(values.T) / len(pairs), len(pairs) - 1
        how = f"Fieller's interval over {len(pairs)} seeds, paired"
    else:
        a, b = pairs[0]
        if len(a.replicates) < 2 or len(a.replicates) != len(b.replicates) or not a.n:
            return Ratio(top / bottom, math.nan, math.nan, "the cells have no half-sample values in common")
        half = a.n // 2
        covariance = half / (a.n - half) * np.cov(np.array([a.replicates, b.replicates]))
        covariance += np.diag([a.extra_sd**2, b.extra_sd**2])
        df = len(a.replicates) - 1
        how = f"Fieller's interval, paired delete-half jackknife, R = {df + 1}"
    low, high = _fieller(float(top), float(bottom), covariance, t_quantile(0.5 + CONFIDENCE / 2, df))
    if math.isnan(low):
        how = "the reference's own value cannot be told from 0"
    return Ratio(float(top / bottom), low, high, how)


def _fieller(top: float, bottom: float, covariance: np.ndarray, t: float) -> tuple[float, float]:
    """Roots of (B^2 - t^2 V_B) q^2 - 2 (A B - t^2 V_AB) q + (A^2 - t^2 V_A); NaN where the first bracket is not > 0."""
    square = bottom**2 - t**2 * float(covariance[1, 1])
    middle = top * bottom - t**2 * float(covariance[0, 1])
    rest = top**2 - t**2 * float(covariance[0, 0])
    if not square > 0:
        return math.nan, math.nan
    root = math.sqrt(max(middle**2 - square * rest, 0.0))  # not negative but for rounding: q = A / B solves it
    return (middle - root) / square, (middle + root) / square
