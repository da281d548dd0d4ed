"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.probability_flow import velocity
from kfpbench_baselines.schedules import Schedule, check_grid, time_grid


class ProbabilityFlowHeun:
    """Explicit trapezoidal rule: x' = x + h v(x, t_i), x <- x + (h/2) (v(x, t_i) + v(x', t_(i+1))), h = t_(i+1) - t_i.

    Order 2, NFE = 2 steps. Source: Karras et al. (2022), Algorithm 1, which this follows down to t_min; their last
    Euler step from sigma_min to 0 is left out, since every sampler here targets p at t_min.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4},)

    def __init__(self, steps: Annotated[int, Field(ge=1)] = 18, schedule: Schedule = "edm") -> None:
        check_grid("pf_ode_heun", steps, schedule)
        self.steps, self.schedule = steps, schedule

    def fit(self, problem: Problem) -> FittedProbabilityFlowHeun:
        """Nothing to learn: lay the time grid."""
        return FittedProbabilityFlowHeun(problem, time_grid(problem.process, self.steps, self.schedule))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: five batches of rows."""
        return 5 * size.itemsize * size.batch * size.dimension


@dataclass(frozen=True)
class FittedProbabilityFlowHeun:
    """The method on its time grid."""

    problem: Problem
    times: list[float]

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from draw 0 of the stream."""
        process = self.problem.process
        x = process.sigma(process.t_max) * noise.normal(0)
        for t, following in zip(self.times[:-1], self.times[1:], strict=True):
            step = following - t
            slope = velocity(self.problem, x, t)
            predicted = x + step * slope
            x = x + 0.5 * step * (slope + velocity(self.problem, predicted, following))
        return x

    def describe(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": len(self.times) - 1}
