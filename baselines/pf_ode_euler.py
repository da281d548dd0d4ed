"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.probability_flow import velocity
from kfpbench_baselines.schedules import Schedule, check_grid, time_grid


class ProbabilityFlowEuler:
    """x <- x + (t_(i+1) - t_i) v(x, t_i), v the probability-flow velocity: order 1, NFE = steps.

    Under VE this is DDIM. Source: Song et al. (2021), eq. (13).
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4},)

    def __init__(self, steps: Annotated[int, Field(ge=1)] = 100, schedule: Schedule = "edm") -> None:
        check_grid("pf_ode_euler", steps, schedule)
        self.steps, self.schedule = steps, schedule

    def fit(self, problem: Problem) -> FittedProbabilityFlowEuler:
        """Nothing to learn: lay the time grid."""
        return FittedProbabilityFlowEuler(problem, time_grid(problem.process, self.steps, self.schedule))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: three batches of rows."""
        return 3 * size.itemsize * size.batch * size.dimension


@dataclass(frozen=True)
class FittedProbabilityFlowEuler:
    """The method on its time grid."""

    problem: Problem
    times: list[float]

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from draw 0 of the stream."""
        process = self.problem.process
        x = process.sigma(process.t_max) * noise.normal(0)
        for t, following in zip(self.times[:-1], self.times[1:], strict=True):
            x = x + (following - t) * velocity(self.problem, x, t)
        return x

    def describe(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": len(self.times) - 1}
