"""The U-Net: shapes for all patches, what its output depends on, and that all of it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.unet import UNet

SHAPES = [
    ((3, 32, 32), 2, (16, 32, 48)),
    ((3, 32, 32), 4, (16, 32)),
    ((3, 16, 24), 1, (16, 24, 50)),  # 50 channels: no multiple of a group
    ((1, 8, 8), 1, (8, 16)),
    ((1, 8, 8), 2, (16,)),
]


def network(shape: tuple[int, int, int], patch: int, channels: tuple[int, ...], seed: int = 0, **more: int) -> UNet:
    torch.manual_seed(seed)
    return UNet(shape, patch=patch, channels=channels, attention=(len(channels) - 1,), classes=4, **more)


def inputs(shape: tuple[int, int, int], n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=generator)
    return x, torch.randn(n, generator=generator), torch.arange(n) % 5


def wake(one: UNet) -> UNet:
    """Give the layers that start at zero random weights, so that the output depends on everything."""
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    return one


@pytest.mark.parametrize(("shape", "patch", "channels"), SHAPES)
def test_shapes(shape: tuple[int, int, int], patch: int, channels: tuple[int, ...]) -> None:
    one = network(shape, patch, channels, blocks=2)
    x, condition, label = inputs(shape)
    assert torch.equal(one(x, condition, label), torch.zeros_like(x))  # untrained
    wake(one)
    assert one(x, condition, label).shape == x.shape
    assert one.bottleneck(x, condition, label).shape == (3, channels[-1])
    assert float(one(x, condition, label).detach().std()) > 0


def test_a_row_depends_on_its_own_image_level_and_label_alone() -> None:
    one = wake(network((3, 8, 8), 2, (16, 32))).double()
    x, condition, label = (part.double() if part.is_floating_point() else part for part in inputs((3, 8, 8)))
    whole = one(x, condition, label)
    torch.testing.assert_close(one(x[1:2], condition[1:2], label[1:2]), whole[1:2], rtol=1e-10, atol=1e-12)
    for changed in ((x + 1, condition, label), (x, condition + 0.5, label), (x, condition, (label + 1) % 5)):
        assert float((one(*changed) - whole).detach().abs().amax(dim=(1, 2, 3)).min()) > 1e-3


def test_memory_format_changes_rounding_alone() -> None:
    one = wake(network((3, 8, 8), 1, (16, 32))).double()
    x, condition, label = (part.double() if part.is_floating_point() else part for part in inputs((3, 8, 8)))
    expected = one(x, condition, label)
    last = one.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), condition, label)
    torch.testing.assert_close(last, expected, rtol=1e-9, atol=1e-11)


def test_gradients_reach_every_parameter() -> None:
    """Layers that start at zero hide those before them for two steps: skips and the last layer, then the branches."""
    one = network((1, 8, 8), 1, (8, 16))
    optimiser = torch.optim.SGD(one.parameters(), lr=0.1)
    x, condition, _ = inputs((1, 8, 8), n=5)
    label = torch.arange(5)
    for _ in range(3):
        optimiser.zero_grad()
        (one(x, condition, label) - x.flip(2)).square().mean().backward()
        optimiser.step()
    silent = [name for name, p in one.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0.0]
    assert silent == []


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"multiples of 8"):
        UNet((3, 36, 32), patch=2, channels=(16, 16, 16), attention=())
    with pytest.raises(ParameterError, match=r"levels that are not there; got \[2\]; allowed: 0 to 1"):
        UNet((3, 32, 32), channels=(16, 16), attention=(1, 2))


def test_an_architecture_builds_its_network() -> None:
    made = Architecture(
        patch=4, channels=[16, 16], attention=[], sigma_data=0.7, image_shape=(3, 16, 16), classes=["a"]
    )
    denoiser = made.build()
    assert denoiser.sigma_data == 0.7
    assert denoiser.network.label.num_embeddings == 2  # and "no class"
    assert Architecture.model_validate_json(made.model_dump_json()) == made
