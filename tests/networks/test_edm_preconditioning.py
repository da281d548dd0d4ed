"""The preconditioning against the formulas that define it: unit variances, the Gaussian posterior, the loss weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kfpbench.networks.edm_preconditioning import EdmDenoiser, noise_levels

LEVELS = torch.tensor([0.002, 0.05, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)
NO_LABEL = torch.zeros(len(LEVELS), dtype=torch.long)


class Planted(nn.Module):
    """A network that returns a constant and keeps what it was given."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.given: list[Tensor] = []

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        self.given = [x, condition, label]
        return torch.full_like(x, self.value)


def ones() -> Tensor:
    return torch.ones(len(LEVELS), 1, 1, 1, dtype=torch.float64)


@pytest.mark.parametrize("d", [0.5, 1.3])
def test_a_zero_network_is_the_posterior_mean_of_a_gaussian(d: float) -> None:
    """E[x_0 | x] of N(0, d^2) by precisions: (x / s^2) / (1 / s^2 + 1 / d^2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(LEVELS), 2, 4, 4, generator=generator, dtype=torch.float64)
    precision = (1 / LEVELS**2)[:, None, None, None]
    expected = x * precision / (precision + 1 / d**2)
    torch.testing.assert_close(EdmDenoiser(Planted(0.0), d)(x, LEVELS, NO_LABEL), expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("d", [0.5, 1.3])
def test_inputs_and_targets_have_unit_variance(d: float) -> None:
    """For x_0 of variance d^2 and unit noise, both are linear in (x_0, eps): variances follow from the coefficients."""
    network = Planted(0.0)
    skip = EdmDenoiser(network, d)(ones(), LEVELS, NO_LABEL).flatten()
    c_in = network.given[0].flatten()
    torch.testing.assert_close(c_in**2 * (d**2 + LEVELS**2), torch.ones_like(LEVELS), rtol=1e-12, atol=0.0)
    out = EdmDenoiser(Planted(1.0), d)(0.0 * ones(), LEVELS, NO_LABEL).flatten()
    # target = (x_0 - skip (x_0 + s eps)) / out
    variance = ((1 - skip) ** 2 * d**2 + (skip * LEVELS) ** 2) / out**2
    torch.testing.assert_close(variance, torch.ones_like(LEVELS), rtol=1e-8, atol=0.0)
    weight = EdmDenoiser(network, d).loss_weight(LEVELS)
    torch.testing.assert_close(weight * out**2, torch.ones_like(LEVELS), rtol=1e-12, atol=0.0)


def test_the_network_sees_a_quarter_of_the_log_level_and_the_label() -> None:
    network = Planted(0.0)
    label = torch.arange(len(LEVELS))
    EdmDenoiser(network)(ones(), LEVELS, label)
    torch.testing.assert_close(network.given[1], LEVELS.log() / 4)
    assert torch.equal(network.given[2], label)


def test_levels_are_log_normal() -> None:
    normal = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(noise_levels(normal, -1.2, 1.2).log(), torch.tensor([-2.4, -1.2, 1.2]))
