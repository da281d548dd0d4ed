"""EDM's preconditioning: a denoiser whose network sees inputs and targets of unit variance at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EdmDenoiser(nn.Module):
    """D(x; s) = c_skip x + c_out F(c_in x; c_noise), an estimate of E[x_0 | x_0 + s eps = x].

    c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2), c_noise = log(s) / 4, and d,
    ``sigma_data``, is the data's standard deviation: F = 0 gives the posterior mean of N(0, d^2), and for data of
    variance d^2 the input c_in x and the target (x_0 - c_skip x) / c_out of F have unit variance. Source: Karras,
    Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), eq. (7) and
    Table 1.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """x (n, C, H, W), sigma (n,), label (n,) -> (n, C, H, W). One evaluation of the network."""
        total = self._total(sigma)
        skip = self.sigma_data**2 / total
        out = sigma[:, None, None, None] * self.sigma_data / total.sqrt()
        return skip * x + out * self.network(*self.network_input(x, sigma), label)

    def network_input(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What F is given: c_in x (n, C, H, W) and c_noise (n,)."""
        return x / self._total(sigma).sqrt(), sigma.log() / 4.0

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """(s^2 + d^2) / (s d)^2 = 1 / c_out^2: the loss of F's output then counts alike at all levels (ibid., Table 1).

        An untrained F = 0 has the weighted loss 1 on data of mean 0 and variance d^2.
        """
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()

    def _total(self, sigma: Tensor) -> Tensor:
        return (sigma.square() + self.sigma_data**2)[:, None, None, None]


def noise_levels(normal: Tensor, mean: float, std: float) -> Tensor:
    """The levels trained on, log s = mean + std * normal; EDM: -1.2 and 1.2 (ibid., Table 1)."""
    return torch.exp(mean + std * normal)
