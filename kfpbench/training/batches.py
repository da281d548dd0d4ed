"""The batches of a training run, each a function of the seed and the step alone, so that a run can resume anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.training.options import TrainingOptions


@dataclass(frozen=True)
class Batch:
    """images (b, C, H, W) in [-1, 1], sigma (b,), noise (b, C, H, W), labels (b,): ``classes`` where none is given."""

    images: Tensor
    sigma: Tensor
    noise: Tensor
    labels: Tensor


class Batches:
    """Step s draws rows s b, ..., (s + 1) b - 1 of an endless sequence of permutations of the training rows."""

    def __init__(self, dataset: Dataset, options: TrainingOptions, device: torch.device) -> None:
        assert dataset.image_shape is not None
        self.rows = torch.from_numpy(dataset.train)
        self.labels = None if dataset.train_labels is None else torch.from_numpy(dataset.train_labels)
        self.shape = dataset.image_shape
        self.classes = len(dataset.classes)
        self.options = options
        self.device = device
        self._orders: dict[int, np.ndarray] = {}

    def at(self, step: int) -> Batch:
        """The batch of one step. Cost O(b C H W)."""
        options, size = self.options, self.options.batch_size
        rows = torch.from_numpy(self._indices(step * size, size))
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([options.seed, 1, step]).generate_state(1)[0])
        )
        images = self.rows[rows].view(size, *self.shape)
        if options.flips:
            mirrored = torch.rand(size, generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        levels = torch.exp(options.log_sigma_mean + options.log_sigma_std * torch.randn(size, generator=generator))
        noise = torch.randn(images.shape, generator=generator)
        nameless = torch.rand(size, generator=generator) < options.label_dropout
        labels = torch.full((size,), self.classes)
        if self.labels is not None:
            labels = torch.where(nameless, labels, self.labels[rows])
        parts = (images, levels, noise, labels)
        return Batch(*(part.to(self.device, non_blocking=True) for part in parts))

    def _indices(self, start: int, count: int) -> np.ndarray:
        found, total = [], len(self.rows)
        while count > 0:
            epoch, offset = divmod(start, total)
            part = self._order(epoch)[offset : offset + count]
            found.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(found)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            rng = np.random.default_rng([self.options.seed, 0, epoch])
            self._orders = {epoch: rng.permutation(len(self.rows))}
        return self._orders[epoch]
