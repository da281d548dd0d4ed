"""Conditional covariance of the state over a span: what a sampler of conditional means adds to them when eta > 0.

For dy = (-kappa y + B(y)) d rho + sqrt(2 a) dw with semigroup P_s, E[y_j(r) | y] = e^(-kappa_j r) y_j + u_rj(y), and
the carre du champ identity, applied to P_s (P_(D-s) f)^2 between s = 0 and D with f = y_j, gives

    Var[y_j(D) | y] = int_0^D (P_s Gamma_(D-s))(y) ds,   Gamma_r = 2 sum_s a_s (e^(-kappa_j r) delta_sj + d_s u_rj)^2.

No second moments are subtracted: there is no cancellation, and only the bounded functions Gamma_r and the drift B are
expanded, never y itself. With B = 0 it is the Gaussian part's (a / kappa) (1 - e^(-2 kappa D)) exactly. Source: the
identity is that of Bakry, Gentil, Ledoux, "Analysis and Geometry of Markov Diffusion Operators" (2014), section 1.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Expansion
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.noise import NoiseStream
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import Frame
from kfpbench.operators.generator import FrozenGenerator, Segment
from kfpbench.samplers.displacement import COLUMNS, in_precision, propagated, relative_norm, require_finite

Covariance = Literal["none", "gaussian", "kernel", "kernel_mean"]

NODES = 8  # of the Gauss-Legendre rule in s
EXACT_DIRECTIONS = 16  # up to this dimension gradients are taken along every axis
PROBES = 4  # random directions at each point in higher dimensions
_PROBE_STREAM = 2  # their signs are independent of the samples' noise and of the fit's points
_PROBE_SEED = 0


@dataclass(frozen=True)
class Solved:
    """A span's operator and its eigenpairs."""

    frozen: FrozenGenerator
    pairs: Eigenpairs


@dataclass(frozen=True)
class ConditionalNoise:
    """y -> the conditional standard deviation of every coordinate, (n, d): the root of an expansion of the variance.

    The variance is held between 0 and ``high`` (d,), the largest at the fitted points, which itself is at most
    (half the points' range)^2: no law within that range has a larger one (Popoviciu). The points are those of the
    middle; where the frame's coordinates grow to the end (``Frame.scale``), so does the range.
    """

    variance: Expansion
    high: Tensor

    def __call__(self, y: Tensor) -> Tensor:
        """Standard deviations at y (n, d). Cost O(n M d) for M centres: that of the displacement once more."""
        return self.variance(y).clamp_min(0.0).minimum(self.high).sqrt()


NoiseScale = Tensor | ConditionalNoise | None  # (d,) for every state alike, or a function of the state, or no noise
MakeNoise = Callable[[Frame, Segment, float, Solved | None, torch.dtype], tuple[NoiseScale, dict[str, Any]]]


def no_noise(
    frame: Frame, span: Segment, eta: float, solved: Solved | None, dtype: torch.dtype
) -> tuple[NoiseScale, dict[str, Any]]:
    """Conditional means only: chained, they contract onto the modes; over one span at eta = 1 they are E[x_0 | x_T]."""
    return None, {}


def gaussian_noise(
    frame: Frame, span: Segment, eta: float, solved: Solved | None, dtype: torch.dtype
) -> tuple[NoiseScale, dict[str, Any]]:
    """The conditional covariance of Gaussian data with the training rows' moments, exact in time."""
    return frame.noise_scale(span.start, span.end, eta), {}


def kernel_noise(
    frame: Frame, span: Segment, eta: float, solved: Solved | None, dtype: torch.dtype
) -> tuple[NoiseScale, dict[str, Any]]:
    """The conditional variances of the frozen operator, d functions of the state; with rank 0 those of u = 0."""
    linear = linear_variance(frame, span, eta)
    if solved is None:
        return linear.sqrt().to(dtype), {}
    folded, fitted, diagnostics = _at_points(frame, span, eta, solved, linear)
    expansion = solved.pairs.basis.combine(folded)
    growth = float(torch.exp(solved.pairs.values.real.max() * span.length)) if len(solved.pairs.values) else 1.0
    require_finite(folded, expansion, growth)
    expansion, precision = in_precision(expansion, dtype, relative_norm(solved.pairs, folded, fitted.mean(0)))
    diagnostics["variance_evaluated_in"] = precision
    return ConditionalNoise(expansion, fitted.amax(0).to(dtype)), diagnostics


def mean_kernel_noise(
    frame: Frame, span: Segment, eta: float, solved: Solved | None, dtype: torch.dtype
) -> tuple[NoiseScale, dict[str, Any]]:
    """The mean over the points of the frozen operator's conditional variances: the same for every state."""
    linear = linear_variance(frame, span, eta)
    if solved is None:
        return linear.sqrt().to(dtype), {}
    _, fitted, diagnostics = _at_points(frame, span, eta, solved, linear)
    return (solved.pairs.weights @ fitted).sqrt().to(dtype), diagnostics


COVARIANCES: dict[Covariance, MakeNoise] = {
    "none": no_noise,
    "gaussian": gaussian_noise,
    "kernel": kernel_noise,
    "kernel_mean": mean_kernel_noise,
}


def linear_variance(frame: Frame, span: Segment, eta: float) -> Tensor:
    """int_0^D 2 a e^(-2 kappa r) dr (d,), float64: the conditional variance without a kernel part."""
    exponent = -2.0 * frame.decay(span.start, span.end, eta).double().log()  # 2 kappa D
    spread = frame.span_diffusion(span.start, span.middle, span.end, eta).double()
    # kappa is negative where a frame's coordinates grow faster than they decay
    safe = torch.where(exponent == 0.0, torch.ones_like(exponent), exponent)
    mean = torch.where(exponent == 0.0, torch.ones_like(exponent), -torch.expm1(-safe) / safe)
    return 2.0 * spread * span.length * mean


def expand_variance(solved: Solved, length: float, rates: Tensor, diffusion: Tensor) -> Tensor:
    """int_0^D P_s (Gamma_(D-s) - 2 a e^(-2 kappa (D-s))) ds in the basis, (r, d): beyond the linear variance.

    rates (d,) are kappa, diffusion (d,) is a. The integral is an 8-node Gauss-Legendre rule. Gradients of u_r are taken
    along all axes for d <= 16, where nothing else is approximated at full rank; beyond, along 4 random directions of
    signs g at each point: E_g (e^(-kappa r) sqrt(a_j) g_j + sum_s sqrt(a_s) g_s d_s u_rj)^2 = Gamma_r / 2.
    Cost O(q N (M + r) r + 8 q N r d) for q directions; memory O(q N r).
    """
    pairs, points = solved.pairs, solved.frozen.pencil.points
    coefficients = pairs.coefficients(solved.frozen.excess)  # (K, d)
    directions, weight = _directions(points)
    root = diffusion.sqrt()
    transport = Diffusion.constant(points.new_zeros(()))
    slopes = [pairs.basis.images(points, (root * g).expand_as(points), transport) for g in directions]  # each (N, r)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    folded = points.new_zeros((pairs.basis.size, points.shape[1]))
    for columns in torch.arange(len(rates), device=rates.device).split(COLUMNS):
        part, kappa = coefficients[:, columns], rates[columns]
        for node, share in zip(0.5 * (nodes + 1.0), 0.5 * weights, strict=True):
            rest = float((1.0 - node) * length)
            decay = torch.exp(-kappa * rest)
            coordinates = propagated(pairs, part, kappa, rest, decay)  # u_r, (r, columns)
            beyond = torch.zeros_like(points[:, columns])
            for g, slope in zip(directions, slopes, strict=True):
                along = slope @ coordinates  # (N, columns): sum_s sqrt(a_s) g_s d_s u_rj
                beyond += weight * (4.0 * decay * root[columns] * g[..., columns] * along + 2.0 * along.square())
            moved = torch.exp(pairs.values * float(node * length))[:, None] * pairs.coefficients(beyond)
            folded[:, columns] += float(share * length) * (pairs.right @ moved).real
    return folded


def _at_points(
    frame: Frame, span: Segment, eta: float, solved: Solved, linear: Tensor
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The variance in the basis (r, d), its values at the points within their bounds (N, d), and what was cut off."""
    rates = -frame.decay(span.start, span.end, eta).double().log() / span.length
    diffusion = frame.span_diffusion(span.start, span.middle, span.end, eta).double()
    folded = expand_variance(solved, span.length, rates, diffusion)
    folded[0] += linear  # the basis's first function is the constant 1
    points = solved.frozen.pencil.points
    raw = solved.pairs.on_points @ folded
    grown = (frame.scale(span.end).double() / frame.scale(span.middle).double()).clamp_min(1.0)
    bound = (0.5 * (points.amax(0) - points.amin(0)) * grown).square()
    fitted = raw.clamp_min(0.0).minimum(bound)
    diagnostics = {
        "variance": float(fitted.mean()),
        "linear_variance": float(linear.mean()),
        "variance_below_zero": float((raw < 0).double().mean()),
        "variance_above_bound": float((raw > bound).double().mean()),
    }
    return folded, fitted, diagnostics


def _directions(points: Tensor) -> tuple[list[Tensor], float]:
    """Vectors g, (d,) or (N, d), and the weight with which sums over them stand for sums over all axes."""
    count, dimension = points.shape
    if dimension <= EXACT_DIRECTIONS:
        return list(torch.eye(dimension, device=points.device, dtype=points.dtype)), 1.0
    noise = NoiseStream.of_range(_PROBE_SEED, 0, count, dimension, points.device, points.dtype, stream=_PROBE_STREAM)
    return [noise.normal(probe).sign() for probe in range(PROBES)], 1.0 / PROBES
