"""What a training run is: the network, the data, the optimiser, and how far it goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfpbench.networks.architecture import NetworkOptions
from kfpbench.suite.schema import SLUG, Block, StrictModel

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class TrainingOptions(StrictModel):
    """A training file, schema version 1. Counts are of images, so that they hold for any batch size."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=SLUG, description="Names the training folder.")
    description: str = ""
    data: Block
    network: NetworkOptions = Field(default_factory=lambda: NetworkOptions())
    images: Count = Field(default=2_000_000, description="Images seen when the run is complete.")
    batch_size: Count = 64
    learning_rate: Positive = Field(default=6e-4, description="Of Adam, after the warm-up.")
    warmup_images: Annotated[int, Field(ge=0)] = Field(default=20_000, description="The rate rises from 0 over them.")
    cooldown_images: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The rate falls to 0 over the last of them."
    )
    ema_images: Count = Field(default=500_000, description="Half-life of the weights' average.")
    ema_ramp: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="The half-life is at most this part of the images seen."
    )
    clip_norm: Positive = Field(default=1.0, description="Largest norm of a gradient.")
    label_dropout: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Share of images shown without their class."
    )
    flips: bool = Field(default=True, description="Mirror half of the images.")
    log_sigma_mean: float = Field(default=-1.2, description="Noise levels are log-normal.")
    log_sigma_std: Positive = 1.2
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Of the network in training; auto: the faster one here."
    )
    seed: int = Field(default=0, ge=0, lt=2**31)
