"""A trained classifier as one safetensors file: float16 weights, and a header that says what they are and whence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError

from kfpbench.errors import DataError
from kfpbench.networks.architecture import Width
from kfpbench.networks.checkpoint import TrainingRecord, copy_tensors, digest, read_header, require_tensors
from kfpbench.networks.classifier import Classifier
from kfpbench.suite.schema import StrictModel

CLASSIFIER_LIMIT = 4 * 2**20  # bytes of a classifier that comes with the package


class ClassifierArchitecture(StrictModel):
    """All that is needed to build a classifier again."""

    image_shape: tuple[Width, Width, Width]  # (C, H, W)
    classes: Annotated[int, Field(ge=2)]
    channels: Annotated[list[Width], Field(min_length=1, max_length=8)]
    width: Width

    def build(self) -> Classifier:
        """The untrained network, its weights drawn from torch's global generator."""
        return Classifier(self.image_shape, self.classes, self.channels, self.width)


class Accuracy(StrictModel):
    """The share of the images of a split whose class is found."""

    share: float
    images: int


class ClassifierRecord(StrictModel):
    """The JSON in the header of a classifier's file; ``accuracy`` by the name of the split, where it was measured."""

    format_version: Literal[1] = 1
    kind: Literal["classifier"] = "classifier"
    architecture: ClassifierArchitecture
    training: TrainingRecord
    classes: list[str]
    accuracy: dict[str, Accuracy] = Field(default_factory=dict)


@dataclass(frozen=True)
class ClassifierCheckpoint:
    """A loaded classifier: the network in float32 on the CPU, ready to evaluate, and the file's SHA-256."""

    network: Classifier
    architecture: ClassifierArchitecture
    sha256: str
    size: int  # bytes


def load_classifier(path: Path) -> ClassifierCheckpoint:
    """Read a classifier. Nothing in the file is executed; memory is bounded by the file's size.

    Raises DataError for a missing file, one that is no classifier of kfpbench or a damaged one, and for tensors that
    are not those of its architecture.
    """
    text, shapes = read_header(path)
    architecture = _architecture(text, str(path))
    try:
        with torch.device("meta"):  # shapes alone: a false record must not make us allocate
            planned = architecture.build().state_dict()
    except RuntimeError as error:
        raise DataError(f"the architecture is not possible: {error}", where=str(path)) from error
    require_tensors({name: tuple(value.shape) for name, value in planned.items()}, shapes, str(path))
    network = architecture.build()
    copy_tensors(path, network.state_dict())
    network.eval().requires_grad_(False)
    return ClassifierCheckpoint(network, architecture, digest(path), path.stat().st_size)


def read_classifier_record(path: Path) -> ClassifierRecord:
    """The whole record, from the head of the file alone. Raises DataError."""
    text, _ = read_header(path)
    try:
        return ClassifierRecord.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(error, str(path)) from error


def _architecture(text: str, where: str) -> ClassifierArchitecture:
    """The architecture alone: the file that is shipped has a shorter record of its training."""
    try:
        document = json.loads(text)
        block = document.get("architecture") if isinstance(document, dict) else None
        return ClassifierArchitecture.model_validate_json(json.dumps(block))
    except ValidationError as error:
        raise _invalid(error, where) from error
    except ValueError as error:
        raise DataError(f"the record is not JSON: {error}", where=where) from error


def _invalid(error: ValidationError, where: str) -> DataError:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    what = "the record is not that of a classifier" + (f": {place}: {first['msg']}" if place else "")
    remedy = "`kfpbench train` with `kind: classifier` writes such files."
    return DataError(what, got=first["input"], remedy=remedy, where=where)
