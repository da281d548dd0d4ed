"""A training-free sampler: the Gaussian start, then one application of the training set's own denoiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from kfpbench.data.moments import moments_memory
from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.span import split
from kfpbench.protocols import BoundScore, Problem, ProblemSize, Process
from kfpbench.scores.empirical import EmpiricalScore
from kfpbench_baselines.gaussian import ClosedFormGaussian, FittedGaussian


class ClosedFormDenoiser:
    """x_0 = E[x_0 | x*] over the training rows, x* the closed-form Gaussian sampler's state at sigma / alpha = sigma*;

        x = alpha_0 x_0 + sigma_0 xi   at t_min, so that it is scored as every sampler is.

    E[x_0 | x*] = sum_i softmax_i(-|x* - alpha y_i|^2 / (2 sigma^2)) y_i is an average of training images: at a large
    ``sigma_star`` of many, and blurred; at a small one of a single image, which is then copied. A control for
    memorisation and for scores, not a generative model. NFE 0 of the given score (its own denoiser costs O(n N d) a
    batch). Source: Wang and Vastola (2024) for the start; De Bortoli (2022) for the empirical denoiser.

    Raises ParameterError for a sigma_star outside the process.
    """

    def __init__(
        self, sigma_star: Annotated[float, Field(gt=0)] = 5.0, tile: Annotated[int, Field(ge=1)] = 256
    ) -> None:
        if not sigma_star > 0:
            raise ParameterError("sigma_star out of range", got=sigma_star, allowed="> 0", where="closed_form_denoiser")
        if tile < 1:
            raise ParameterError("tile must be at least 1", got=tile, where="closed_form_denoiser")
        self.sigma_star, self.tile = sigma_star, tile

    def fit(self, problem: Problem) -> FittedClosedFormDenoiser:
        """Fit the start to the part of the process before sigma*, and put the training rows on the device."""
        before, _ = split(problem.process, self.sigma_star)
        start = ClosedFormGaussian().fit(replace(problem, process=before))
        denoiser = EmpiricalScore(self.tile).bind(problem.dataset, problem.device, problem.dtype)
        return FittedClosedFormDenoiser(problem.process, before.t_min, start, denoiser)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: those of the start, those of the denoiser, and two batches."""
        start, denoiser = ClosedFormGaussian().working_memory(size), EmpiricalScore(self.tile).working_memory(size)
        held = start - moments_memory(size.dimension) + denoiser + 2 * size.itemsize * size.batch * size.dimension
        return max(moments_memory(size.dimension), held)


@dataclass(frozen=True)
class FittedClosedFormDenoiser:
    """A fitted start that ends at time ``handover``, and the denoiser that is applied there."""

    process: Process
    handover: float
    start: FittedGaussian
    denoiser: BoundScore

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from the draws 0 (the start) and 1 (the noise of t_min)."""
        return self._finish(self.start.sample(noise), noise)

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max, with draw 1 of the stream."""
        return self._finish(self.start.integrate(x, noise), noise)

    def _finish(self, x: Tensor, noise: NoiseStream) -> Tensor:
        process, t = self.process, self.handover
        denoised = self.denoiser.denoise(x, process.alpha(t), process.sigma(t))
        return process.alpha(process.t_min) * denoised + process.sigma(process.t_min) * noise.normal(1)

    def describe(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}
