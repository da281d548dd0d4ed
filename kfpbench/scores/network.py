"""What scores share that a network computes: rows become images, a tile of them at a time, without gradients."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from kfpbench.scores.counted import CountedScore


class NetworkScore(CountedScore):
    """A denoiser on images: ``_denoise_images`` maps a tile (t, C, H, W) to E[x_0 | x]. Memory O(tile), not O(n)."""

    def __init__(self, image_shape: tuple[int, int, int], tile: int) -> None:
        super().__init__()
        self.image_shape, self.tile = image_shape, tile

    def _denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        denoised = torch.empty_like(x)
        with torch.no_grad():
            for rows, target in zip(x.split(self.tile), denoised.split(self.tile), strict=True):
                if len(rows):
                    images = rows.reshape(len(rows), *self.image_shape)
                    target.copy_(self._denoise_images(images, alpha, sigma).flatten(1))
        return denoised

    @abstractmethod
    def _denoise_images(self, images: Tensor, alpha: float, sigma: float) -> Tensor: ...
