"""The batches of a training run, each a function of the seed and the step alone, so that a run can resume anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError
from kfpbench.networks.edm_preconditioning import noise_levels
from kfpbench.training.options import TrainingOptions


@dataclass(frozen=True)
class Batch:
    """images (b, C, H, W) in [-1, 1], sigma (b,), noise (b, C, H, W), labels (b,): ``classes`` where none is given."""

    images: Tensor
    sigma: Tensor
    noise: Tensor
    labels: Tensor


class Batches:
    """Step s draws rows s b, ..., (s + 1) b - 1 of an endless sequence of permutations of the training rows.

    Raises CapabilityError for data without images.
    """

    def __init__(self, dataset: Dataset, options: TrainingOptions, device: torch.device) -> None:
        if dataset.image_shape is None:
            raise CapabilityError("training needs images", got=f"data set {dataset.name!r}", allowed="one with images")
        self.rows = torch.tensor(dataset.train)  # a copy: torch cannot share rows that must not be written
        self.labels = None if dataset.train_labels is None else torch.tensor(dataset.train_labels)
        self.shape = dataset.image_shape
        self.classes = len(dataset.classes)
        self.options = options
        self.device = device
        self._orders: dict[int, NDArray[np.int64]] = {}  # the latest epoch's

    def at(self, step: int) -> Batch:
        """The batch of one step. Cost O(b C H W), and O(N) once an epoch."""
        options, size = self.options, self.options.batch_size
        rows = torch.from_numpy(self.indices(step * size, size))
        generator = torch.Generator().manual_seed(step_seed(options.seed, 1, step))
        images = self.rows[rows].view(size, *self.shape)
        if options.flips:
            mirrored = torch.rand(size, generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        levels = noise_levels(torch.randn(size, generator=generator), options.log_sigma_mean, options.log_sigma_std)
        noise = torch.randn(images.shape, generator=generator)
        nameless = torch.rand(size, generator=generator) < options.label_dropout
        labels = torch.full((size,), self.classes)
        if self.labels is not None:
            labels = torch.where(nameless, labels, self.labels[rows])
        parts = (images, levels, noise, labels)
        return Batch(*(part.to(self.device, non_blocking=True) for part in parts))

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """Entries start, ..., start + count - 1 of the sequence of permutations: rows of the training set."""
        found, total = [], len(self.rows)
        while count > 0:
            epoch, offset = divmod(start, total)
            part = self._order(epoch)[offset : offset + count]
            found.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(found)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            rng = np.random.default_rng([self.options.seed, 0, epoch])
            self._orders = {epoch: rng.permutation(len(self.rows))}
        return self._orders[epoch]


def step_seed(seed: int, purpose: int, step: int) -> int:
    """A seed of 32 bits for one step and purpose (1: the batch, 2: dropout)."""
    return int(np.random.SeedSequence([seed, purpose, step]).generate_state(1)[0])
