"""Euler-Maruyama on the reverse SDE family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.schedules import Schedule, check_grid, time_grid


class EulerMaruyama:
    """x <- x + h (-f x + (1 + eta^2)/2 g^2 score) + eta g sqrt(h) xi, h = t_i - t_(i+1) > 0.

    eta = 1 is the reverse SDE, eta = 0 Euler's method on the probability-flow ODE. Additive noise: strong and weak
    order 1. NFE = steps. Source: Anderson (1982) for the reverse SDE; Song et al. (2021), eq. (6); Kloeden and Platen
    (1992), sec. 10.2, for the method.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4},)

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        schedule: Schedule = "edm",
        eta: Annotated[float, Field(ge=0, le=1)] = 1.0,
    ) -> None:
        check_grid("euler_maruyama", steps, schedule)
        if not 0.0 <= eta <= 1.0:
            raise ParameterError("eta out of range", got=eta, allowed="0 to 1", where="euler_maruyama")
        self.steps, self.schedule, self.eta = steps, schedule, eta

    def fit(self, problem: Problem) -> FittedEulerMaruyama:
        """Nothing to learn: lay the time grid."""
        return FittedEulerMaruyama(problem, time_grid(problem.process, self.steps, self.schedule), self.eta)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: four batches of rows."""
        return 4 * size.itemsize * size.batch * size.dimension


@dataclass(frozen=True)
class FittedEulerMaruyama:
    """The method on its time grid."""

    problem: Problem
    times: list[float]
    eta: float

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d); draw 0 is the start, draw i the i-th step's noise."""
        process, eta = self.problem.process, self.eta
        x = process.sigma(process.t_max) * noise.normal(0)
        for draw, (t, following) in enumerate(zip(self.times[:-1], self.times[1:], strict=True), start=1):
            step = t - following
            squared = process.squared_diffusion(t)
            score = self.problem.score.score(x, process.alpha(t), process.sigma(t))
            drift = -process.drift_rate(t) * x + 0.5 * (1.0 + eta**2) * squared * score
            x = x + step * drift
            if eta > 0:
                x = x + eta * math.sqrt(squared * step) * noise.normal(draw)
        return x

    def describe(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": len(self.times) - 1}
