"""What the baselines that step from the noise to the data share: a time grid, and a start anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.schedules import Schedule, check_grid, time_grid

Steps = Annotated[int, Field(ge=1)]
Rho = Annotated[float, Field(gt=0)]
NOISE_BYTES = 32  # that a NoiseStream takes for each number while it draws it: words and Box-Muller are of 64 bits


class Integrator(ABC):
    """A sampler that steps along a fixed time grid; it learns nothing from the data.

    ``steps`` intervals from t_max to t_min on a ``schedule``; ``rho`` is the exponent of the schedule ``edm``. A fit to
    a process with a smaller t_max starts there: that is how a start at sigma* is refined.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4},)
    batches: ClassVar[int] = 4  # rows in memory at a time, in batches: the state, what a step makes of it, its history

    def __init__(self, steps: Steps = 18, schedule: Schedule = "edm", rho: Rho = 7.0) -> None:
        check_grid(type(self).__name__, steps, schedule, rho)
        self.steps, self.schedule, self.rho = steps, schedule, rho

    def grid(self, problem: Problem) -> list[float]:
        """The times t_max = t_0 > ... > t_steps = t_min of a problem's process."""
        return time_grid(problem.process, self.steps, self.schedule, self.rho)

    @abstractmethod
    def fit(self, problem: Problem) -> FittedIntegrator:
        """Lay the time grid of the problem's process."""

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes, an upper bound: ``batches`` batches of rows, and the making of one batch of noise."""
        return (self.batches * size.itemsize + NOISE_BYTES) * size.batch * size.dimension


class StochasticIntegrator(Integrator):
    """An integrator with stochasticity ``eta``: 1 for the reverse process's own noise, 0 for none."""

    def __init__(
        self,
        steps: Steps = 1000,
        schedule: Schedule = "edm",
        eta: Annotated[float, Field(ge=0, le=1)] = 1.0,
        rho: Rho = 7.0,
    ) -> None:
        super().__init__(steps, schedule, rho)
        if not 0.0 <= eta <= 1.0:
            raise ParameterError("eta out of range", got=eta, allowed="0 to 1", where=type(self).__name__)
        self.eta = eta


@dataclass(frozen=True)
class FittedIntegrator(ABC):
    """A method on its time grid."""

    problem: Problem
    times: list[float]

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d); draw 0 of the stream, times sigma at t_max, is the start."""
        process = self.problem.process
        return self.integrate(process.sigma(process.t_max) * noise.normal(0), noise)

    @abstractmethod
    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max; a stochastic method uses the draws 1, 2, ... of the stream."""

    def describe(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": len(self.times) - 1}
