"""Dormand and Prince's Runge-Kutta 5(4) pair on the probability-flow ODE, with steps that a pilot batch has chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.integrator import NOISE_BYTES, FittedIntegrator
from kfpbench_baselines.probability_flow import scaled_velocity

_MOST_STEPS = 1000  # tried by the pilot; a tolerance below the rounding would creep on for ever
# nodes c_i, coefficients a_ij of the stages 2 to 6, and the weights b_i of the solution of order 5
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)


class ProbabilityFlowRK45:
    """dy/dq = (y - D(y; q)) / q in y = x / alpha and q = sigma / alpha, from that of t_max down to that of t_min.

    In q the path is straight where D does not move, so few steps pass the large noise levels. An adaptive solver
    measures its error over the whole batch, and a row would depend on its batch. So ``fit`` lets torchdiffeq's dopri5
    integrate ``pilot`` rows alpha x_0 + sigma eps (training rows and noise of the fit's own stream) with ``rtol`` and
    ``atol`` on y, keeps the accepted steps, and sampling goes through these with the same pair. Its seventh stage is
    the next step's first: NFE = 6 steps, the pilot's evaluations are setup. Order 5.

    Source: Dormand and Prince (1980); torchdiffeq (Chen, 2018) for the step control; Song et al. (2021), app. D.4, for
    RK45 on this ODE, adaptive over the batch. Raises NumericalError where the step control gives up.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"rtol": 1e-3, "atol": 1e-3},)

    def __init__(
        self,
        rtol: Annotated[float, Field(gt=0)] = 1e-5,
        atol: Annotated[float, Field(gt=0)] = 1e-5,
        pilot: Annotated[int, Field(ge=1)] = 16,
    ) -> None:
        for name, value in (("rtol", rtol), ("atol", atol), ("pilot", pilot)):
            if not 0 < value < math.inf:
                raise ParameterError(f"{name} out of range", got=value, allowed="above 0", where="pf_ode_rk45")
        self.rtol, self.atol, self.pilot = rtol, atol, pilot

    def fit(self, problem: Problem) -> FittedRK45:
        """Integrate the pilot rows adaptively and keep the accepted steps."""
        calls = problem.score.evaluations
        levels = self.accepted_levels(problem, self.pilot_rows(problem))
        process = problem.process
        inner = [process.time_of(math.log(level)) for level in levels[1:-1]]
        times = [process.t_max, *inner, process.t_min]
        return FittedRK45(problem, times, levels, problem.score.evaluations - calls)

    def pilot_rows(self, problem: Problem) -> Tensor:
        """x at t_max (pilot, d) from the true marginal: training rows with noise, so that spans of it may start too."""
        train, process = problem.dataset.train, problem.process
        stream = NoiseStream.of_range(
            problem.seed, 0, self.pilot, train.shape[1], problem.device, problem.dtype, stream=1
        )
        which = stream.uniform_integers(0, len(train)).cpu().numpy()
        rows = torch.tensor(train[which], device=problem.device, dtype=problem.dtype)
        return process.alpha(process.t_max) * rows + process.sigma(process.t_max) * stream.normal(1)

    def accepted_levels(self, problem: Problem, x: Tensor) -> list[float]:
        """The levels q from that of t_max to that of t_min between which dopri5 steps with the rows x (n, d)."""
        from torchdiffeq import odeint

        process = problem.process
        first, last = (math.exp(process.log_ratio(t)) for t in (process.t_max, process.t_min))
        recorder = _Recorder(problem)
        ends = torch.tensor([-first, -last], dtype=torch.float64, device=x.device)
        # the last step ends at t_min, not beyond it
        options = {"step_t": ends[1:], "dtype": torch.float64, "max_num_steps": _MOST_STEPS}
        try:
            odeint(
                recorder,
                x / process.alpha(process.t_max),
                ends,
                rtol=self.rtol,
                atol=self.atol,
                method="dopri5",
                options=options,
            )
        except (
            AssertionError
        ) as error:  # torchdiffeq's way to say: too many steps, underflow of the step, a state not finite
            raise NumericalError(
                f"the step control gives up: {error}",
                got=f"rtol {self.rtol:g}, atol {self.atol:g} in {problem.dtype}",
                remedy="Take a larger tolerance, or float64.",
                where="pf_ode_rk45",
            ) from error
        return [first, *recorder.accepted[1:], last]

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: six stages, the state and four more, of a batch or of the pilot rows (with dopri5's dense output)."""
        batch, pilot = size.batch * (11 * size.itemsize + NOISE_BYTES), 24 * self.pilot * size.itemsize
        return size.dimension * max(batch, pilot)


class _Recorder:
    """dy/du for the rising variable u = -q, and the levels at which accepted steps begin."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.accepted: list[float] = []

    def __call__(self, u: Tensor, y: Tensor) -> Tensor:
        return -scaled_velocity(self.problem, y, -float(u))

    def callback_accept_step(self, u: Tensor, y: Tensor, step: Tensor) -> None:
        self.accepted.append(-float(u))


@dataclass(frozen=True)
class FittedRK45(FittedIntegrator):
    """The pair on the pilot's steps: their levels sigma / alpha (steps + 1), and what the pilot took."""

    levels: list[float]
    pilot_evaluations: int

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        process = self.problem.process
        y = x / process.alpha(self.times[0])
        for level, following in pairwise(self.levels):
            step = following - level
            # the first stage is the last one of the step before, at the same point: evaluated once, here
            stages = [scaled_velocity(self.problem, y, level)]
            for node, row in zip(_NODES, _STAGES, strict=True):
                reached = y + step * _combine(row, stages)
                stages.append(scaled_velocity(self.problem, reached, level + node * step))
            y = y + step * _combine(_WEIGHTS, stages)
        return process.alpha(self.times[-1]) * y

    def describe(self) -> dict[str, Any]:
        """The number of steps, and the rows that the pilot evaluated."""
        return {"steps": len(self.times) - 1, "pilot_evaluations": self.pilot_evaluations}


def _combine(coefficients: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """sum_i coefficients_i stages_i, leaving zeros out."""
    total = coefficients[0] * stages[0]
    for coefficient, stage in zip(coefficients[1:], stages[1:], strict=True):
        if coefficient:
            total = total + coefficient * stage
    return total
