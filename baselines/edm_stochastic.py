"""The stochastic sampler of EDM: Heun's method with fresh noise in every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.integrator import FittedIntegrator, Integrator, Rho, Steps
from kfpbench_baselines.probability_flow import scaled_velocity
from kfpbench_baselines.schedules import Schedule

_MOST_CHURN = math.sqrt(2.0) - 1.0  # no more new noise than there is
_ROUNDING = 1e-9  # relative: a level that equals s_min or s_max but for its making counts as inside


class EDMStochastic(Integrator):
    """In y = x / alpha and q = sigma / alpha, from q_i to q_(i+1), with g = min(s_churn / steps, sqrt(2) - 1) where
    s_min <= q_i <= s_max, else 0:

        up      p = (1 + g) q_i,   y <- y + s_noise sqrt(p^2 - q_i^2) xi
        down    Heun's method on dy/dq = (y - D(y; q)) / q from p to q_(i+1); in the last interval Euler's

    Noise brings p_t exactly to a higher level (s_noise = 1), so from the true marginal the law has the order of Heun's
    method, 2.
    NFE = 2 steps - 1. Source: Karras et al. (2022), Algorithm 2; their last level is 0, here it is that of t_min. The
    defaults are their Table 5's for CIFAR-10 (VP).
    """

    batches: ClassVar[int] = 6

    def __init__(
        self,
        steps: Steps = 18,
        schedule: Schedule = "edm",
        s_churn: Annotated[float, Field(ge=0)] = 30.0,
        s_min: Annotated[float, Field(ge=0)] = 0.01,
        s_max: Annotated[float, Field(gt=0)] = 1.0,
        s_noise: Annotated[float, Field(gt=0)] = 1.007,
        rho: Rho = 7.0,
    ) -> None:
        super().__init__(steps, schedule, rho)
        allowed = {
            "s_churn": (s_churn, 0.0 <= s_churn < math.inf, "at least 0"),
            "s_min": (s_min, 0.0 <= s_min <= s_max, "0 to s_max"),
            "s_noise": (s_noise, 0.0 < s_noise < math.inf, "above 0"),
        }
        for name, (value, fine, range_) in allowed.items():
            if not fine:
                raise ParameterError(f"{name} out of range", got=value, allowed=range_, where="edm_stochastic")
        self.s_churn, self.s_min, self.s_max, self.s_noise = s_churn, s_min, s_max, s_noise

    def fit(self, problem: Problem) -> FittedEDMStochastic:
        """Nothing to learn: lay the time grid and the churn of every step."""
        times, process = self.grid(problem), problem.process
        most = min(self.s_churn / self.steps, _MOST_CHURN)
        ratios = [math.exp(process.log_ratio(t)) for t in times]
        low, high = self.s_min * (1.0 - _ROUNDING), self.s_max * (1.0 + _ROUNDING)
        churns = [most if low <= ratio <= high else 0.0 for ratio in ratios[:-1]]
        return FittedEDMStochastic(problem, times, ratios, churns, self.s_noise)


@dataclass(frozen=True)
class FittedEDMStochastic(FittedIntegrator):
    """The method on its time grid: the levels sigma / alpha (steps + 1) and the churn g of every step (steps)."""

    ratios: list[float]
    churns: list[float]
    s_noise: float

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max; draw i of the stream is the i-th step's noise, where it has any."""
        process = self.problem.process
        y = x / process.alpha(self.times[0])
        for number, (ratio, following) in enumerate(pairwise(self.ratios), start=1):
            churn = self.churns[number - 1]
            raised = ratio * (1.0 + churn)
            if churn > 0:
                y = y + self.s_noise * math.sqrt(raised**2 - ratio**2) * noise.normal(number)
            slope = scaled_velocity(self.problem, y, raised)  # churn may lead above the level of t_max
            step = following - raised
            reached = y + step * slope
            if number < len(self.churns):
                reached = y + 0.5 * step * (slope + scaled_velocity(self.problem, reached, following))
            y = reached
        return process.alpha(self.times[-1]) * y
