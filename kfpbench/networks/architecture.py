"""The architecture record of a denoising network: all that is needed to build it again, checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfpbench.networks.edm_preconditioning import EdmDenoiser
from kfpbench.networks.unet import UNet
from kfpbench.suite.schema import StrictModel

Width = Annotated[int, Field(ge=1, le=4096)]
Level = Annotated[int, Field(ge=0, lt=8)]


class NetworkOptions(StrictModel):
    """The U-Net's shape (kfpbench.networks.unet.UNet) and EDM's sigma_data; what a training file may choose."""

    patch: Literal[1, 2, 4] = Field(default=2, description="Side of the pixel-unshuffle before the first convolution.")
    channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = Field(
        default=[48, 96, 176], description="One entry a level."
    )
    blocks: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="Residual blocks on each level, down and up."
    )
    attention: list[Level] = Field(default=[1, 2], description="Levels with self-attention, from 0.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sigma_data: Annotated[float, Field(gt=0)] = Field(default=0.5, description="Standard deviation of the data.")


class Architecture(NetworkOptions):
    """A network for images of one shape and one list of classes, as a checkpoint records it."""

    name: Literal["unet"] = "unet"
    image_shape: tuple[Width, Width, Width]  # (C, H, W)
    classes: list[str]  # their names; the network knows one label more, "no class"

    def build(self) -> EdmDenoiser:
        """The untrained network, its weights drawn from torch's global generator.

        Raises ParameterError for images whose sides the levels cannot halve.
        """
        network = UNet(
            self.image_shape,
            patch=self.patch,
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            classes=len(self.classes),
            dropout=self.dropout,
        )
        return EdmDenoiser(network, self.sigma_data)
