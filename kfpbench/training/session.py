"""One part of a training run: train from the saved state on, keep a log, and write the checkpoint at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError
from kfpbench.suite.components import create
from kfpbench.training.classifier_trainer import ClassifierTrainer
from kfpbench.training.loop import Progress, TrainingLoop
from kfpbench.training.options import AnyOptions, ClassifierOptions
from kfpbench.training.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """How far a run has come: images seen, of how many, and the checkpoint (None before a step)."""

    images: int
    total: int
    checkpoint: Path | None

    @property
    def complete(self) -> bool:
        """Whether all images are seen."""
        return self.images >= self.total


def train(
    options: AnyOptions,
    folder: Path,
    *,
    command: str,
    device: torch.device | None = None,
    dataset: Dataset | None = None,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
    started: Callable[[int, int], None] = lambda images, total: None,
) -> TrainingResult:
    """Train for at most ``seconds`` or until ``stopped()``, from the state in ``folder`` on where there is one.

    The folder then holds the state, ``checkpoint.safetensors`` (in float16: a score's averaged weights, a classifier's
    last ones) and ``log.jsonl`` (a line a report). ``command`` is recorded in the checkpoint; ``started`` is told the
    images seen before, and those of a complete run. Raises what ``Trainer`` or ``ClassifierTrainer`` raises.
    """
    trainer = open_trainer(options, folder, device, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    started(trainer.images, trainer.total)

    def log(progress: Progress) -> None:
        line = {**asdict(progress), "seconds": round(trainer.seconds, 3)}
        with (folder / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        report(progress)

    trainer.run(log, seconds=seconds, stopped=stopped)
    if trainer.step == 0:
        return TrainingResult(0, trainer.total, None)
    trainer.write_checkpoint(folder / CHECKPOINT, command)
    return TrainingResult(trainer.images, trainer.total, folder / CHECKPOINT)


def export(
    options: AnyOptions, folder: Path, path: Path, *, command: str, dataset: Dataset | None = None
) -> tuple[Path, Path]:
    """Write the checkpoint of a folder's state and its model card beside it; train nothing.

    A score network's file has at most 16 MiB, a classifier's 4 MiB; the card of a classifier states its accuracy on the
    validation and test images. Raises ParameterError where the folder holds no state, or for another ending than
    .safetensors.
    """
    if path.suffix != ".safetensors":
        raise ParameterError("a checkpoint ends in .safetensors", got=path.name, remedy="Name it so.")
    trainer = open_trainer(options, folder, torch.device("cpu"), dataset)
    if trainer.step == 0:
        raise ParameterError(
            "there is nothing to export: the folder holds no training state",
            remedy="Train first, or name its folder with --out.",
            where=str(folder),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, trainer.export(path, command)


def open_trainer(
    options: AnyOptions, folder: Path, device: torch.device | None, dataset: Dataset | None
) -> TrainingLoop:
    """The trainer of a folder; the data are loaded where they are not given."""
    loaded: Any = dataset if dataset is not None else create("datasets", options.data).load()
    if isinstance(options, ClassifierOptions):
        return ClassifierTrainer(options, loaded, folder, device or torch.device("cpu"))
    return Trainer(options, loaded, folder, device or torch.device("cpu"))
