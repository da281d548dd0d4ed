"""DDIM: Euler's method on the probability flow in the variables x / alpha and sigma / alpha."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.data_prediction import euler_weight, half_log_snr
from kfpbench_baselines.integrator import FittedIntegrator, Integrator


class DDIM(Integrator):
    """x <- alpha' D + sigma' (x - alpha D) / sigma, D the denoised x: eta = 0, no noise. Order 1, NFE = steps.

    The linear part of every linear process is integrated exactly, and so is data that is one point. It is the
    exponential Euler method in lambda = log(alpha / sigma), x <- (sigma' / sigma) x + alpha' (1 - e^(-h)) D, so it is
    DPM-Solver++ of order 1 too; under VE it equals Euler's method (``pf_ode_euler``). Source: Song, Meng, Ermon,
    "Denoising Diffusion Implicit Models" (2021), eqs. (12) and (13).
    """

    batches: ClassVar[int] = 3

    def fit(self, problem: Problem) -> FittedDDIM:
        """Nothing to learn: lay the time grid."""
        return FittedDDIM(problem, self.grid(problem))


class FittedDDIM(FittedIntegrator):
    """The method on its time grid."""

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        process = self.problem.process
        for t, following in pairwise(self.times):
            denoised = self.problem.score.denoise(x, process.alpha(t), process.sigma(t))
            weight = process.alpha(following) * euler_weight(
                half_log_snr(process, following) - half_log_snr(process, t)
            )
            x = process.sigma(following) / process.sigma(t) * x + weight * denoised
        return x
