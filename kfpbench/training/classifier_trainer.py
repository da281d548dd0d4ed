"""Training of the feature classifier: SGD with Nesterov momentum on a triangular rate, mirrored and shifted images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError
from kfpbench.networks.classifier import Classifier

_RISE = 0.2  # share of the steps over which the rate rises
_REPORTED = 20  # steps between two reports
_WHITENED = 5000  # images whose patches give the first layer


@dataclass(frozen=True)
class ClassifierOptions:
    """How the classifier is trained."""

    channels: tuple[int, ...] = (64, 128, 256)  # each level halves the side
    epochs: int = 9
    batch_size: int = 256
    learning_rate: float = 0.2  # the peak of the triangle
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 2  # pixels in each direction
    seed: int = 0


def train_classifier(
    dataset: Dataset, options: ClassifierOptions, report: Callable[[int, float, float], None]
) -> Classifier:
    """Fit a classifier to the training rows; ``report`` gets (images seen, mean loss of the last 20 steps, seconds).

    The rate rises linearly over the first fifth of the steps and falls linearly to 0; matrices and filters are decayed,
    gains and shifts are not. Deterministic for a seed on one machine. Cost epochs x N x some 4 10^8 operations for
    images of side 32. Raises CapabilityError for data without images or labels.
    """
    if dataset.image_shape is None or dataset.train_labels is None:
        raise CapabilityError("a classifier needs labelled images", got=f"data set {dataset.name!r}")
    torch.manual_seed(options.seed)
    images = torch.from_numpy(dataset.train).view(-1, *dataset.image_shape)
    labels = torch.from_numpy(dataset.train_labels)
    network = Classifier(dataset.image_shape, len(dataset.classes), options.channels)
    network.whiten_stem(images[:_WHITENED])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in network.parameters() if p.dim() <= 1]},
    ]
    optimiser = torch.optim.SGD(
        groups,
        lr=options.learning_rate,
        momentum=options.momentum,
        nesterov=True,
    )
    per_epoch = len(images) // options.batch_size
    total = options.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (_RISE * total), max(total - step, 0) / ((1.0 - _RISE) * total))
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    rng = np.random.default_rng(options.seed)
    begin = time.perf_counter()
    losses: list[float] = []
    order = rng.permutation(len(images))
    for step in range(total):
        if step > 0 and step % per_epoch == 0:
            order = rng.permutation(len(images))
        at = (step % per_epoch) * options.batch_size
        rows = torch.from_numpy(order[at : at + options.batch_size])
        batch = augment(images[rows], options.shift, rng).contiguous(memory_format=torch.channels_last)
        loss = loss_of(network(batch), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) == _REPORTED:
            report((step + 1) * options.batch_size, sum(losses) / _REPORTED, time.perf_counter() - begin)
            losses = []
    return network.eval()


def augment(images: Tensor, shift: int, rng: np.random.Generator) -> Tensor:
    """Mirror half of the images (n, C, H, W) and shift each by up to ``shift`` pixels, borders reflected."""
    mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    padded = functional.pad(images, (shift,) * 4, mode="reflect")
    height, width = images.shape[2:]
    moved = torch.empty_like(images)
    offsets = torch.from_numpy(rng.integers(0, 2 * shift + 1, size=(len(images), 2)))
    for down in range(2 * shift + 1):
        for right in range(2 * shift + 1):
            here = (offsets[:, 0] == down) & (offsets[:, 1] == right)
            moved[here] = padded[here, :, down : down + height, right : right + width]
    return moved


@torch.inference_mode()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images (n, C, H, W) whose largest logit is their label's."""
    found = torch.cat([network(part).argmax(1) for part in images.split(500)])
    return float((found == labels).float().mean())
