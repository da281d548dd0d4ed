"""Augmented time: one generator on the pairs (y, s) of state and scaled reverse time, instead of frozen ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import Frame
from kfpbench.operators.generator import FrozenGenerator, GeneratorOptions, Segment, fit_noise
from kfpbench.operators.marginal import marginal
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Problem

_INSTANTS = 64  # distinct times among the points: the score is evaluated in one batch for each


@dataclass(frozen=True)
class TimeCoordinate:
    """s = speed (rho - centre): the span of reverse time mapped to [-width, width]."""

    centre: float
    speed: float

    @classmethod
    def spanning(cls, spans: list[Segment], width: float) -> TimeCoordinate:
        """The coordinate for consecutive spans."""
        first, last = spans[0].start.rho, spans[-1].end.rho
        return cls(0.5 * (first + last), 2.0 * width / (last - first))

    def of(self, rho: float) -> float:
        """The value of s at rho."""
        return self.speed * (rho - self.centre)

    def append(self, y: Tensor, rho: float) -> Tensor:
        """(y, s) (n, d + 1)."""
        return torch.cat([y, y.new_full((len(y), 1), self.of(rho))], dim=1)


def augment(
    problem: Problem, options: GeneratorOptions, frame: Frame, spans: list[Segment], time: TimeCoordinate
) -> FrozenGenerator:
    """Sample L phi = ds/drho d_s phi + b_rho . grad phi + tr(a_rho Hess phi) on N points (y_i, s_i), y_i ~ p at s_i.

    Times are the midpoints of equal strata of the span. The operator has no discrete spectrum on a bounded span (time
    only moves on): its exponential is what is used. The diffusion is diagonal and differs from point to point; along s
    it is zero. Cost: N score evaluations.
    """
    first, last = spans[0].start, spans[-1].end
    rows = problem.dataset.train
    noise = fit_noise(problem, options.points, rows.shape[1])
    chosen = noise.uniform_integers(0, len(rows)).cpu().numpy()
    eps = noise.normal(1)
    instants = min(_INSTANTS, options.points)
    parts = []
    for index, members in enumerate(torch.arange(options.points).tensor_split(instants)):
        rho = first.rho + (index + 0.5) / instants * (last.rho - first.rho)
        at = marginal(problem.process, problem.process.time_of(-rho))
        origin = torch.as_tensor(rows[chosen[members.numpy()]], device=problem.device, dtype=problem.dtype)
        x = at.alpha * origin + at.sigma * eps[members.to(eps.device)]
        denoised = problem.score.denoise(x, at.alpha, at.sigma)
        y = frame.encode(x, at).double()
        excess = frame.excess_drift(x, denoised, at, options.eta).double()
        drift = excess - frame.decay_rate(at, options.eta).double() * y
        diffusion = frame.diffusion(at, options.eta).double().expand_as(y)
        parts.append((time.append(y, rho), drift, diffusion, excess))
    points, drift, diffusion, excess = (torch.cat(columns) for columns in zip(*parts, strict=True))
    drift = torch.cat([drift, drift.new_full((len(drift), 1), time.speed)], dim=1)
    diffusion = torch.cat([diffusion, diffusion.new_zeros((len(diffusion), 1))], dim=1)
    spread = Diffusion.at_points(diffusion) if bool(diffusion.any()) else Diffusion.constant(diffusion.new_zeros(()))
    return FrozenGenerator(GalerkinPencil.uniform(points, drift, spread), excess)
