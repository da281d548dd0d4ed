"""Wasserstein-2 errors of deterministic samplers on one-dimensional Gaussian mixtures, by quantile functions."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from kfpbench.data.dataset import Mixture
from kfpbench.errors import CapabilityError
from kfpbench.exact.planted_noise import rows_of
from kfpbench.exact.wasserstein_errors import WassersteinErrors, known_law
from kfpbench.protocols import FittedSampler, Problem

Array = NDArray[np.float64]
_REACH = 10.0  # standard deviations: 2e-23 of the mass lies beyond
_COARSEST, _FINEST = 2**12, 2**17  # intervals of the grid
_BISECTIONS = 80  # halve any bracket to its last bit


def smoothed(law: Mixture, alpha: float, sigma: float) -> Mixture:
    """The law of alpha x_0 + sigma eps."""
    noise = sigma**2 * np.eye(law.means.shape[1])
    return Mixture(law.weights, alpha * law.means, alpha**2 * law.covariances + noise)


def mixture_quantiles(law: Mixture, z: Array) -> Array:
    """The quantiles of a mixture on the line at the levels Phi(z), z (n,): the monotone map from N(0, 1) to it.

    A quantile of a mixture lies between those of its components, m_k + s_k z: bisection from there, of the distribution
    function for z < 0 and of the survival function for z > 0, so that both tails keep their digits. Cost O(80 n K).
    """
    means, deviations = law.means[:, 0], np.sqrt(law.covariances[:, 0, 0])
    side = np.where(z > 0, -1.0, 1.0)  # of the tail that is measured
    wanted = ndtr(side * z)
    places = means + deviations * z[:, None]  # (n, K)
    low, high = places.min(1), places.max(1)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        mass = ndtr(side[:, None] * (middle[:, None] - means) / deviations) @ law.weights
        above = (mass - wanted) * side > 0  # the quantile lies below the middle
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return 0.5 * (low + high)


def monotone_map(z: Array, values: Array) -> Array:
    """The monotone map from N(0, 1) to the law of F(z), z ~ N(0, 1), from ``values`` = F on a uniform grid z (n,).

    It is F itself where F increases. Else the values are sorted with their masses, which gives each a level, and
    interpolated to the grid: to the second order of the spacing, the first where several branches of F mix.
    Cost O(n log n).
    """
    if (np.diff(values) >= 0).all():
        return values
    order = np.argsort(values, kind="stable")
    mass = _masses(z)[order]
    below = np.cumsum(mass) - 0.5 * mass
    beyond = np.cumsum(mass[::-1])[::-1] - 0.5 * mass
    levels = np.where(below < 0.5, ndtri(below), -ndtri(beyond))
    rearranged: Array = np.interp(z, levels, values[order])
    return rearranged


def quantile_w2(z: Array, first: Array, second: Array) -> float:
    """W2 = (int (T1(z) - T2(z))^2 phi(z) dz)^(1/2) between two laws, whose monotone maps are given on a uniform z (n,).

    By the trapezoidal rule, which converges faster than any power of the spacing for smooth maps.
    """
    return math.sqrt(float(_masses(z) @ (first - second) ** 2))


def _masses(z: Array) -> Array:
    density = np.exp(-0.5 * z**2)
    masses: Array = density / density.sum()
    return masses


def line_errors(sampler: FittedSampler, problem: Problem, accuracy: float = 1e-3) -> WassersteinErrors:
    """W2 errors of a sampler without noise of its own on one-dimensional mixture data.

    A uniform grid of starts z goes through the sampler as draw 0, and another one of starts from p at t_max, T(z) /
    sigma there. Each distance is taken on the whole grid and on every other point of it; the grid is doubled, from 2^12
    intervals to at most 2^17, until no distance changes by more than ``accuracy`` of itself (or 1e-9 of the data's
    deviation, and in float32 its rounding). The largest change is the ``accuracy`` of the result.
    Cost: 4 n rows through the sampler for a last grid of n, O(80 n K).

    Raises CapabilityError for data in more dimensions, a sampler that uses other draws than 0, or a grid that does not
    reach the accuracy: modes far apart, with quantile functions that all but jump.
    """
    law, process = known_law(problem), problem.process
    if problem.dataset.dimension != 1:
        raise CapabilityError("quantile functions need one dimension", got=problem.dataset.dimension, allowed=1)
    last, first = process.t_min, process.t_max
    end = smoothed(law, process.alpha(last), process.sigma(last))
    begin = smoothed(law, process.alpha(first), process.sigma(first))
    size = math.sqrt(float(law.weights @ (law.covariances[:, 0, 0] + law.means[:, 0] ** 2)))
    rounding = max(1e-9, 100 * torch.finfo(problem.dtype).eps) * size
    intervals = _COARSEST
    while True:
        z = np.linspace(-_REACH, _REACH, intervals + 1)
        drawn = _pushed(sampler, problem, z)
        begun = _pushed(sampler, problem, mixture_quantiles(begin, z) / process.sigma(first))
        laws = drawn, begun, mixture_quantiles(end, z), mixture_quantiles(law, z)
        fine, coarse = (_distances(z[::step], *(values[::step] for values in laws)) for step in (1, 2))
        change = np.abs(fine - coarse)
        if (change <= accuracy * fine + rounding).all():
            break
        intervals *= 2
        if intervals > _FINEST:
            raise CapabilityError(
                "the quantile functions are too steep for their grid: modes lie far apart",
                got=f"changes of {change.max():.1e} at {intervals // 2} intervals",
                allowed=f"{accuracy:g} of the distances",
                remedy="Take wider or nearer modes, or a larger t_min.",
            )
    total, data, discretisation, initialisation = (float(value) for value in fine)
    details = {"way": "quantile functions on the line", "points": len(z), "monotone": bool((np.diff(drawn) >= 0).all())}
    return WassersteinErrors(total, data, discretisation, initialisation, float(change.max()), details)


def _distances(z: Array, drawn: Array, begun: Array, end: Array, data: Array) -> Array:
    """W2(X, p), W2(X, data), W2(Y, p), W2(X, Y)."""
    x, y = monotone_map(z, drawn), monotone_map(z, begun)
    return np.array([quantile_w2(z, *pair) for pair in ((x, end), (x, data), (y, end), (x, y))])


def _pushed(sampler: FittedSampler, problem: Problem, starts: Array) -> Array:
    """What the sampler makes of the numbers ``starts`` (n,) as draw 0: (n,)."""
    given = torch.as_tensor(starts, dtype=problem.dtype, device=problem.device)

    def start(draw: int, indices: Tensor) -> Tensor:
        if draw != 0:
            raise CapabilityError(
                "the sampler adds noise on its way: its law on data that are not Gaussian is not computed",
                got=f"draw {draw}",
                allowed="draw 0, the start, alone",
                remedy="Take a sampler of the probability-flow ODE (eta = 0), or Gaussian data.",
            )
        return given[indices][:, None]

    return rows_of(sampler, problem, len(starts), start).numpy()[:, 0]
