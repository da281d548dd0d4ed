"""EDM's deterministic sampler: Heun's method with a last step of Euler."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, Integrator
from kfpbench_baselines.probability_flow import scaled_velocity


class EDMHeun(Integrator):
    """y' = y + (s' - s) d(y, s), then y <- y + ((s' - s) / 2) (d(y, s) + d(y', s')); the last interval keeps y'.

    y = x / alpha, s = sigma / alpha and d = (y - D) / s, D the denoised x: under VE these are EDM's own variables.
    Global order 2 (one step of Euler has a local error of O(h^2)), NFE = 2 steps - 1, so odd numbers alone.

    Algorithm 1 takes its last step to sigma = 0, where d is not defined, and that is why it is one of Euler. Every
    sampler here targets p at t_min instead: the grid's last interval, which ends at t_min > 0, takes that part, so that
    evaluations and their noise levels are those of EDM with ``steps`` steps whose last sigma is t_min's rather than 0.
    ``pf_ode_heun`` takes all intervals by Heun. Source: Karras et al. (2022), Algorithm 1.
    """

    batches: ClassVar[int] = 5

    def fit(self, problem: Problem) -> FittedEDMHeun:
        """Nothing to learn: lay the time grid."""
        return FittedEDMHeun(problem, self.grid(problem))


class FittedEDMHeun(FittedIntegrator):
    """The method on its time grid."""

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        process = self.problem.process
        levels = [math.exp(process.log_ratio(t)) for t in self.times]
        y = x / process.alpha(self.times[0])
        for level, following in pairwise(levels[:-1]):
            step = following - level
            slope = scaled_velocity(self.problem, y, level)
            y = y + 0.5 * step * (slope + scaled_velocity(self.problem, y + step * slope, following))
        level, last = levels[-2:]
        return process.alpha(self.times[-1]) * (y + (last - level) * scaled_velocity(self.problem, y, level))
