"""Noise that is given instead of drawn: how a fitted sampler is looked at from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError, NumericalError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import FittedSampler, Problem

Plant = Callable[[int, Tensor], Tensor]
_BATCH = 1 << 22  # numbers in one batch of rows


@dataclass(frozen=True)
class PlantedNoise(NoiseStream):
    """A noise stream whose normal numbers are ``plant(draw, indices)`` (n, d); everything else is as in its base.

    ``after`` and ``select`` work as ever, since a row is known by its sample index. Raises CapabilityError for random
    integers: a sampler that takes them draws from a mixture of as many laws.
    """

    plant: Plant = field(kw_only=True)

    def normal(self, draw: int) -> Tensor:
        """The planted numbers of a draw (n, d)."""
        return self.plant(self.first_draw + draw, self.indices)

    def uniform_integers(self, draw: int, high: int) -> Tensor:
        """Refused."""
        raise CapabilityError(
            "the sampler chooses at random among components: its law is not computed",
            remedy="Measure it by samples, with sliced_wasserstein or energy_distance.",
        )


def rows_of(sampler: FittedSampler, problem: Problem, count: int, plant: Plant) -> Tensor:
    """What the sampler makes of ``count`` rows of planted noise: (count, d) in float64 on the CPU, batch by batch.

    Raises NumericalError for rows that are not finite.
    """
    d = problem.dataset.dimension
    batch = max(1, _BATCH // d)
    parts = []
    for start in range(0, count, batch):
        indices = torch.arange(start, min(start + batch, count), device=problem.device)
        noise = PlantedNoise(problem.seed, indices, d, problem.dtype, plant=plant)
        parts.append(sampler.sample(noise).detach().to("cpu", torch.float64))
    rows = torch.cat(parts)
    bad = int((~torch.isfinite(rows)).any(dim=1).sum())
    if bad:
        raise NumericalError(
            "the sampler makes NaN or infinity of planted noise",
            got=f"{bad} of {count} rows",
            remedy="Use more steps, or float64.",
        )
    return rows
