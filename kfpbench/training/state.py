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
from kfpbench.networks.checkpoint import require_tensors
from kfpbench.store.atomic import atomic_path, write_bytes

_PARTS = ("weights", "average", "first_moment", "second_moment")
_POINTER = "state.json"
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on: batches are functions of the step. Tensors by parameter name.

    ``seconds`` were spent so far, in all processes; ``hardware`` gives images and seconds for each machine, in words;
    ``identity`` holds the options that a resumed run must share.
    """

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    first_moment: dict[str, Tensor]
    second_moment: dict[str, Tensor]
    seconds: float
    hardware: dict[str, dict[str, float]]
    identity: dict[str, Any]

    def require_shapes(self, expected: dict[str, tuple[int, ...]], where: str) -> None:
        """Raise DataError unless all four parts hold exactly these tensors."""
        for part in _PARTS:
            found = {name: tuple(value.shape) for name, value in getattr(self, part).items()}
            require_tensors(expected, found, f"{where}: {part}")


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state beside the last one, then point at it: a kill at any moment leaves one that is whole."""
    here = folder / f"step-{state.step:09d}"
    here.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        with atomic_path(here / f"{part}.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in getattr(state, part).items()}, temporary)
    record = {
        "step": state.step,
        "folder": here.name,
        "seconds": state.seconds,
        "hardware": state.hardware,
        "identity": state.identity,
    }
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
        step, seconds, identity = int(record["step"]), float(record["seconds"]), dict(record["identity"])
        images = step * int(identity["batch_size"])
        hardware = dict(record.get("hardware") or {_UNKNOWN: {"images": images, "seconds": seconds}})
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(
            f"the training state cannot be read: {type(error).__name__}: {error}",
            remedy="Put the missing file back, or remove the folder to start again.",
            where=str(pointer),
        ) from error
    return TrainingState(step, **parts, seconds=seconds, hardware=hardware, identity=identity)
