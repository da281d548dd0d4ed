"""The patch-local empirical score: every pixel is denoised from the patch around it alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError
from kfpbench.protocols import ProblemSize
from kfpbench.scores.counted import CountedScore
from kfpbench.scores.images import pixels_of, require_images

_NEGLIGIBLE = -60.0  # exp of it, 1e-26, times any number of rows is below rounding; subnormal weights would be slow
_GROWTH = 1.5  # pixels of half-width per unit of sigma / alpha


class PatchLocalScore:
    """E[x_0[p] | the patch of x around p] = sum_i softmax_i(-D_i[p] / (2 sigma^2)) y_i[p], pixel by pixel,

    with D_i[p] = sum_{q in patch(p)} |x[q] - alpha y_i[q]|^2, over the training images y_i (the local score machine).
    Patches of different pixels may come from different images: it composes new ones where ``empirical`` copies. With
    ``shift`` = r > 0 the sum runs over the images moved by up to r pixels in each direction as well (r >= side - 1: the
    equivariant local score machine in full); a patch that the border cuts is compared only with patches that it
    cuts in the same way, since a convolutional network sees the border.

    ``patch`` is the odd side of the square, cut at the border. "growing": it follows the noise,
    half-width 1 + floor(1.5 s), s = sigma / alpha (``growing_half_width``).

    ``train_size`` takes the first training rows only. Cost O(n N S H W (C + H + W)), S = (2 r + 1)^2 moves, whatever
    the patch: the distance of patches is a box filter over squared differences of pixels, as products with two band
    matrices (running sums would be O(1) a pixel, and cancel). Memory: the rows and a few arrays of (H, W, ``tile``,
    ``train_tile``); the softmax is a running one. One evaluation a row and call.

    Raises CapabilityError for points, ParameterError for an even patch. Source: Kamb and Ganguli, "An analytic theory
    of creativity in convolutional diffusion models" (2024), the LS and the boundary-broken ELS machine; they calibrate
    the patch against a trained network, we do not.
    """

    def __init__(
        self,
        patch: Annotated[int, Field(ge=1)] | Literal["growing"] = "growing",
        shift: Annotated[int, Field(ge=0)] = 0,
        train_size: Annotated[int, Field(ge=1)] | None = None,
        tile: Annotated[int, Field(ge=1)] = 16,
        train_tile: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        if patch != "growing" and patch % 2 == 0:
            raise ParameterError(
                "PatchLocalScore: a patch has a pixel in its middle", got=patch, allowed="an odd side, or 'growing'"
            )
        self.patch, self.shift, self.train_size = patch, shift, train_size
        self.tile, self.train_tile = tile, train_tile

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundPatchLocalScore:
        """Put the training images on a device, pixels first."""
        shape = require_images(dataset, "patch_local")
        kept = dataset.train[: self.train_size]
        images = torch.tensor(kept, device=device, dtype=dtype).reshape(len(kept), *shape)
        return BoundPatchLocalScore(images, self.half_width, self.shift, self.tile, self.train_tile)

    def half_width(self, ratio: float, side: int) -> int:
        """Pixels from the middle of a patch to its edge at sigma / alpha = ratio, in images of that larger side."""
        return growing_half_width(ratio, side) if self.patch == "growing" else (self.patch - 1) // 2

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the rows, twice while they are put in order, four arrays of a tile, its sums, three batches."""
        kept = min(size.train, self.train_size or size.train)
        tile, train_tile = min(self.tile, size.batch), min(self.train_tile, kept)
        pairs = 4 * pixels_of(size.dimension) * tile * train_tile
        running = 8 * tile * size.dimension + train_tile * size.dimension
        bands = 8 * max(size.dimension, 64)
        return size.itemsize * (2 * kept * size.dimension + pairs + running + bands + 3 * size.batch * size.dimension)


def growing_half_width(ratio: float, side: int) -> int:
    """1 + floor(1.5 s), s = sigma / alpha, and at most side - 1, where every patch holds the whole image.

    On CIFAR-10 it has the least squared error of the denoised pixels at s = 0.2, 0.35, 0.5, 0.7, 1, 1.5, 2 and 3 among
    half-widths 0, 1, 2, 3, 4, 5, 7, 10, 15 and 31 with 1,000 training images, and is within 3 % of it at 0.5, 1 and 2
    with 8,000 (16 validation images). Below s = 0.2 a single pixel has less, but composes nothing. Rows are taken to be
    images in [-1, 1].
    """
    return min(1 + math.floor(_GROWTH * ratio), side - 1)


@dataclass(frozen=True)
class Window:
    """One axis of a move by ``offset``: the pixels whose patches may be compared, and the pixels those patches hold.

    ``band`` (centres, pixels) adds up a patch: 1 where a pixel lies within the half-width of a centre, else 0.
    """

    offset: int
    centres: slice
    pixels: slice
    band: Tensor

    def moved(self, part: slice) -> slice:
        """Where these pixels lie in the training image."""
        return slice(part.start + self.offset, part.stop + self.offset)


class BoundPatchLocalScore(CountedScore):
    """The patch-local score on a device; it holds the images as (H, W, C, N)."""

    def __init__(
        self, images: Tensor, half_width: Callable[[float, int], int], shift: int, tile: int, train_tile: int
    ) -> None:
        super().__init__()
        self.rows = images.permute(2, 3, 1, 0).contiguous()
        self.half_width, self.shift = half_width, shift
        self.tile, self.train_tile = tile, train_tile

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        height, width, channels, _ = self.rows.shape
        half = self.half_width(sigma / alpha, max(height, width))
        moves = [(down, across) for down in self._windows(height, half) for across in self._windows(width, half)]
        # the image in its place comes first: it gives every pixel a value
        moves.sort(key=lambda move: (move[0].offset, move[1].offset) != (0, 0))
        denoised = torch.empty_like(x)
        for part, target in zip(x.split(self.tile), denoised.split(self.tile), strict=True):
            if len(part):
                query = part.reshape(len(part), channels, height, width).permute(2, 3, 1, 0).contiguous()
                target.copy_(self._average(query, moves, alpha, sigma).permute(3, 2, 0, 1).flatten(1))
        return denoised

    def _windows(self, side: int, half: int) -> list[Window]:
        """The moves along an axis for which some patch is cut by the border as it was before."""
        reach = min(self.shift, side - 1)
        found = []
        for offset in range(-reach, reach + 1):
            # a moved patch must lie inside, both before and after
            low, high = (0, side) if offset == 0 else (half + max(0, -offset), side - half - max(0, offset))
            if low >= high:
                continue
            centres, pixels = slice(low, high), slice(max(0, low - half), min(side, high + half))
            place = torch.arange(side, device=self.rows.device)
            near = (place[centres, None] - place[None, pixels]).abs() <= half
            found.append(Window(offset, centres, pixels, near.to(self.rows.dtype)))
        return found

    def _average(self, query: Tensor, moves: list[tuple[Window, Window]], alpha: float, sigma: float) -> Tensor:
        """The denoised tile (H, W, C, t) of query (H, W, C, t): a softmax over all rows and moves, kept running."""
        height, width, _, count = query.shape
        peak = query.new_full((height, width, count), -torch.inf)  # the largest exponent so far
        total = torch.zeros_like(peak)  # the sum of exp(exponent - peak)
        sums = torch.zeros_like(query)  # that of exp(exponent - peak) y
        for start in range(0, self.rows.shape[3], self.train_tile):
            rows = self.rows[..., start : start + self.train_tile]
            for down, across in moves:
                here = down.centres, across.centres
                weights = self._exponents(query, rows, down, across, alpha, sigma)  # (h, w, t, m)
                before = peak[here]
                now = torch.maximum(before, weights.amax(dim=3))
                fade = (before - now).exp_()
                weights.sub_(now[..., None]).clamp_min_(_NEGLIGIBLE).exp_()
                values = rows[down.moved(down.centres), across.moved(across.centres)]  # (h, w, C, m)
                total[here] = total[here] * fade + weights.sum(dim=3)
                sums[here] = sums[here] * fade[:, :, None] + values @ weights.transpose(2, 3)
                peak[here] = now
        return sums / total[:, :, None]

    def _exponents(
        self, query: Tensor, rows: Tensor, down: Window, across: Window, alpha: float, sigma: float
    ) -> Tensor:
        """-D / (2 sigma^2) (h, w, t, m): squared differences of pixels, then sums over columns and rows of a patch.

        Only terms of one sign are added, so that near patches keep their digits.
        """
        scale = 0.5**0.5 / sigma
        own = query[down.pixels, across.pixels] * scale  # (ph, pw, C, t)
        theirs = rows[down.moved(down.pixels), across.moved(across.pixels)] * (alpha * scale)  # (ph, pw, C, m)
        squared = (own[:, :, 0, :, None] - theirs[:, :, 0, None, :]).square_()
        for channel in range(1, own.shape[2]):
            squared += (own[:, :, channel, :, None] - theirs[:, :, channel, None, :]).square_()
        high, wide, count, several = squared.shape
        summed = torch.matmul(across.band, squared.reshape(high, wide, count * several))  # (ph, w, t m)
        summed = (-down.band) @ summed.reshape(high, -1)  # (h, w t m)
        return summed.reshape(len(down.band), len(across.band), count, several)
