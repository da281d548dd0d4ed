"""The exact score of the Gaussian that has the training data's mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import moments_memory, training_moments
from kfpbench.protocols import ProblemSize
from kfpbench.scores.counted import CountedScore


class GaussianScore:
    """E[x_0 | x] = mu + U alpha lam / (alpha^2 lam + sigma^2) U^T (x - alpha mu), (mu, U, lam) the data's PCA.

    Cost O(n d^2) an evaluation, O(N d^2 + d^3) to bind. Source: Wang and Vastola, "The Unreasonable Effectiveness of
    Gaussian Score Approximation for Diffusion Models" (2024).
    """

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundGaussianScore:
        """Put the moments of the training rows on a device."""
        moments = training_moments(dataset)
        mean, basis, variances = (
            torch.tensor(part, device=device, dtype=dtype) for part in (moments.mean, moments.basis, moments.variances)
        )
        return BoundGaussianScore(mean, basis, variances)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the axes, five batches of rows, and the moments' making."""
        return moments_memory(size.dimension) + size.itemsize * (size.dimension**2 + 5 * size.batch * size.dimension)


class BoundGaussianScore(CountedScore):
    """The Gaussian score on a device: mean (d,), basis (d, d), variances (d,)."""

    def __init__(self, mean: Tensor, basis: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.mean, self.basis, self.variances = mean, basis, variances

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        return self.mean + ((x - alpha * self.mean) @ self.basis * gain) @ self.basis.T
