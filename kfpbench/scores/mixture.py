"""The exact score of a data set whose law is a Gaussian mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError
from kfpbench.protocols import ProblemSize
from kfpbench.scores.counted import CountedScore


class MixtureScore:
    """E[x_0 | x] = sum_k r_k(x) (m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x - alpha m_k)).

    r_k are the responsibilities of the components N(alpha m_k, alpha^2 C_k + sigma^2 I). Cost O(n K d^2).
    Raises CapabilityError for a data set whose law is not known.
    """

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundMixtureScore:
        """Factorise the components' covariances and put them on a device."""
        if dataset.law is None:
            raise CapabilityError(
                f"score 'mixture' needs a data set whose law is a known mixture; {dataset.name!r} is not",
                remedy="Use score 'empirical' or 'gaussian'.",
            )
        covariances = torch.as_tensor(dataset.law.covariances, dtype=torch.float64)
        variances, axes = torch.linalg.eigh(covariances)
        weights = torch.as_tensor(dataset.law.weights, dtype=torch.float64).log()
        means = torch.as_tensor(dataset.law.means, dtype=torch.float64)
        parts = (weights, means, axes, variances.clamp_min(0.0))
        return BoundMixtureScore(*(part.to(device=device, dtype=dtype) for part in parts))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes for some tens of components, which the size alone does not tell."""
        return size.itemsize * 4 * 32 * size.batch * size.dimension


class BoundMixtureScore(CountedScore):
    """The mixture's score on a device: log_weights (K,), means (K, d), axes (K, d, d), variances (K, d)."""

    def __init__(self, log_weights: Tensor, means: Tensor, axes: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.log_weights, self.means, self.axes, self.variances = log_weights, means, axes, variances

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        spread = alpha**2 * self.variances + sigma**2  # (K, d)
        centred = x[:, None, :] - alpha * self.means  # (n, K, d)
        along = torch.einsum("nkd,kde->nke", centred, self.axes)
        log_density = -0.5 * (along.square() / spread).sum(-1) - 0.5 * spread.log().sum(-1)  # (n, K)
        responsibility = torch.softmax(self.log_weights + log_density, dim=1)
        shrunk = along * (alpha * self.variances / spread)
        component = self.means + torch.einsum("nke,kde->nkd", shrunk, self.axes)  # (n, K, d)
        return (responsibility[:, :, None] * component).sum(dim=1)
