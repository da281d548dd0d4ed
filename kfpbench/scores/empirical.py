"""The exact score of the training set's empirical measure, in closed form."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.protocols import ProblemSize
from kfpbench.scores.counted import CountedScore

_SPARSE_BELOW = 0.02  # share of weights that matter under which a sparse product beats a GEMM


class EmpiricalScore:
    """E[x_0 | x] = sum_i softmax_i(-|x - alpha y_i|^2 / (2 sigma^2)) y_i over the training rows y_i.

    Exact up to rounding: only weights whose sum is below the unit roundoff are dropped. Its flow reproduces training
    rows as sigma tends to 0: a memorising reference, not a generative model. Cost O(n N d) an evaluation; memory
    ``tile`` x N numbers besides the rows. Source: Karras et al., "Elucidating the Design Space of Diffusion-Based
    Generative Models" (2022), appendix B.3, eq. (57).
    """

    def __init__(self, tile: Annotated[int, Field(ge=1)] = 256) -> None:
        self.tile = tile

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundEmpiricalScore:
        """Put the centred training rows on a device."""
        rows = torch.tensor(dataset.train, device=device, dtype=dtype)  # a copy: it is centred in place
        return BoundEmpiricalScore(rows, self.tile)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the centred rows, three tiles of weights, and four batches."""
        tile = min(self.tile, size.batch)
        return size.itemsize * (size.train * size.dimension + 3 * tile * size.train + 4 * size.batch * size.dimension)


class BoundEmpiricalScore(CountedScore):
    """The empirical score on a device; it takes ``rows`` (N, d) over and keeps them centred, for accuracy."""

    def __init__(self, rows: Tensor, tile: int) -> None:
        super().__init__()
        self.mean = rows.mean(dim=0)
        self.rows = rows.sub_(self.mean)
        self.half_norms = 0.5 * self.rows.square().sum(dim=1)
        self.tile = tile

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        centred = (x - alpha * self.mean) * (alpha / sigma**2)
        parts = [self._average(part, alpha, sigma) for part in centred.split(self.tile)]
        return torch.cat(parts) + self.mean if parts else torch.empty_like(x)

    def _average(self, scaled: Tensor, alpha: float, sigma: float) -> Tensor:
        """Weighted mean of the centred rows, (t, d), for scaled = (alpha / sigma^2) (x - alpha mean)."""
        weights = torch.addmm(self.half_norms * (-((alpha / sigma) ** 2)), scaled, self.rows.T)  # (t, N)
        weights = torch.softmax(weights, dim=1)
        # what is dropped adds up to less than N * (eps / N) = eps of the total weight of 1
        negligible = torch.finfo(weights.dtype).eps / weights.shape[1]
        relevant = weights > negligible
        if int(relevant.sum()) > _SPARSE_BELOW * weights.numel():
            return weights @ self.rows
        return torch.sparse.mm(torch.where(relevant, weights, 0.0).to_sparse(), self.rows)
