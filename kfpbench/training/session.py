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
from kfpbench.networks.checkpoint import SHIPPED_LIMIT, save_checkpoint
from kfpbench.networks.model_card import write_model_card
from kfpbench.suite.components import create
from kfpbench.training.options import TrainingOptions
from kfpbench.training.trainer import Progress, Trainer

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """How far a run has come: images seen, whether that is all of them, and the checkpoint (None before a step)."""

    images: int
    complete: bool
    checkpoint: Path | None


def train(
    options: TrainingOptions,
    folder: Path,
    *,
    command: str,
    device: torch.device | None = None,
    dataset: Dataset | None = None,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
    started: Callable[[int], None] = lambda images: None,
) -> TrainingResult:
    """Train for at most ``seconds`` or until ``stopped()``, from the state in ``folder`` on where there is one.

    The folder then holds the state, ``checkpoint.safetensors`` (the averaged weights in float16) and ``log.jsonl`` (a
    line a report). ``command`` is recorded in the checkpoint; ``started`` is told the images seen before. Raises what
    ``Trainer`` raises.
    """
    trainer = open_trainer(options, folder, device, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    started(trainer.images)

    def log(progress: Progress) -> None:
        line = {**asdict(progress), "seconds": round(trainer.seconds, 3)}
        with (folder / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        report(progress)

    complete = trainer.run(log, seconds=seconds, stopped=stopped)
    if trainer.step == 0:
        return TrainingResult(0, False, None)
    save_checkpoint(folder / CHECKPOINT, trainer.average, trainer.record(command))
    return TrainingResult(trainer.images, complete, folder / CHECKPOINT)


def export(
    options: TrainingOptions, folder: Path, path: Path, *, command: str, dataset: Dataset | None = None
) -> tuple[Path, Path]:
    """Write the checkpoint of a folder's state, at most 16 MiB, and its model card beside it; train nothing.

    Raises ParameterError where the folder holds no state, or for another ending than .safetensors.
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
    save_checkpoint(path, trainer.average, trainer.record(command), limit=SHIPPED_LIMIT)
    return path, write_model_card(path)


def open_trainer(
    options: TrainingOptions, folder: Path, device: torch.device | None, dataset: Dataset | None
) -> Trainer:
    """The trainer of a folder; the data are loaded where they are not given."""
    loaded: Any = dataset if dataset is not None else create("datasets", options.data).load()
    return Trainer(options, loaded, folder, device or torch.device("cpu"))
