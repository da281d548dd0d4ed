"""A small convolutional U-Net on pixel-unshuffled images, conditioned on the noise level and a class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kfpbench.errors import ParameterError

_SKIP_GAIN = math.sqrt(0.5)  # a sum of two parts of variance 1 keeps variance 1
_GROUP = 16  # channels that share a normalisation, about
_HEAD = 64  # channels of an attention head, about
_FREQUENCIES = 32


class UNet(nn.Module):
    """F(x, c, label): images (n, C, H, W), noise conditions c (n,), labels (n,) -> images (n, C, H, W).

    x goes through a p x p pixel-unshuffle (C p^2 channels at H/p x W/p), then down through ``channels`` (one level
    each, halving the side from level to level, ``blocks`` residual blocks on each) and up again with skip connections;
    self-attention stands behind the blocks of the levels in ``attention``. Labels run from 0 to classes - 1, and
    ``classes`` itself is "no class". The last layer starts at zero, so that an untrained network returns 0.

    Raises ParameterError for sides that are no multiple of patch * 2^(levels - 1), and for attention on a level that is
    not there. Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), for the shape; Shi et al.,
    "Real-Time Single Image Super-Resolution" (2016), for the unshuffle's inverse.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (3, 32, 32),
        patch: int = 2,
        channels: Sequence[int] = (64, 128, 256),
        blocks: int = 1,
        attention: Sequence[int] = (1, 2),
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_shape(image_shape, patch, len(channels), attention)
        self.patch = patch
        self.classes = classes
        width = 4 * channels[0]
        self.noise = NoiseEmbedding(width)
        self.label = nn.Embedding(classes + 1, width)
        inner = image_shape[0] * patch**2
        self.enter = nn.Conv2d(inner, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        here = channels[0]
        for level, count in enumerate(channels):
            if level > 0:
                self.down.append(Downsample(here))
            for _ in range(blocks):
                self.down.append(Stage(here, count, width, level in attention, dropout))
                here = count
        self.middle = Stage(here, here, width, True, dropout)
        self.up = nn.ModuleList()
        for level, count in reversed(list(enumerate(channels))):
            for _ in range(blocks):
                self.up.append(Stage(here + count, count, width, level in attention, dropout))
                here = count
            if level > 0:
                self.up.append(Upsample(here))
        self.leave = nn.Sequential(_norm(here), nn.SiLU(), _zero(nn.Conv2d(here, inner, 3, padding=1)))

    def forward(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        """One evaluation. Cost O(n H W / p^2) times the squares of the channels, most of it in 3 x 3 convolutions."""
        return functional.pixel_shuffle(self.leave(self._decode(*self._encode(x, condition, label))), self.patch)

    def bottleneck(self, x: Tensor, condition: Tensor, label: Tensor) -> Tensor:
        """The features (n, channels[-1]) at the lowest resolution, averaged over its pixels."""
        hidden, _, _ = self._encode(x, condition, label)
        return hidden.mean(dim=(2, 3))

    def _encode(self, x: Tensor, condition: Tensor, label: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        embedding = functional.silu(self.noise(condition) + self.label(label))
        hidden = self.enter(functional.pixel_unshuffle(x, self.patch))
        skips = []
        for stage in self.down:
            hidden = stage(hidden, embedding)
            if isinstance(stage, Stage):
                skips.append(hidden)
        return self.middle(hidden, embedding), skips, embedding

    def _decode(self, hidden: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        for stage in self.up:
            hidden = stage(hidden if isinstance(stage, Upsample) else torch.cat([hidden, skips.pop()], 1), embedding)
        return hidden


class NoiseEmbedding(nn.Module):
    """Sines and cosines of the condition at geometric frequencies, through a two-layer perceptron: (n,) -> (n, width).

    Source: Ho et al. (2020), after Vaswani et al. (2017), sec. 3.5.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, 1.5, _FREQUENCIES), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, condition: Tensor) -> Tensor:
        """Cost O(n width^2)."""
        phase = condition[:, None] * self.frequencies
        return self.layers(torch.cat([phase.cos(), phase.sin()], dim=1))


class Stage(nn.Module):
    """A residual block, (n, entering, h, w) -> (n, leaving, h, w), with self-attention behind it or not.

    h = conv(act(norm(x))); y = norm(h) (1 + s) + b with (s, b) linear in the embedding; x + conv(act(y)), scaled by
    sqrt(1/2). Source: He et al. (2016) for the block; Dhariwal and Nichol (2021), sec. 3.1, for scale and shift.
    """

    def __init__(self, entering: int, leaving: int, width: int, attention: bool, dropout: float) -> None:
        super().__init__()
        self.norm_in = _norm(entering)
        self.conv_in = nn.Conv2d(entering, leaving, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * leaving)
        self.norm_out = _norm(leaving)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = _zero(nn.Conv2d(leaving, leaving, 3, padding=1))
        self.skip = nn.Conv2d(entering, leaving, 1) if entering != leaving else nn.Identity()
        self.attention = SelfAttention(leaving) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Cost O(n h w leaving (entering + leaving))."""
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = functional.silu(torch.addcmul(shift, self.norm_out(hidden), 1.0 + scale))
        return self.attention((self.skip(x) + self.conv_out(self.dropout(hidden))) * _SKIP_GAIN)


class SelfAttention(nn.Module):
    """Attention of every pixel to every pixel, heads of about 64 channels: (n, c, h, w) -> (n, c, h, w).

    Source: Vaswani et al. (2017), eq. (1); Ho et al. (2020) for its place.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = math.gcd(channels, max(channels // _HEAD, 1))
        self.norm = _norm(channels)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Cost O(n (h w)^2 c + n h w c^2)."""
        n, c, height, width = x.shape
        parts = self.project_in(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, height * width)
        query, key, value = parts.transpose(3, 4).unbind(1)  # each (n, heads, pixels, c / heads)
        found = functional.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(x.shape)
        return (x + self.project_out(found)) * _SKIP_GAIN


class Downsample(nn.Module):
    """The mean of 2 x 2 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h/2, w/2)."""
        return self.mix(functional.avg_pool2d(x, 2))


class Upsample(nn.Module):
    """The nearest pixel, twice in each direction, and a convolution before it (four times cheaper than behind it)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, 2 h, 2 w)."""
        return functional.interpolate(self.mix(x), scale_factor=2.0, mode="nearest")


def _check_shape(image_shape: Sequence[int], patch: int, levels: int, attention: Sequence[int]) -> None:
    unit = patch * 2 ** (levels - 1)
    if any(side % unit for side in image_shape[1:]):
        raise ParameterError(
            f"images cannot be halved that often: patch {patch} and {levels} levels",
            got=tuple(image_shape),
            allowed=f"sides that are multiples of {unit}",
            remedy="Use fewer channels entries (levels), or a smaller patch.",
        )
    if absent := sorted(level for level in attention if not 0 <= level < levels):
        raise ParameterError("attention on levels that are not there", got=absent, allowed=f"0 to {levels - 1}")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, max(channels // _GROUP, 1)), channels, eps=1e-5)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
