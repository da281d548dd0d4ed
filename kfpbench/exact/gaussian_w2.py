"""Wasserstein-2 distances between Gaussians, and the exact errors of affine samplers on Gaussian data."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.exact.affine_law import affine_law
from kfpbench.exact.wasserstein_errors import WassersteinErrors, known_law
from kfpbench.protocols import FittedSampler, Problem

Array = NDArray[np.float64]


class GaussianDistance(NamedTuple):
    """The parts of a W2 distance, W2^2 = mean^2 + covariance^2: |m1 - m2|, and the Bures distance."""

    mean: float
    covariance: float

    @property
    def total(self) -> float:
        """W2."""
        return math.hypot(self.mean, self.covariance)


def gaussian_w2(mean_1: Array, root_1: Array, mean_2: Array, root_2: Array) -> GaussianDistance:
    """W2 between N(m1, C1) and N(m2, C2), from roots: any R (k, d) with C = R^T R, or (d,) for C = diag(R^2).

        W2^2 = |m1 - m2|^2 + min over orthogonal Q of |R1 - Q R2|_F^2

    With M = R1 R2^T = P S V^T the least is at Q = P V^T. The gap is taken entry by entry, and not as tr C1 + tr C2 -
    2 tr (C1^(1/2) C2 C1^(1/2))^(1/2), which loses all but half of the digits when the two are near: a distance of 1e-10
    is still one. Two diagonal roots give |m1 - m2|^2 + |R1 - R2|^2. Singular covariances are allowed. Cost O(k d^2 +
    d^3), or O(d). Raises ShapeError for shapes that do not fit.

    Source: Bhatia, Jain and Lim, "On the Bures-Wasserstein distance between positive definite matrices", Expo. Math.
    37(2):165 (2019), theorem 1.
    """
    d = len(mean_1)
    shapes = mean_1.shape, root_1.shape, mean_2.shape, root_2.shape
    if not all(shape == (d,) for shape in shapes[::2]) or not all(shape[-1] == d for shape in shapes[1::2]):
        raise ShapeError("means and roots do not fit together", got=shapes, allowed="(d,), and (d,) or (k, d)")
    gap = float(np.linalg.norm(mean_1 - mean_2))
    if root_1.ndim == root_2.ndim == 1:
        return GaussianDistance(gap, float(np.linalg.norm(np.abs(root_1) - np.abs(root_2))))
    first, second = _square(root_1), _square(root_2)
    left, _, right = np.linalg.svd(first @ second.T)
    return GaussianDistance(gap, float(np.linalg.norm(first - left @ right @ second)))


def _square(root: Array) -> Array:
    """A root with as many rows as columns: R is replaced by the triangle of its QR factors."""
    if root.ndim == 1:
        return np.diag(root)
    d = root.shape[1]
    if len(root) < d:
        root = np.concatenate([root, np.zeros((d - len(root), d))])
    return np.asarray(np.linalg.qr(root, mode="r"))


def gaussian_errors(sampler: FittedSampler, problem: Problem, max_rows: int = 20_000) -> WassersteinErrors:
    """Exact W2 errors of an affine sampler on Gaussian data N(mu, C), in the principal axes of C.

    Targets: N(alpha mu, alpha^2 C + sigma^2 I) at t_min, and N(mu, C). Y, the same sampler begun at p at t_max, comes
    from X by letting draw 0, which times sigma at t_max is the start of every sampler, be N(alpha mu, S) / sigma there,
    S = alpha^2 C + sigma^2 I. Cost: that of ``affine_law``, and O(m d^3 + d^3), O(m d) for a diagonal one.

    Raises CapabilityError for data that are not Gaussian, and as ``affine_law`` does.
    Source: Pierret and Galerne, "Diffusion models for Gaussian distributions: exact solutions and Wasserstein errors"
    (2024), whose split into initialisation, discretisation and truncation errors this is.
    """
    law = known_law(problem)
    if len(law.weights) != 1:
        raise CapabilityError(
            "the data are not Gaussian: no solver's law is Gaussian",
            got=f"{problem.dataset.name}: a mixture of {len(law.weights)} in {problem.dataset.dimension} dimensions",
            allowed="one component, or one dimension",
        )
    values, axes = np.linalg.eigh(law.covariances[0])
    variances, mean = np.maximum(values, 0.0), law.means[0] @ axes
    found = affine_law(sampler, problem, axes, max_rows)
    process = problem.process
    last, first = process.t_min, process.t_max
    target = process.alpha(last) * mean, np.sqrt(process.alpha(last) ** 2 * variances + process.sigma(last) ** 2)
    total = gaussian_w2(found.mean, found.root, *target)
    discretisation = initialisation = None
    if 0 in found.response:
        spread = np.sqrt(process.alpha(first) ** 2 * variances + process.sigma(first) ** 2)
        sigma = process.sigma(first)
        begun = found.with_start(process.alpha(first) * mean / sigma, spread / sigma)
        discretisation = gaussian_w2(begun.mean, begun.root, *target).total
        initialisation = gaussian_w2(found.mean, found.root, begun.mean, begun.root).total
    return WassersteinErrors(
        total.total,
        gaussian_w2(found.mean, found.root, mean, np.sqrt(variances)).total,
        discretisation,
        initialisation,
        accuracy=found.defect,
        details={
            "way": "Gaussian law of an affine sampler",
            "mean_part": total.mean,
            "covariance_part": total.covariance,
            "draws": len(found.response),
            "diagonal": found.diagonal,
            "rows": found.rows,
        },
    )
