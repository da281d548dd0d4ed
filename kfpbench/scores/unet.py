"""The score of a trained U-Net: the denoiser of a checkpoint, the shipped one by default."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, ParameterError
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.checkpoint import SHIPPED, Checkpoint, digest, load_checkpoint, read_record
from kfpbench.networks.unet import UNet
from kfpbench.protocols import ProblemSize
from kfpbench.scores.network import NetworkScore

_HEADS_WIDTH = 64


class UNetScore:
    """E[x_0 | alpha x_0 + sigma eps = x] = D(x / alpha; sigma / alpha), D the network of a checkpoint.

    ``checkpoint`` is a file that `kfpbench train` wrote, by default the one that comes with the package (CIFAR-10);
    ``label`` chooses the denoiser of one class, by default that of all. Computed in float32 by ``tile`` rows at a time,
    whatever the type of x; a row's value depends on the tile it is in by rounding alone. (128 rows keep the activations
    in a processor's cache: an eighth faster than 256 on two cores.) Cost O(n) evaluations of the
    network; the model card says how long they take.

    Values carry no gradient. Raises DataError for a missing or damaged file, CapabilityError for data of another shape,
    ParameterError for a label that the network does not know.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        label: Annotated[int, Field(ge=0)] | None = None,
        tile: Annotated[int, Field(ge=1)] = 128,
    ) -> None:
        self.path = SHIPPED if checkpoint is None else Path(checkpoint)
        self.label = label
        self.tile = tile

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundUNetScore:
        """Read the checkpoint and put the network on a device. Values have the type of x, whatever ``dtype`` is."""
        checkpoint = load_checkpoint(self.path)
        shape = checkpoint.record.architecture.image_shape
        if dataset.image_shape != shape:
            raise CapabilityError(
                "the network was trained on images of another shape",
                got=f"data set {dataset.name!r}, image_shape {dataset.image_shape}",
                allowed=str(shape),
                remedy="Train one on these data: `kfpbench train`.",
                where=str(self.path),
            )
        return BoundUNetScore(checkpoint, device, self.tile, self.label)

    def fingerprint(self) -> str | None:
        """SHA-256 of the checkpoint: what the values depend on beside the parameters. None where there is no file."""
        try:
            return digest(self.path)
        except DataError:
            return None

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the weights, the activations of one tile, and the result. Reads the checkpoint's header."""
        architecture = read_record(self.path).architecture
        weights = 2 * self.path.stat().st_size  # float16 on disk
        tile = min(self.tile, size.batch)
        return weights + tile * _activations(architecture) + size.itemsize * size.batch * size.dimension


@dataclass
class _Counter:
    rows: int = 0


class BoundUNetScore(NetworkScore):
    """The network on a device. Rows are flattened images; ``of_class`` gives the denoiser of another class."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, tile: int, label: int | None) -> None:
        architecture = checkpoint.record.architecture
        self._counter = _Counter()
        super().__init__(architecture.image_shape, tile)
        self.checkpoint = checkpoint
        self.classes, self.width = len(architecture.classes), architecture.channels[-1]
        self.label = self._known(label)
        self.denoiser = checkpoint.denoiser.to(device)
        self.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    @property
    def evaluations(self) -> int:
        """Rows evaluated, those of all classes together."""
        return self._counter.rows

    @evaluations.setter
    def evaluations(self, rows: int) -> None:
        self._counter.rows = rows

    def of_class(self, label: int | None) -> BoundUNetScore:
        """The score of one class (None: of all), with the same network and the same count of evaluations.

        Raises ParameterError for a label that the network does not know.
        """
        view = copy.copy(self)
        view.label = self._known(label)
        return view

    def bottleneck(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """The network's features at its lowest resolution, averaged over pixels: (n, d) -> (n, channels[-1]).

        They cost about half of an evaluation, and are counted as one.
        """
        self.evaluations += int(x.shape[0])
        network = cast(UNet, self.denoiser.network)  # what an Architecture builds
        features = x.new_empty(x.shape[0], self.width)
        with torch.no_grad():
            for rows, target in zip(x.split(self.tile), features.split(self.tile), strict=True):
                if len(rows):
                    images, levels, labels = self._tile(rows.reshape(-1, *self.image_shape), alpha, sigma)
                    target.copy_(network.bottleneck(*self.denoiser.network_input(images, levels), labels))
        return features

    def describe(self) -> dict[str, Any]:
        """The file's SHA-256, what it was trained on and how far, and the label."""
        training = self.checkpoint.record.training
        return {
            "sha256": self.checkpoint.sha256,
            "training": training.name,
            "dataset": training.dataset,
            "fingerprint": training.fingerprint,
            "images": training.images,
            "label": self.label,
        }

    def _denoise_images(self, images: Tensor, alpha: float, sigma: float) -> Tensor:
        with torch.inference_mode():
            return self.denoiser(*self._tile(images, alpha, sigma))

    def _tile(self, images: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """x / alpha (t, C, H, W) in float32, levels sigma / alpha (t,), labels (t,)."""
        scaled = (images / alpha).to(torch.float32).contiguous(memory_format=torch.channels_last)
        levels = torch.full((len(images),), sigma / alpha, device=images.device)
        label = self.classes if self.label is None else self.label
        return scaled, levels, torch.full((len(images),), label, device=images.device)

    def _known(self, label: int | None) -> int | None:
        if label is not None and not 0 <= label < self.classes:
            allowed = f"0 to {self.classes - 1}, or null" if self.classes else "null: it knows no classes"
            raise ParameterError("the network knows no such label", got=label, allowed=allowed)
        return label


def _activations(architecture: Architecture) -> int:
    """Bytes of float32 that one image needs at the moment when most is held: all skips, and the widest stage.

    A stage holds its input, two normalised copies, the output and the convolution's workspace.
    """
    _, height, width = architecture.image_shape
    pixels = [height * width // architecture.patch**2 // 4**level for level in range(len(architecture.channels))]
    skips = widest = 0
    for level, (channels, count) in enumerate(zip(architecture.channels, pixels, strict=True)):
        skips += architecture.blocks * channels * count
        wide = channels + architecture.channels[min(level + 1, len(architecture.channels) - 1)]
        attention = max(channels // _HEADS_WIDTH, 1) * count**2 if level in architecture.attention else 0
        widest = max(widest, 6 * wide * count + attention)
    return 4 * (skips + widest)
