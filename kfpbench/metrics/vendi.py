"""Vendi score: the effective number of different samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from scipy.linalg import eigvalsh

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.features.feature_cache import features_of
from kfpbench.metrics.inputs import Direction, check_rows, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.pairwise_distances import squared_distances
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {"vendi": "neither", "vendi_ratio": "neither"}

_LARGEST = 3000  # side of an eigenvalue problem that takes some 5 s, and its 40 halves some 30 s
_BANDWIDTH_ROWS = 1000


def effective_number(eigenvalues: NDArray[np.float64], order: float = 1.0) -> float:
    """exp of the Renyi entropy of order q of eigenvalues (r,) that sum to 1: exp(-sum l log l) for q = 1.

    (sum l^q)^(1 / (1 - q)) for other q, 1 / max l for q = inf. Eigenvalues within rounding of 0 count as 0.

    Source: Pasarkar and Dieng, "Cousins of the Vendi score", AISTATS 2024.
    """
    least = len(eigenvalues) * float(np.finfo(np.float64).eps) * float(eigenvalues.max())
    kept = eigenvalues[eigenvalues > least]
    if order == 1.0:
        return math.exp(-float(kept @ np.log(kept)))
    if math.isinf(order):
        return 1.0 / float(kept.max())
    return math.exp(math.log(float((kept**order).sum())) / (1.0 - order))


class Vendi:
    """Vendi score exp(-sum_i l_i log l_i), l the eigenvalues of K / n with K_ij = k(x_i, x_j), k(x, x) = 1.

    The effective number of different samples: 1 when all are equal, n when none is like another. ``vendi_ratio``: over
    that of the n reference rows; 1 as diverse as the reference, 0.7 where 3 of 10 equally weighted, unlike modes are
    missing. Noise is above 1, so neither direction is better. Shapes (n, d) in feature space.

    ``kernel`` cosine: x.y / (|x| |y|), whose eigenvalues are those of the d x d matrix of the normalised rows where d <
    n; the score is at most d. Kernel rbf: exp(-|x - y|^2 / (2 h^2)), h = ``bandwidth``, or by default the median
    distance between 1000 training rows, the same for samples and reference; it tells modes apart in few dimensions.
    ``order`` q: of the Renyi entropy; above 1 rare samples weigh less, below 1 more.

    The score grows with n: intervals (delete-half jackknife) are for the expectation at this n. Cost O(R (n d^2 + d^3))
    or O(R (n^2 d + n^3)), R = 20 half-samples. Raises CapabilityError for more than 3000 rows (cosine: 3000 rows and
    features), and for rows of norm 0, which have no cosine; ParameterError for q or h not positive; ShapeError,
    NumericalError for bad rows.

    Source: Friedman and Dieng, "The Vendi score: a diversity evaluation metric for machine learning", TMLR 2023;
    orders: Pasarkar and Dieng, "Cousins of the Vendi score", AISTATS 2024.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(
        self,
        kernel: Literal["cosine", "rbf"] = "cosine",
        bandwidth: Annotated[float, Field(gt=0)] | None = None,
        order: Annotated[float, Field(gt=0)] = 1.0,
        features: FeatureExtractor | str = "pca",
    ) -> None:
        if kernel not in ("cosine", "rbf"):
            raise ParameterError("no such kernel", got=kernel, allowed="cosine or rbf", where="metrics.vendi")
        if not order > 0 or (bandwidth is not None and not bandwidth > 0):
            raise ParameterError(
                "must be positive", got={"order": order, "bandwidth": bandwidth}, where="metrics.vendi"
            )
        self.kernel, self.bandwidth, self.order = kernel, bandwidth, order
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Two measurements, ``vendi`` and ``vendi_ratio``."""
        x, y, details = extract(self.features, data)
        n, d = x.shape
        side = min(n, d) if self.kernel == "cosine" else n
        if side > _LARGEST:
            raise CapabilityError(
                "the eigenvalue problem of the Vendi score is too large",
                got=f"side {side}",
                allowed=f"up to {_LARGEST}",
                remedy="Take kernel cosine with fewer features, or fewer samples.",
                where="metrics.vendi",
            )
        bandwidth = self._bandwidth(data) if self.kernel == "rbf" else None
        halves = half_samples(n, data.seed).with_whole()
        own = self._scores(x, halves.samples, bandwidth)
        of_reference = self._scores(y, halves.reference, bandwidth)
        record: dict[str, Any] = {
            **details,
            "kernel": self.kernel,
            "bandwidth": bandwidth,
            "order": self.order if math.isfinite(self.order) else "inf",
            "reference_vendi": float(of_reference[0]),
        }
        measurements = []
        for name, values in zip(OUTPUTS, (own, own / of_reference), strict=True):
            value = float(values[0])
            interval = jackknife_interval(value, values[1:], n, least=0.0)
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, details={**record, **interval.details})
            )
        return measurements

    def _scores(
        self, rows: NDArray[np.float64], parts: NDArray[np.bool_], bandwidth: float | None
    ) -> NDArray[np.float64]:
        """The score of each subset (S, n) boolean of the rows -> (S,)."""
        spectra = _cosine_spectra(rows, parts) if bandwidth is None else _rbf_spectra(rows, parts, bandwidth)
        return np.array([effective_number(each, self.order) for each in spectra])

    def _bandwidth(self, data: MetricInput) -> float:
        """The one given, else the median distance between training rows: no statistic of what is compared."""
        if self.bandwidth is not None:
            return self.bandwidth
        chosen = np.linspace(0, len(data.train) - 1, min(_BANDWIDTH_ROWS, len(data.train))).astype(np.int64)
        fitted = self.features.fit(data.dataset)
        rows = features_of(self.features, fitted, data.dataset, data.train[chosen], of_data=True)
        check_rows(rows, "training rows")
        rows = rows - rows.mean(axis=0)
        squared = squared_distances(rows, rows)[np.triu_indices(len(rows), 1)]
        median = math.sqrt(float(np.median(squared)))
        if not median > 0:
            raise CapabilityError(
                "half of the training rows are equal in these features: no bandwidth follows",
                got="median distance 0",
                remedy="Give bandwidth, or take kernel cosine.",
                where="metrics.vendi",
            )
        return median


def _cosine_spectra(rows: NDArray[np.float64], parts: NDArray[np.bool_]) -> Iterable[NDArray[np.float64]]:
    norms = np.linalg.norm(rows, axis=1)
    if not norms.min() > 0:
        raise CapabilityError(
            "a row of norm 0 has no cosine with others",
            got=f"{int((norms == 0).sum())} of {len(rows)} rows",
            remedy="Take kernel rbf.",
            where="metrics.vendi",
        )
    unit = rows / norms[:, None]
    for part in parts:
        chosen = unit[part]
        wide = chosen.shape[1] >= len(chosen)
        yield np.asarray(eigvalsh((chosen @ chosen.T if wide else chosen.T @ chosen) / len(chosen)))


def _rbf_spectra(
    rows: NDArray[np.float64], parts: NDArray[np.bool_], bandwidth: float
) -> Iterable[NDArray[np.float64]]:
    rows = rows - rows.mean(axis=0)
    gram = squared_distances(rows, rows)
    gram *= -0.5 / bandwidth**2
    np.exp(gram, out=gram)
    np.fill_diagonal(gram, 1.0)
    for part in parts:
        yield np.asarray(eigvalsh(gram[np.ix_(part, part)] / int(part.sum())))
