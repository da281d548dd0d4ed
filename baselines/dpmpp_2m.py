"""DPM-Solver++(2M): a multistep exponential integrator of order 2 for the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.data_prediction import euler_weight, integrate_multistep, step_orders
from kfpbench_baselines.integrator import FittedIntegrator, Integrator, Rho, Steps
from kfpbench_baselines.schedules import Schedule

FEW_STEPS = 15  # below this the authors' code, and diffusers', lower the order of the last steps


class DPMSolverPP2M(Integrator):
    """x <- (sigma' / sigma) x + alpha' (1 - e^(-h)) (D_0 + (h / (2 h_0)) (D_0 - D_1)), h = lambda' - lambda.

    lambda = log(alpha / sigma); D_0 and D_1 are the denoised states here and one step (h_0 in lambda) before. The first
    step is DDIM. Order 2, NFE = steps.

    ``lower_order_final`` makes the last step DDIM too where there are fewer than 15 steps: the last interval in lambda
    is then so much longer than the one before that extrapolation does harm. From 15 steps on it changes nothing.
    Source: Lu, Zhou, Bao, Chen, Li, Zhu, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models" (2022), Algorithm 2.
    """

    batches: ClassVar[int] = 5

    def __init__(
        self, steps: Steps = 18, schedule: Schedule = "edm", rho: Rho = 7.0, lower_order_final: bool = True
    ) -> None:
        super().__init__(steps, schedule, rho)
        self.lower_order_final = lower_order_final

    def fit(self, problem: Problem) -> FittedDPMSolverPP2M:
        """Nothing to learn: lay the time grid."""
        return FittedDPMSolverPP2M(problem, self.grid(problem), self.lower_order_final)


@dataclass(frozen=True)
class FittedDPMSolverPP2M(FittedIntegrator):
    """The method on its time grid."""

    lower_order_final: bool

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        steps = len(self.times) - 1
        orders = step_orders(2, steps, self.lower_order_final and steps < FEW_STEPS)
        return integrate_multistep(self.problem, self.times, x, orders, second_order_weights)


def second_order_weights(nodes: Sequence[float], step: float) -> list[float]:
    """The weights of D_0 and D_1, u_1 = -h_0; of D_0 alone where there is one node."""
    constant = euler_weight(step)
    if len(nodes) == 1:
        return [constant]
    slope = -0.5 * constant * step / nodes[1]
    return [constant + slope, -slope]
