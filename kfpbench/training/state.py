"""The resumable state of a training run: a few files of tensors and one that says which of them count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kfpbench.errors import DataError
from kfpbench.networks.checkpoint import require_tensors
from kfpbench.store.atomic import atomic_path, write_bytes
from kfpbench.training.loop import require_identity

_PARTS = ("weights", "average", "first_moment", "second_moment")
_POINTER = "state.json"
_UNKNOWN = "not recorded"

Tensors = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on: batches are functions of the step. Tensors by parameter name.

    ``seconds`` were spent so far, in all processes; ``hardware`` gives images and seconds for each machine, in words;
    ``identity`` holds the options that a resumed run must share.
    """

    step: int
    weights: Tensors
    average: Tensors
    first_moment: Tensors
    second_moment: Tensors
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
    parts = {part: getattr(state, part) for part in _PARTS}
    record = {"seconds": state.seconds, "hardware": state.hardware, "identity": state.identity}
    write_parts(folder, state.step, parts, record)


def load_state(folder: Path, device: torch.device) -> TrainingState | None:
    """The state that a folder points at, or None when there is none. Raises DataError when it cannot be read."""

    def build(record: dict[str, Any], parts: dict[str, Tensors]) -> TrainingState:
        step, seconds, identity = int(record["step"]), float(record["seconds"]), dict(record["identity"])
        images = step * int(identity["batch_size"])
        hardware = dict(record.get("hardware") or {_UNKNOWN: {"images": images, "seconds": seconds}})
        return TrainingState(step, **parts, seconds=seconds, hardware=hardware, identity=identity)

    return read_parts(folder, device, _PARTS, "score", build)


def write_parts(folder: Path, step: int, parts: Mapping[str, Tensors], record: Mapping[str, Any]) -> None:
    """Write each part as a file into a folder of this step, then the record that points at it, then remove the rest."""
    here = folder / f"step-{step:09d}"
    here.mkdir(parents=True, exist_ok=True)
    for part, tensors in parts.items():
        with atomic_path(here / f"{part}.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    text = json.dumps({"step": step, "folder": here.name, **record}, indent=2)
    write_bytes(folder / _POINTER, (text + "\n").encode())
    for other in folder.glob("step-*"):
        if other != here:
            shutil.rmtree(other)


def read_parts(
    folder: Path,
    device: torch.device,
    names: Sequence[str],
    kind: str,
    build: Callable[[dict[str, Any], dict[str, Tensors]], T],
) -> T | None:
    """``build(record, parts)`` of what ``write_parts`` wrote, None where there is nothing.

    Raises SuiteError for the state of another kind of training, DataError for one that cannot be read or built from.
    """
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    try:
        record = json.loads(pointer.read_text())
        require_identity({"kind": "score", **record["identity"]}, {"kind": kind}, folder)
        here = folder / record["folder"]
        parts = {part: load_file(here / f"{part}.safetensors", device=str(device)) for part in names}
        return build(record, parts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(
            f"the training state cannot be read: {type(error).__name__}: {error}",
            remedy="Put the missing file back, or remove the folder to start again.",
            where=str(pointer),
        ) from error
