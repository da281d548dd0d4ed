"""Euler-Maruyama on the reverse SDE family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, StochasticIntegrator


class EulerMaruyama(StochasticIntegrator):
    """x <- x + h (-f x + (1 + eta^2)/2 g^2 score) + eta g sqrt(h) xi, h = t_i - t_(i+1) > 0.

    eta = 1 is the reverse SDE, eta = 0 Euler's method on the probability-flow ODE. Additive noise: strong and weak
    order 1. NFE = steps. Source: Anderson (1982) for the reverse SDE; Song et al. (2021), eq. (6); Kloeden and Platen
    (1992), sec. 10.2, for the method.
    """

    def fit(self, problem: Problem) -> FittedEulerMaruyama:
        """Nothing to learn: lay the time grid."""
        return FittedEulerMaruyama(problem, self.grid(problem), self.eta)


@dataclass(frozen=True)
class FittedEulerMaruyama(FittedIntegrator):
    """The method on its time grid."""

    eta: float

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max; draw i of the stream is the i-th step's noise."""
        process, eta = self.problem.process, self.eta
        for draw, (t, following) in enumerate(pairwise(self.times), start=1):
            step = t - following
            squared = process.squared_diffusion(t)
            score = self.problem.score.score(x, process.alpha(t), process.sigma(t))
            drift = -process.drift_rate(t) * x + 0.5 * (1.0 + eta**2) * squared * score
            x = x + step * drift
            if eta > 0:
                x = x + eta * math.sqrt(squared * step) * noise.normal(draw)
        return x
