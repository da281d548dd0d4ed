"""Frechet distance extrapolated to infinitely many samples and reference rows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.metrics.frechet import frechet_of_subsets
from kfpbench.metrics.inputs import Direction, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"frechet_infinity": "lower"}

_SMALLEST_SHARE = 4  # parts are at least a quarter of the rows


class FrechetInfinity:
    """The Frechet distance F_m of m samples to m reference rows, extrapolated to m -> infinity.

        F_m = F_inf + b / m + O(1 / m^2):   the intercept of a straight line through (1/m, mean F_m)

    at m = n, n/2, n/3, n/4, as far as m > d + 1. Samples and reference are cut alike into disjoint parts that hold
    every row once, so that the sampling error of first order is the same at every m and the extrapolation does not
    enlarge it; the mean is over the parts and over ``partitions`` random cuts, and the line is fitted with weights
    1/(number of parts), the inverse of the variance of what remains. Removes the bias of order 1/n, of both sides;
    what is left, of order 1/n^2, is in simulations 1 to 7 % of what was removed for 4 d < n < 40 d. May be negative
    where the laws are nearly equal. Squared units of the features.

    The interval is for the population value: delete-half jackknife of F_n, and the spread over the cuts. Cost: 20 + 9
    ``partitions`` Frechet distances, of O(n d^2 + d^3) in all each.

    Raises CapabilityError for n/2 <= d + 1, where covariances are singular and F_m is no such line: the cell keeps its
    other metrics; ParameterError for partitions < 2; ShapeError, NumericalError for bad rows.

    Source: Chong and Forsyth, "Effectively unbiased FID and Inception Score and where to find them", CVPR 2020,
    which keeps the reference whole; disjoint parts as in the generalised jackknife (Gray and Schucany, 1972).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(
        self, partitions: Annotated[int, Field(ge=2, le=100)] = 4, features: FeatureExtractor | str = "pca"
    ) -> None:
        if partitions < 2:
            raise ParameterError("too few cuts to know their spread", got=partitions, allowed=">= 2")
        self.partitions = partitions
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """One measurement, ``frechet_infinity``."""
        x, y, details = extract(self.features, data)
        n, d = x.shape
        shares = [share for share in range(1, _SMALLEST_SHARE + 1) if n // share > d + 1]
        if len(shares) < 2:
            raise CapabilityError(
                "covariances of half of the rows are singular: there is no line to extrapolate",
                got=f"n = {n}, {d} features",
                allowed=f"n // 2 > {d + 1}",
                remedy="Draw more samples, or take fewer features, as features: {name: pca, components: 16}.",
                where="metrics.frechet_infinity",
            )
        halves = half_samples(n, data.seed).with_whole()
        values = frechet_of_subsets(x, y, halves.samples, halves.reference)
        whole = float(values[0])
        x, y = x[_order_by_content(data.samples)], y[_order_by_content(data.reference)]
        intercepts = _intercepts(x, y, whole, shares, self.partitions, data.seed)
        value = float(intercepts.mean())
        of_cuts = float(intercepts.var(ddof=1)) / self.partitions
        # a half-sample's distance has the bias of n/2, which is no error of the value: centre the replicates on it
        replicates = values[1:] - values[1:].mean() + value if len(values) > 1 else values[1:]
        interval = jackknife_interval(value, replicates, n, extra_variance=of_cuts)
        record: dict[str, Any] = {
            **details,
            **interval.details,
            "sizes": [n // share for share in shares],
            "partitions": self.partitions,
            "frechet_at_n": whole,
            "finite_n_bias": whole - value,
        }
        return [Measurement("frechet_infinity", value, interval.low, interval.high, n, details=record)]


def _order_by_content(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """An order of the rows that does not depend on the one they come in, so that neither do the cuts."""
    keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    return np.array(sorted(range(len(rows)), key=keys.__getitem__), dtype=np.int64)


def _intercepts(
    x: NDArray[np.float64], y: NDArray[np.float64], whole: float, shares: list[int], partitions: int, seed: int
) -> NDArray[np.float64]:
    """The value at 1/m = 0 of the line through the mean distances of parts, for each random cut (partitions,)."""
    n = len(x)
    rng = np.random.default_rng(np.random.SeedSequence([seed % 2**63, 0x4649]))  # apart from other uses of the seed
    weights = 1.0 / np.array(shares)
    inverse = n / np.array([n // share for share in shares], dtype=np.float64)
    found = np.empty(partitions)
    for cut in range(partitions):
        means = [whole]
        for share in shares[1:]:
            parts = [_disjoint_parts(n, share, rng) for _ in range(2)]
            means.append(float(frechet_of_subsets(x, y, *parts).mean()))
        _, intercept = np.polyfit(inverse, np.array(means), 1, w=np.sqrt(weights))
        found[cut] = intercept
    return found


def _disjoint_parts(n: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """``count`` random disjoint subsets of n // count rows each, (count, n)."""
    order = rng.permutation(n)[: n // count * count].reshape(count, -1)
    parts = np.zeros((count, n), dtype=bool)
    np.put_along_axis(parts, order, True, axis=1)
    return parts
