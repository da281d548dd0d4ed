"""The closed-form smoothed score: the empirical one, averaged over perturbations of its argument."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.noise import NoiseStream
from kfpbench.protocols import ProblemSize
from kfpbench.scores.counted import CountedScore
from kfpbench.scores.empirical import BoundEmpiricalScore, EmpiricalScore

_STREAM = 2  # beside those of sampling and fitting


class SmoothedScore:
    """E_h[x_0 | x] = (1/M) sum_m D(x + h e_m), D the empirical denoiser, e_m standard normal.

    Averaging the score (alpha D(y) - y) / sigma^2 over y = x + h e gives this denoiser, since e has mean 0; the
    mean of the M draws, which is not 0, is left out, so that a single training row is its own answer; smoothing -> 0
    gives ``empirical``. h = ``smoothing`` (alpha + sigma) is ``smoothing`` in the coordinates z = x / (alpha + sigma)
    = t x_0 + (1 - t) eps, so that every process gives the same flow. It answers with barycentres of near training rows
    where ``empirical`` answers with copies.

    The M = ``draws`` perturbations depend on (``seed``, m) alone and are the same for all rows and times: a row does
    not depend on its batch, and the flow is smooth in x and t.

    Cost O(M n N d) a call, which counts as one evaluation a row, though it costs M of the empirical score's; memory
    that of ``empirical`` and the perturbations, M d. Source: Scarvelis, Borde, Solomon, "Closed-Form Diffusion Models"
    (2023); their approximation by nearest neighbours is not used.
    """

    def __init__(
        self,
        smoothing: Annotated[float, Field(ge=0)] = 0.5,
        draws: Annotated[int, Field(ge=1)] = 8,
        seed: Annotated[int, Field(ge=0)] = 0,
        tile: Annotated[int, Field(ge=1)] = 256,
    ) -> None:
        self.smoothing, self.draws, self.seed = smoothing, draws, seed
        self.empirical = EmpiricalScore(tile)

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundSmoothedScore:
        """Put the training rows and the perturbations on a device."""
        stream = NoiseStream.of_range(self.seed, 0, self.draws, dataset.dimension, device, dtype, _STREAM)
        return BoundSmoothedScore(self.empirical.bind(dataset, device, dtype), self.smoothing * stream.normal(0))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: those of ``empirical``, the perturbations with the making of their noise, and three batches."""
        making = 8 * 12 * self.draws * size.dimension  # words of the counter and their logarithms, eight bytes each
        own = (self.draws + 3 * size.batch) * size.dimension
        return self.empirical.working_memory(size) + making + size.itemsize * own


class BoundSmoothedScore(CountedScore):
    """The smoothed score on a device: an empirical score and ``perturbations`` (M, d), for alpha + sigma = 1."""

    def __init__(self, empirical: BoundEmpiricalScore, perturbations: Tensor) -> None:
        super().__init__()
        self.empirical, self.perturbations = empirical, perturbations

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        total = torch.zeros_like(x)
        for perturbation in self.perturbations:
            total += self.empirical.denoise(x + (alpha + sigma) * perturbation, alpha, sigma)
        return total / len(self.perturbations)
