"""EDM-preconditioned networks whose weights lie in a state dict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from kfpbench.data.dataset import Dataset
from kfpbench.errors import DataError, ParameterError
from kfpbench.networks.edm_preconditioning import EdmDenoiser
from kfpbench.networks.unet import UNet
from kfpbench.protocols import ProblemSize
from kfpbench.scores.images import pixels_of, require_images
from kfpbench.scores.network import NetworkScore
from kfpbench.scores.weight_files import fill, fingerprint, read_weights, without_prefix

Count = Annotated[int, Field(ge=1)]


class EdmStateDict:
    """E[x_0 | x] = D(x / alpha; sigma / alpha) with EDM's D(y; s) = c_skip y + c_out F(c_in y; log(s) / 4, label).

    ``path`` is a .safetensors, .pt or .pth file with the weights of F; no code from it is run. Only names that start
    with ``prefix`` count, without it ("module.", "ema.", "network."). F is kfpbench.networks.unet.UNet with the given
    ``patch``, ``channels``, ``blocks``, ``attention`` and ``classes`` (null: as many as the data set has).
    ``label`` is the class of every sample; null: no class. ``tile`` images go through the network at once.

    A suite cannot name another architecture: importing code that a suite names is running it. A network of your own is
    a subclass in a plugin, which `plugins:` and --allow-plugins guard: override ``build_network`` and, where the
    constructor or the memory differ, those.

    Cost: one evaluation of F a row. Raises DataError for a missing file or weights that do not fit, CapabilityError for
    a data set of points. Source: Karras, Aittala, Aila, Laine (2022), eq. (7) and Table 1.
    """

    contract_examples: ClassVar[tuple[dict[str, object], ...]] = ({"path": "weights.safetensors"},)

    def __init__(
        self,
        path: str,
        prefix: str = "",
        sigma_data: Annotated[float, Field(gt=0)] = 0.5,
        label: Annotated[int, Field(ge=0)] | None = None,
        patch: Count = 2,
        channels: Sequence[Count] = (48, 96, 176),
        blocks: Count = 1,
        attention: Sequence[Annotated[int, Field(ge=0)]] = (1, 2),
        classes: Annotated[int, Field(ge=0)] | None = None,
        tile: Count = 64,
    ) -> None:
        self.path, self.prefix, self.sigma_data, self.label = path, prefix, sigma_data, label
        self.patch, self.channels, self.blocks = patch, tuple(channels), blocks
        self.attention, self.classes, self.tile = tuple(attention), classes, tile

    def build_network(self, dataset: Dataset) -> nn.Module:
        """The untrained F: images (n, C, H, W), c_noise (n,), labels (n,) -> (n, C, H, W).

        Without a ``label`` the labels are the number of classes, one beyond the last: "no class".
        """
        shape = require_images(dataset, "edm_state_dict")
        smallest = self.patch * 2 ** (len(self.channels) - 1)
        if shape[1] % smallest or shape[2] % smallest:
            raise ParameterError(
                "images cannot be halved from level to level of that network",
                got=f"{shape[1]} x {shape[2]} pixels, patch {self.patch}, {len(self.channels)} levels",
                allowed=f"sides that {smallest} divides",
            )
        classes = self._classes(dataset)
        return UNet(shape, self.patch, self.channels, self.blocks, self.attention, classes)

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundEdm:
        """Read the weights and put the network on a device."""
        shape = require_images(dataset, "edm_state_dict")
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise DataError(
                "the network's weights are not there",
                got=str(file),
                remedy="Put the state dict of the EDM-preconditioned network there (.safetensors, .pt or .pth), or set "
                "score.path; a relative path starts at the working directory.",
            )
        weights = without_prefix(read_weights(file), self.prefix, str(file))
        network = self.build_network(dataset)
        fill(network, weights, str(file))
        classes = self._classes(dataset)
        if self.label is not None and self.label >= classes:
            raise ParameterError(
                "no such class",
                got=f"label {self.label}",
                allowed=f"0 to {classes - 1}, or null" if classes else "null: the network knows no classes",
            )
        denoiser = EdmDenoiser(network, self.sigma_data).to(device, dtype).eval().requires_grad_(False)
        return BoundEdm(denoiser, shape, classes if self.label is None else self.label, self.tile)

    def fingerprint(self) -> str | None:
        """SHA-256 of the file of weights: what the values depend on beside the parameters. None where there is none."""
        return fingerprint(Path(self.path).expanduser())

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the weights, in the file and in the network, a tile's activations, and two batches.

        The file counts as if it held half precision; activations are those of the built-in network.
        """
        file = Path(self.path).expanduser()
        weights = (size.itemsize - 1) * file.stat().st_size if file.is_file() else 0  # 1 + 2 parts, and 4 in float64
        pixels = pixels_of(size.dimension) / self.patch**2
        levels = sum(count / 4**level for level, count in enumerate(self.channels))
        middle = 2 * (pixels / 4 ** (len(self.channels) - 1)) ** 2
        # at worst a stage of the way up holds some 12 arrays of its channels, a level its skips, the middle attention
        activations = pixels * levels * (12 + self.blocks) + middle + 6 * size.dimension
        rows = min(self.tile, size.batch) * activations + 2 * size.batch * size.dimension
        return int(weights + size.itemsize * rows)

    def _classes(self, dataset: Dataset) -> int:
        return len(dataset.classes) if self.classes is None else self.classes


class BoundEdm(NetworkScore):
    """An EDM-preconditioned network on a device, for one class or none."""

    def __init__(self, denoiser: EdmDenoiser, image_shape: tuple[int, int, int], label: int, tile: int) -> None:
        super().__init__(image_shape, tile)
        self.denoiser, self.label = denoiser, label

    def _denoise_images(self, images: Tensor, alpha: float, sigma: float) -> Tensor:
        level = images.new_full((len(images),), sigma / alpha)
        label = torch.full((len(images),), self.label, device=images.device)
        return self.denoiser(images / alpha, level, label)
