"""What every score on a device shares: Tweedie's formula and the count of evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class CountedScore(ABC):
    """A denoiser E[x_0 | x_t = x] that counts the rows it is asked for.

    ``evaluations`` divided by the number of samples is the NFE: counted here, never declared by a sampler.
    """

    def __init__(self) -> None:
        self.evaluations = 0

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | alpha x_0 + sigma eps = x], shape (n, d)."""
        self.evaluations += int(x.shape[0])
        return self._denoise(x, alpha, sigma)

    def score(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """grad log p_t(x) = (alpha E[x_0 | x] - x) / sigma^2 (Tweedie), shape (n, d)."""
        return (alpha * self.denoise(x, alpha, sigma) - x) / sigma**2

    @abstractmethod
    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor: ...
