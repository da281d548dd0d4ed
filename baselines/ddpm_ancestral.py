"""Ancestral sampling of DDPM, and DDIM's family with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, StochasticIntegrator


class DDPMAncestral(StochasticIntegrator):
    """x_s ~ q(x_s | x_t, x_0 = D(x_t)), the forward process's own posterior, for any linear process and grid:

        x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) (x_t - alpha_t D) / sigma_t + eta sqrt(v) xi,
        v = sigma_s^2 (1 - r^2),  r = (sigma_s / alpha_s) / (sigma_t / alpha_t).

    ``eta`` = 1 is DDPM with the posterior's variance v (their choice sigma^2 = beta tilde), eta = 0 is DDIM. Exact in
    one step for data that are a single point; weak order 1. NFE = steps. Source: Ho, Jain, Abbeel (2020), eq. (6) and
    (7); Song, Meng, Ermon (2021), eq. (12) and (16).
    """

    def fit(self, problem: Problem) -> FittedDDPMAncestral:
        """Nothing to learn: lay the time grid."""
        return FittedDDPMAncestral(problem, self.grid(problem), self.eta)


@dataclass(frozen=True)
class FittedDDPMAncestral(FittedIntegrator):
    """The method on its time grid."""

    eta: float

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max; draw i of the stream is the i-th step's noise."""
        process, eta = self.problem.process, self.eta
        for draw, (t, following) in enumerate(pairwise(self.times), start=1):
            denoised = self.problem.score.denoise(x, process.alpha(t), process.sigma(t))
            # 1 - r^2 in the form that keeps its digits when the two times are close
            share = -math.expm1(2.0 * (process.log_ratio(following) - process.log_ratio(t)))
            sigma = process.sigma(following)
            kept = sigma * math.sqrt(1.0 - eta**2 * share) / process.sigma(t)
            x = process.alpha(following) * denoised + kept * (x - process.alpha(t) * denoised)
            if eta > 0:
                x = x + eta * sigma * math.sqrt(share) * noise.normal(draw)
        return x
