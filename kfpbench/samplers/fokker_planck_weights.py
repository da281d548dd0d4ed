"""Fokker-Planck weights: a density carried over a span of time as a signed weighting of fixed points.

With eigenpairs of L, adjoints psi_k in L2(q) and points x_i ~ q of weights W_i, for every observable u

    E_{tau+D}[u] = sum_k e^(lambda_k D) E_tau[phi_k] <psi_k, u> = sum_i w_i u(x_i),
    w_i = W_i Re sum_k e^(lambda_k D) E_tau[phi_k] conj(psi_k(x_i)).

In the solver's basis phi_k = F v_k, psi_k = F a_k this is w = W F beta, with the moments m = E_tau[F] and
beta = Re sum_k e^(lambda_k D) (m v_k) conj(a_k): F beta is the density at tau + D relative to q. The map of the weights
w' of points y over a span is linear, w = T w', T = W F Re(conj(A) e^(Lambda D) V^T) F(y)^T. Since L 1 = 0, the moment
of the constant stays: the weights sum to 1 whenever the constant is among the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Basis
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.errors import NumericalError

_TILE = 4096  # points whose features are in memory at a time


@dataclass(frozen=True)
class WeightedPoints:
    """A signed measure sum_i weights_i delta_{points_i}: points (N, d), weights (N,), both float64."""

    points: Tensor
    weights: Tensor

    @classmethod
    def uniform(cls, points: Tensor) -> WeightedPoints:
        """Equal weights 1 / N."""
        return cls(points, points.new_full((len(points),), 1.0 / len(points)))

    def moments(self, basis: Basis) -> Tensor:
        """sum_i w_i F(x_i), (r,). Cost that of the features; memory that of a tile."""
        pairs = zip(self.points.split(_TILE), self.weights.split(_TILE), strict=True)
        return torch.stack([weights @ basis.features(points) for points, weights in pairs]).sum(0)

    def describe(self) -> dict[str, float]:
        """Total; ``negative_mass`` sum |w^-| / sum |w|; ``effective_size`` (sum w^+)^2 / sum (w^+)^2 of the clipped
        weights (Kish, "Survey Sampling", 1965, sec. 11.7); ``largest_ratio`` N max w_i, the largest density ratio.
        """
        absolute, clipped = self.weights.abs().sum(), self.weights.clamp_min(0.0)
        return {
            "total": float(self.weights.sum()),
            "negative_mass": float((clipped - self.weights).sum() / absolute),
            "effective_size": float(clipped.sum().square() / clipped.square().sum()),
            "largest_ratio": len(self.weights) * float(self.weights.max()),
        }


def carry(pairs: Eigenpairs, points: Tensor, before: WeightedPoints, length: float) -> WeightedPoints:
    """The measure ``before`` after a span of ``length``, on the points (N, d) that the eigenpairs were fitted to.

    Cost O(N' M (d + r) + N r). Raises NumericalError when the weights are not finite.
    """
    expectations = before.moments(pairs.basis).to(pairs.right.dtype) @ pairs.right  # (K,) E_tau[phi_k]
    propagated = torch.exp(pairs.values * length) * expectations
    density = (pairs.adjoint.conj() @ propagated).real  # (r,) beta
    weights = pairs.weights * (pairs.on_points @ density)
    if not bool(torch.isfinite(weights).all()):
        growth = float(torch.exp(pairs.values.real.max() * length))
        raise NumericalError(
            "the Fokker-Planck weights of a segment are not finite",
            got=f"largest growth factor {growth:.1e}",
            remedy="Use more segments, a larger ridge, or a smaller rank.",
        )
    return WeightedPoints(points, weights)


def transfer(before: WeightedPoints, basis: Basis, points: Tensor) -> WeightedPoints:
    """The measure expressed on other points z_j (P, d), draws of another density r: a density relative to r.

    v_j = (1 + F_c(z_j) gamma) / P with F_c the basis centred over the z_j, and gamma the least-squares solution of
    C gamma = E[F] - mean F(z), C = F_c^T F_c / P: the density of least L2(r) distance from uniform weights which has
    the measure's moments. Uniform weights already carry all that the basis cannot see; where the moments agree they
    stay. On the points themselves it returns weights that lie in the basis' span, W F beta. Directions whose variance
    over the z_j is below 1 / P of the largest are left out: there a moment is sampling error. The total is kept.
    Cost O(P M (d + r) + P r^2 + r^3) time, O(P r) memory. Raises NumericalError when LAPACK fails.
    """
    features = torch.cat([basis.features(part)[:, 1:] for part in points.split(_TILE)])  # (P, r - 1)
    total, count = before.weights.sum(), len(points)
    mean = features.mean(0)
    missing = before.moments(basis)[1:] - total * mean
    features -= mean
    try:
        levels, axes = torch.linalg.eigh(features.T @ features / count)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the covariance of the basis at t_min could not be diagonalised: {error}") from error
    sound = levels > levels[-1] / count if len(levels) else levels > 0
    gamma = axes[:, sound] @ ((axes[:, sound].T @ missing) / levels[sound])
    return WeightedPoints(points, (total + features @ gamma) / count)


def clipped(weights: Tensor) -> Tensor:
    """max(w, 0) / sum max(w, 0), to draw from. For a total of 1 it differs from w by 2 sum |w^-| in the 1-norm.

    Raises NumericalError where nothing is left to draw from: weights that are not finite, or none of them positive.
    """
    positive = weights.clamp_min(0.0)
    total = float(positive.sum())
    if not 0.0 < total < float("inf"):
        raise NumericalError(
            "the Fokker-Planck weights of the particles leave nothing to draw from",
            got=f"positive mass {total:.1e}",
            remedy="Use more segments, a larger ridge, or a smaller rank.",
        )
    return positive / total


def growth_record(pairs: Eigenpairs, length: float) -> dict[str, Any]:
    """What an eigenproblem tells: kept pairs, doubtful ones, and the largest factor |e^(lambda D)|."""
    growth = float(torch.exp(pairs.values.real.max() * length)) if len(pairs.values) else 1.0
    doubtful = sum(bool(flag) for flag in pairs.flags)
    return {**pairs.diagnostics, "kept": len(pairs.values), "doubtful": doubtful, "largest_growth": growth}
