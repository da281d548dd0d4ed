"""Closed-form Gaussian sampler: the probability flow of data with the training rows' mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.data.moments import moments_memory, training_moments
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize, Process
from kfpbench_baselines.integrator import NOISE_BYTES


class ClosedFormGaussian:
    """x_0 = alpha_0 mu + U (S_0 / S_T)^(1/2) U^T (x_T - alpha_T mu), S_t = alpha_t^2 lam + sigma_t^2; NFE = 0.

    The exact solution of the probability-flow ODE for Gaussian data; the control that every spectral sampler must beat.
    Cost O(n d^2) a batch, O(N d^2 + d^3) setup. Source: Wang and Vastola (2024).
    """

    def fit(self, problem: Problem) -> FittedGaussian:
        """Take the moments of the training rows and fold both ends into one matrix (d, d)."""
        moments = training_moments(problem.dataset)
        process = problem.process
        start, end = process.t_max, process.t_min

        def spread(t: float) -> Any:
            return process.alpha(t) ** 2 * moments.variances + process.sigma(t) ** 2

        gain = (spread(end) / spread(start)) ** 0.5
        transport = (moments.basis * gain) @ moments.basis.T
        mean, transport = (
            torch.tensor(part, device=problem.device, dtype=problem.dtype) for part in (moments.mean, transport)
        )
        return FittedGaussian(process, mean, transport)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the matrix, three batches, the making of their noise and of the moments."""
        batch = (3 * size.itemsize + NOISE_BYTES) * size.batch * size.dimension
        return moments_memory(size.dimension) + size.itemsize * size.dimension**2 + batch


@dataclass(frozen=True)
class FittedGaussian:
    """mean (d,) and the symmetric map (d, d) from the centred start to the centred end."""

    process: Process
    mean: Tensor
    transport: Tensor

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from draw 0 of the stream."""
        return self.integrate(self.process.sigma(self.process.t_max) * noise.normal(0), noise)

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max; draws nothing."""
        start, end = self.process.t_max, self.process.t_min
        return (x - self.process.alpha(start) * self.mean) @ self.transport + self.process.alpha(end) * self.mean

    def describe(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}
