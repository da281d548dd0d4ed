"""The resumable state of a training run: four small files and one that says which of them count."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kfpbench.errors import DataError
from kfpbench.store.atomic import atomic_path, write_bytes

_PARTS = ("weights", "average", "first_moment", "second_moment")
_POINTER = "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on: batches are functions of the step. Tensors by parameter name."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    first_moment: dict[str, Tensor]
    second_moment: dict[str, Tensor]
    seconds: float  # spent so far, in all processes
    identity: dict[str, Any]  # the options that a resumed run must share


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state beside the last one, then point at it: a kill at any moment leaves one that is whole."""
    here = folder / f"step-{state.step:09d}"
    here.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        with atomic_path(here / f"{part}.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in getattr(state, part).items()}, temporary)
    record = {"step": state.step, "folder": here.name, "seconds": state.seconds, "identity": state.identity}
    write_bytes(folder / _POINTER, (json.dumps(record, indent=2) + "\n").encode())
    for other in folder.glob("step-*"):
        if other != here:
            shutil.rmtree(other)


def load_state(folder: Path, device: torch.device) -> TrainingState | None:
    """The state that a folder points at, or None when there is none. Raises DataError when it cannot be read."""
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    try:
        record = json.loads(pointer.read_text())
        here = folder / record["folder"]
        parts = {part: load_file(here / f"{part}.safetensors", device=str(device)) for part in _PARTS}
        return TrainingState(int(record["step"]), **parts, seconds=record["seconds"], identity=record["identity"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"the training state cannot be read: {error}",
            remedy="Remove the folder to start again, or put the missing file back.",
            where=str(pointer),
        ) from error
