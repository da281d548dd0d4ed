"""DPM-Solver++(3M): a multistep exponential integrator of order 3 for the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.data_prediction import integrate_multistep, interpolation_weights, phi, step_orders
from kfpbench_baselines.dpmpp_2m import FEW_STEPS, second_order_weights
from kfpbench_baselines.integrator import FittedIntegrator, Integrator, Rho, Steps
from kfpbench_baselines.schedules import Schedule

Curvature = Literal["halved", "full"]


class DPMSolverPP3M(Integrator):
    """x <- (sigma' / sigma) x + alpha' sum_(k<3) h^(k+1) phi_(k+1)(-h) D^(k): the denoiser's Taylor polynomial.

    lambda = log(alpha / sigma), h = lambda' - lambda; D' and D'' are those of the parabola through the last three
    denoised states, D'' = 2 D[0, 1, 2] with their second divided difference. The first step is DDIM, the second
    DPM-Solver++(2M). NFE = steps.

    ``curvature``: the authors' published code, and diffusers', put D[0, 1, 2] in place of D'', half of it (``halved``):
    an error of O(h^3) a step, so order 2 with a small constant. ``full`` is the Taylor polynomial itself, order 3
    behind its first steps; the one step of DDIM at the start leaves O(h_1^2), h_1 the first step in lambda. With few
    steps, where extrapolation overshoots, the halved term is the smaller error.

    ``lower_order_final`` makes the last two steps 2M and DDIM where there are fewer than 15 steps; from 15 on it
    changes nothing. Source: Lu et al., "DPM-Solver++" (2022), section 4 (multistep of order 3 as in its code).
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4}, {"steps": 15, "curvature": "full"})
    batches: ClassVar[int] = 6

    def __init__(
        self,
        steps: Steps = 18,
        schedule: Schedule = "edm",
        rho: Rho = 7.0,
        lower_order_final: bool = True,
        curvature: Curvature = "halved",
    ) -> None:
        super().__init__(steps, schedule, rho)
        if curvature not in get_args(Curvature):
            raise ParameterError(
                "unknown curvature", got=curvature, allowed=", ".join(get_args(Curvature)), where="dpmpp_3m"
            )
        self.lower_order_final, self.curvature = lower_order_final, curvature

    def fit(self, problem: Problem) -> FittedDPMSolverPP3M:
        """Nothing to learn: lay the time grid."""
        return FittedDPMSolverPP3M(problem, self.grid(problem), self.lower_order_final, self.curvature)


@dataclass(frozen=True)
class FittedDPMSolverPP3M(FittedIntegrator):
    """The method on its time grid."""

    lower_order_final: bool
    curvature: Curvature

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        steps = len(self.times) - 1
        orders = step_orders(3, steps, self.lower_order_final and steps < FEW_STEPS)
        weights = partial(third_order_weights, curvature=self.curvature)
        return integrate_multistep(self.problem, self.times, x, orders, weights)


def third_order_weights(nodes: Sequence[float], step: float, curvature: Curvature) -> list[float]:
    """The weights of D_0, D_1 and D_2; those of 2M where there are fewer nodes."""
    if len(nodes) < 3:
        return second_order_weights(nodes, step)
    weights = interpolation_weights(nodes, step)
    if curvature == "halved":
        excess = step**3 * phi(3, -step)  # times D[0, 1, 2]
        for j, node in enumerate(nodes):
            others = [node - other for k, other in enumerate(nodes) if k != j]
            weights[j] -= excess / (others[0] * others[1])
    return weights
