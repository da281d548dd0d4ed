"""What a training run is: the network, the data, the optimiser, and how far it goes. `kind` says what is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfpbench.networks.architecture import NetworkOptions, Width
from kfpbench.suite.schema import SLUG, Block, StrictModel

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class TrainingOptions(StrictModel):
    """A score network's training file, schema version 1. Counts are of images, so that they hold for any batch size."""

    # not part of a dump: the states and checkpoints of score networks name no kind
    kind: Literal["score"] = Field(default="score", exclude=True, description="What is trained.")
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


class ClassifierOptions(StrictModel):
    """A classifier's training file, schema version 1: stochastic gradients with Nesterov momentum and weight decay."""

    kind: Literal["classifier"] = Field(default="classifier", description="What is trained.")
    schema_version: Literal[1] = 1
    name: str = Field(pattern=SLUG, description="Names the training folder.")
    description: str = ""
    data: Block
    channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = Field(
        default=[64, 128, 256], description="One entry a level; each halves the side."
    )
    width: Width = Field(default=64, description="Number of features.")
    epochs: Count = Field(default=9, description="Passes over the training images, in whole batches.")
    batch_size: Count = 256
    learning_rate: Positive = Field(default=0.2, description="The peak: the rate rises to it and falls to 0.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=5e-4, description="Of matrices and filters.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[int, Field(ge=0)] = Field(default=2, description="Pixels by which images are shifted at most.")
    seed: int = Field(default=0, ge=0, lt=2**31)


AnyOptions = TrainingOptions | ClassifierOptions
KINDS: dict[str, type[TrainingOptions] | type[ClassifierOptions]] = {
    "score": TrainingOptions,
    "classifier": ClassifierOptions,
}
