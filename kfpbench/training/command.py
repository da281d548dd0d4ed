"""The `train` command: a training run with its progress, stopped by a clock or a signal, and its exit code."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kfpbench.runner.materials import choose_device
from kfpbench.training.options import AnyOptions
from kfpbench.training.progress import LiveTraining, PlainTraining
from kfpbench.training.session import export, train
from kfpbench.training.stop import StopSignals


def train_network(
    options: AnyOptions, file: Path, overrides: Sequence[str], folder: Path, minutes: float | None, device: str
) -> int:
    """Train and say what came of it. Returns the exit code: 0, or 128 plus the number of the signal that stopped it.

    ``file`` and ``overrides`` are what ``options`` were read from: the model card states the command.
    """
    console = Console()
    show = (LiveTraining if console.is_terminal else PlainTraining)(console)
    with StopSignals() as stop, show as progress:
        result = train(
            options,
            folder,
            command=stated_command(file, overrides),
            device=choose_device(device),
            seconds=math.inf if minutes is None else 60.0 * minutes,
            stopped=stop.requested,
            report=progress.report,
            started=progress.begin,
        )
    if result.checkpoint is not None:
        _say(console, f"checkpoint: {result.checkpoint}")
    if not result.complete:
        reason = f"{minutes:g} minutes have passed" if stop.received is None else "stopped by a signal"
        _say(
            console,
            f"{reason}; {result.images:,} of {result.total:,} images are seen and the state is saved: "
            "the same command goes on from there",
        )
    return 0 if stop.received is None or result.complete else 128 + stop.received


def export_checkpoint(options: AnyOptions, file: Path, overrides: Sequence[str], folder: Path, path: Path) -> None:
    """Write the checkpoint of the folder's state and its card, and say where they are."""
    checkpoint, card = export(options, folder, path, command=stated_command(file, overrides))
    _say(Console(), f"checkpoint: {checkpoint} ({checkpoint.stat().st_size / 2**20:.1f} MiB)\nmodel card: {card}")


def stated_command(file: Path, overrides: Sequence[str]) -> str:
    """The command as a record may show it: a path from elsewhere is shortened to its name."""
    inside = not file.is_absolute() and ".." not in file.parts
    words = ["kfpbench", "train", file.as_posix() if inside else file.name]
    for text in overrides:
        key, equals, value = text.partition("=")
        words += ["--set", key + equals + (Path(value).name if Path(value).is_absolute() else value)]
    return shlex.join(words)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
