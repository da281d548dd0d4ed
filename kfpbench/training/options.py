"""What a training run is: the network, the data, the optimiser, and how far it goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kfpbench.suite.schema import SLUG, Block, StrictModel

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class NetworkOptions(StrictModel):
    """The U-Net's shape (kfpbench.networks.unet.UNet) and EDM's sigma_data."""

    patch: Literal[1, 2, 4] = Field(2, description="Side of the pixel-unshuffle before the first convolution.")
    channels: Annotated[list[Count], Field(min_length=1)] = Field([48, 96, 176], description="One entry a level.")
    blocks: Count = Field(1, description="Residual blocks on each level, down and up.")
    attention: list[Annotated[int, Field(ge=0)]] = Field([1, 2], description="Levels with self-attention, from 0.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sigma_data: Positive = 0.5


class TrainingOptions(StrictModel):
    """A training file, schema version 1."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=SLUG, description="Names the training folder.")
    description: str = ""
    data: Block
    network: NetworkOptions = Field(default_factory=NetworkOptions)
    images: Count = Field(2_000_000, description="Images seen when the run is complete.")
    batch_size: Count = 64
    learning_rate: Positive = Field(6e-4, description="Of Adam, after the warm-up.")
    warmup_images: Annotated[int, Field(ge=0)] = 20_000
    cooldown_images: Annotated[int, Field(ge=0)] = Field(0, description="The rate falls to 0 over the last of them.")
    ema_images: Count = Field(500_000, description="Half-life of the weights' average in images.")
    ema_ramp: Annotated[float, Field(gt=0, le=1)] = Field(0.05, description="It is at most this part of those seen.")
    clip_norm: Positive = Field(1.0, description="Largest norm of a gradient.")
    label_dropout: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="Share of images without their class.")
    flips: bool = Field(True, description="Mirror half of the images.")
    log_sigma_mean: float = -1.2
    log_sigma_std: Positive = 1.2
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: the faster, by a trial.")
    seed: int = Field(0, ge=0, lt=2**31)
