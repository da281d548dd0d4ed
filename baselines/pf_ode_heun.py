"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, Integrator
from kfpbench_baselines.probability_flow import velocity


class ProbabilityFlowHeun(Integrator):
    """Explicit trapezoidal rule: x' = x + h v(x, t_i), x <- x + (h/2) (v(x, t_i) + v(x', t_(i+1))), h = t_(i+1) - t_i.

    Order 2, NFE = 2 steps. Source: Karras et al. (2022), Algorithm 1, which this follows down to t_min; their last
    Euler step from sigma_min to 0 is left out, since every sampler here targets p at t_min.
    """

    batches: ClassVar[int] = 5

    def fit(self, problem: Problem) -> FittedProbabilityFlowHeun:
        """Nothing to learn: lay the time grid."""
        return FittedProbabilityFlowHeun(problem, self.grid(problem))


class FittedProbabilityFlowHeun(FittedIntegrator):
    """The method on its time grid."""

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        for t, following in pairwise(self.times):
            step = following - t
            slope = velocity(self.problem, x, t)
            predicted = x + step * slope
            x = x + 0.5 * step * (slope + velocity(self.problem, predicted, following))
        return x
