"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, Integrator
from kfpbench_baselines.probability_flow import velocity


class ProbabilityFlowEuler(Integrator):
    """x <- x + (t_(i+1) - t_i) v(x, t_i), v the probability-flow velocity: order 1, NFE = steps.

    v = f x - (1/2) g^2 grad log p_t; the linear part is not solved exactly, so that under VE alone this is DDIM. Row by
    row, x (n, d); O(n d) beside the score. Raises ParameterError for fewer than one step or an unknown schedule.
    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations" (2021), eq. (13).
    """

    batches: ClassVar[int] = 3

    def fit(self, problem: Problem) -> FittedProbabilityFlowEuler:
        """Nothing to learn: lay the time grid."""
        return FittedProbabilityFlowEuler(problem, self.grid(problem))


class FittedProbabilityFlowEuler(FittedIntegrator):
    """The method on its time grid."""

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        for t, following in pairwise(self.times):
            x = x + (following - t) * velocity(self.problem, x, t)
        return x
