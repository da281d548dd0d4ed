"""iPNDM: Adams-Bashforth on the predicted noise in the variables x / alpha and sigma / alpha."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.data_prediction import check_order
from kfpbench_baselines.integrator import FittedIntegrator, Integrator, Rho, Steps
from kfpbench_baselines.schedules import Schedule

# ADAMS_BASHFORTH[p - 1]: the weights of the last p slopes, newest first, for equal steps
ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class IPNDM(Integrator):
    """y <- y + (s' - s) sum_j b_j eps_j, eps = (x - alpha D) / sigma: y = x / alpha, s = sigma / alpha, dy/ds = eps.

    b are the Adams-Bashforth weights of order p = ``order`` for equal steps; the first steps take the orders
    1, ..., p - 1 in place of the Runge-Kutta steps of PNDM. NFE = steps.

    Order: p behind its first steps on a grid that is uniform in s = sigma / alpha (under VE the schedule ``time``). The
    first step, one of Euler, leaves O(h^2). On every other grid the weights miss the ratios of the steps: a smooth
    grid, whose ratios are 1 + O(h), has order min(p, 2). Source: Zhang and Chen, "Fast Sampling of Diffusion Models
    with Exponential Integrator" (2023), its iPNDM, after Liu, Ren, Lin, Zhao, "Pseudo Numerical Methods for Diffusion
    Models on Manifolds" (2022), eqs. (9) and (12).
    """

    batches: ClassVar[int] = 7

    def __init__(
        self,
        steps: Steps = 18,
        schedule: Schedule = "edm",
        rho: Rho = 7.0,
        order: Annotated[int, Field(ge=1, le=4)] = 4,
    ) -> None:
        super().__init__(steps, schedule, rho)
        check_order("ipndm", order, len(ADAMS_BASHFORTH))
        self.order = order

    def fit(self, problem: Problem) -> FittedIPNDM:
        """Nothing to learn: lay the time grid."""
        return FittedIPNDM(problem, self.grid(problem), self.order)


@dataclass(frozen=True)
class FittedIPNDM(FittedIntegrator):
    """The method on its time grid."""

    order: int

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        process = self.problem.process
        slopes: list[Tensor] = []  # newest first
        for t, following in pairwise(self.times):
            alpha, sigma = process.alpha(t), process.sigma(t)
            slopes = [(x - alpha * self.problem.score.denoise(x, alpha, sigma)) / sigma, *slopes][: self.order]
            ratio = process.alpha(following) / alpha
            step = process.sigma(following) - ratio * sigma  # alpha' (s' - s)
            x = ratio * x
            for weight, slope in zip(ADAMS_BASHFORTH[len(slopes) - 1], slopes, strict=True):
                x = x + step * weight * slope
        return x
