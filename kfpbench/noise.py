"""One random stream per sample index: a counter-based generator, so that noise does not depend on the batch.

Entry (i, draw, k) is a function of (seed, stream, i, draw, k) alone: Philox4x32 with 10 rounds (Salmon, Moraes, Dror
and Shaw, SC 2011) under the key ``seed``, counter (k // 4, draw, i, stream), then Box-Muller. It is bitwise the same
for any batch size, order and number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.errors import ParameterError

_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_FEW = 4096  # about where two threads of torch catch up with NumPy

Words = TypeVar("Words", Tensor, NDArray[np.int64])


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """Four words of 32 random bits for every counter, held in int64 tensors or arrays; shapes broadcast. Cost O(n)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0 = c0 * _MULTIPLIER_0  # wraps modulo 2^64: the masks below recover both halves
        high1 = c2 * _MULTIPLIER_1
        low0, low1 = high0 & _MASK, high1 & _MASK
        # the products are not needed any more; their high halves take their place
        high0 >>= 32
        high1 >>= 32
        high0 &= _MASK
        high1 &= _MASK
        high0 ^= k1
        high1 ^= k0
        c0, c2 = high1 ^ c1, high0 ^ c3
        c1, c3 = low1, low0
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class NoiseStream:
    """The noise of the samples ``indices`` (n,), int64: the same rows whatever else is in the batch.

    ``stream`` separates uses that must be independent (0: sampling, 1: fitting). Draws are numbered from 0.
    """

    seed: int
    indices: Tensor
    dimension: int
    dtype: torch.dtype
    stream: int = 0
    first_draw: int = 0  # added to every draw number

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ParameterError("seed out of range", got=self.seed, allowed="0 to 2^64 - 1")

    @classmethod
    def of_range(
        cls,
        seed: int,
        start: int,
        stop: int,
        dimension: int,
        device: torch.device,
        dtype: torch.dtype,
        stream: int = 0,
    ) -> NoiseStream:
        """The stream of the samples start, ..., stop - 1."""
        return cls(seed, torch.arange(start, stop, device=device, dtype=torch.int64), dimension, dtype, stream)

    def after(self, draws: int) -> NoiseStream:
        """The stream whose draw 0 is draw number ``draws`` of this one: for a part of a sampler behind another."""
        return replace(self, first_draw=self.first_draw + draws)

    def select(self, rows: Tensor) -> NoiseStream:
        """The stream of some of the samples: ``rows`` (m,) are positions in the batch, or a mask (n,)."""
        return replace(self, indices=self.indices[rows])

    @property
    def size(self) -> int:
        """Number of samples n in this batch."""
        return int(self.indices.shape[0])

    def _words(self, draw: int, blocks: int) -> tuple[Tensor, ...]:
        """Four words (n, blocks). The counter's parts broadcast: its first round works on rows and columns alone.

        Of few words on a CPU the rounds are NumPy's: the same bits in a quarter of the time (torch's calls are dearer).
        """
        device = self.indices.device
        key = self.seed & _MASK, self.seed >> 32
        block = torch.arange(blocks, device=device, dtype=torch.int64)[None, :]  # (1, blocks)
        index = self.indices[:, None] & _MASK  # (n, 1)
        draws, streams = (torch.full((1, 1), value, device=device) for value in (self.first_draw + draw, self.stream))
        if device.type != "cpu" or self.size * blocks > _FEW:
            return philox4x32((block, draws, index, streams), key)
        words = philox4x32((block.numpy(), draws.numpy(), index.numpy(), streams.numpy()), key)
        return tuple(torch.from_numpy(word) for word in words)

    def normal(self, draw: int) -> Tensor:
        """Standard normal numbers (n, d) of the given draw number. Cost O(n d)."""
        blocks = -(-self.dimension // 4)
        w0, w1, w2, w3 = self._words(draw, blocks)
        # Box-Muller in float64, so that rounding to ``dtype`` hides no difference between vector units
        parts = []
        for radial, angular in ((w0, w1), (w2, w3)):
            radius = torch.sqrt(-2.0 * torch.log((radial.double() + 0.5) * 2.0**-32))
            angle = angular.double() * (2.0 * math.pi * 2.0**-32)
            parts += [radius * torch.cos(angle), radius * torch.sin(angle)]
        normal = torch.stack(parts, dim=-1).reshape(self.size, 4 * blocks)
        return normal[:, : self.dimension].to(self.dtype)

    def uniform_integers(self, draw: int, high: int) -> Tensor:
        """Integers (n,) in [0, high), by multiplication (bias below high / 2^32). Cost O(n).

        Raises ParameterError for a bound that the multiplication in 64 bits does not reach.
        """
        if not 1 <= high <= 2**31:
            raise ParameterError("bound of the random integers out of range", got=high, allowed="1 to 2^31")
        word = self._words(draw, 1)[0][:, 0]
        return (word * high) >> 32
