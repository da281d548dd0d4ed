"""Frechet distance between Gaussian fits of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh, svdvals

from kfpbench.errors import NumericalError, ShapeError
from kfpbench.metrics.inputs import Direction, check_pair, extract, resolve_features
from kfpbench.metrics.intervals import REPLICATES, half_samples, jackknife_interval
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"frechet": "lower"}

_FEWER_REPLICATES_ABOVE = 1024  # feature dimension from which one evaluation takes seconds to minutes
_FEWER_REPLICATES = 8


def frechet_gaussian(
    mean_1: NDArray[np.float64],
    covariance_1: NDArray[np.float64],
    mean_2: NDArray[np.float64],
    covariance_2: NDArray[np.float64],
) -> float:
    """Squared 2-Wasserstein distance between N(m1, C1) and N(m2, C2).

        |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^(1/2) C2 C1^(1/2))^(1/2)

    The last trace is the nuclear norm of C1^(1/2) C2^(1/2), from two symmetric eigen-decompositions and the
    singular values of their product: nothing non-symmetric is rooted, and no square root of a rounding error
    enters. Shapes (d,), (d, d). Cost O(d^3). Raises NumericalError for NaN or infinity, ShapeError for shapes
    that do not fit.

    Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", J. Multivar.
    Anal. 12(3):450 (1982); used as FID by Heusel et al., NeurIPS 2017, eq. (6).
    """
    d = len(mean_1)
    shapes = (mean_1.shape, covariance_1.shape, mean_2.shape, covariance_2.shape)
    if shapes != ((d,), (d, d), (d,), (d, d)):
        raise ShapeError("moments do not fit together", got=shapes, allowed="(d,), (d, d), (d,), (d, d)")
    if not all(np.isfinite(moment).all() for moment in (mean_1, covariance_1, mean_2, covariance_2)):
        raise NumericalError(
            "a moment is NaN or infinite", remedy="Look for diverged samples.", where="frechet_gaussian"
        )
    values_1, vectors_1 = eigh(covariance_1)
    values_2, vectors_2 = eigh(covariance_2)
    roots_1, roots_2 = np.sqrt(np.maximum(values_1, 0.0)), np.sqrt(np.maximum(values_2, 0.0))
    cross = float(svdvals(roots_1[:, None] * (vectors_1.T @ vectors_2) * roots_2).sum())
    gap = mean_1 - mean_2
    distance = float(gap @ gap) + float(np.trace(covariance_1)) + float(np.trace(covariance_2)) - 2.0 * cross
    return max(distance, 0.0)


def frechet_distance(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> float:
    """``frechet_gaussian`` of the sample means and unbiased covariances of x (n, d) and y (m, d).

    For d >= n the covariances are never formed: with centred rows X, Y the nuclear norm of C1^(1/2) C2^(1/2)
    is that of X Y^T / ((n - 1)(m - 1))^(1/2), an (n, m) matrix. Cost O(n d^2 + d^3), or O(n^2 d + n^3) for d
    >= n. Raises ShapeError for fewer than two rows or unequal d, NumericalError for NaN or infinity.
    """
    x64, y64 = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_pair(x64, y64)
    whole = [np.ones((1, len(z)), dtype=bool) for z in (x64, y64)]
    return float(frechet_of_subsets(x64, y64, whole[0], whole[1])[0])


class FrechetDistance:
    """Frechet distance |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2)) of samples to reference.

    m, C: mean and unbiased covariance of the features. With Inception features this is the FID; with others
    it is not, and the record names them. Squared units of the features. Biased upwards by O(d/n) or more:
    compare at equal n only; ``details["finite_n_bias"]`` estimates the bias. When n <= d the covariances are
    singular, ``details["rank_deficient"]`` is True and the value says more about n than about the samples.

    Cost O(R (n d^2 + d^3)), or O(n^2 d + R n^3) for d >= n; R = 20 half-samples for the interval, 8 when
    min(n, d) > 1024. The interval covers the expectation at this n, and the population value only where the
    bias is small against its width.

    Raises ShapeError, NumericalError for bad rows.
    Source: Dowson and Landau, J. Multivar. Anal. 12(3):450 (1982); Heusel et al., NeurIPS 2017, eq. (6).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, features: FeatureExtractor | str = "pca") -> None:
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """One measurement, ``frechet``."""
        x, y, details = extract(self.features, data)
        n, d = x.shape
        replicates = _FEWER_REPLICATES if min(n, d) > _FEWER_REPLICATES_ABOVE else REPLICATES
        halves = half_samples(n, data.seed, replicates).with_whole()
        values = frechet_of_subsets(x, y, halves.samples, halves.reference)
        interval = jackknife_interval(float(values[0]), values[1:], n, least=0.0)
        record: dict[str, Any] = {**details, "rank_deficient": n <= d, **interval.details}
        if n <= d:
            record["rank_note"] = f"n = {n} <= feature dimension {d}: both covariances are singular"
        return [Measurement("frechet", float(values[0]), interval.low, interval.high, n, details=record)]


def frechet_of_subsets(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The distance on each pair of subsets: parts_x (S, n), parts_y (S, m) boolean -> (S,)."""
    pairs = list(zip(parts_x, parts_y, strict=True))
    if x.shape[1] < min(len(x), len(y)):
        return np.array([frechet_gaussian(*_moments(x[part_x]), *_moments(y[part_y])) for part_x, part_y in pairs])
    shift = x.mean(axis=0)
    x, y = x - shift, y - shift
    products = x @ y.T
    return np.array([_distance_from_rows(x[a], y[b], products[np.ix_(a, b)]) for a, b in pairs])


def _moments(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = rows.mean(axis=0)
    rows = rows - mean
    return mean, rows.T @ rows / (len(rows) - 1)


def _distance_from_rows(x: NDArray[np.float64], y: NDArray[np.float64], products: NDArray[np.float64]) -> float:
    """The distance for d >= n from rows x (n, d), y (m, d) and their products x y^T (n, m)."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    gap = mean_x - mean_y
    trace_x = (np.einsum("ij,ij->", x, x) - len(x) * mean_x @ mean_x) / (len(x) - 1)
    trace_y = (np.einsum("ij,ij->", y, y) - len(y) * mean_y @ mean_y) / (len(y) - 1)
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    cross = float(svdvals(centred).sum()) / np.sqrt((len(x) - 1) * (len(y) - 1))
    return max(float(gap @ gap + trace_x + trace_y - 2.0 * cross), 0.0)
