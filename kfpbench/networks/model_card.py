"""The model card of a checkpoint: what it is, how it was made and what was measured, as Markdown beside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kfpbench.networks.checkpoint import CheckpointRecord, load_checkpoint
from kfpbench.store.atomic import write_bytes


def write_model_card(checkpoint: Path, measured: Mapping[str, str] | None = None) -> Path:
    """Write ``checkpoint`` with the ending .md, and return its path.

    ``measured`` maps the name of a number to its text, say {"Frechet distance": "14.2 (n = 5,000, 35 evaluations)"}.
    Raises DataError for a file that is no checkpoint.
    """
    loaded = load_checkpoint(checkpoint)
    weights = sum(parameter.numel() for parameter in loaded.denoiser.parameters())
    text = model_card(
        checkpoint.name, loaded.record, weights=weights, size=loaded.size, sha256=loaded.sha256, measured=measured
    )
    path = checkpoint.with_suffix(".md")
    write_bytes(path, text.encode())
    return path


def model_card(
    name: str,
    record: CheckpointRecord,
    *,
    weights: int,
    size: int,
    sha256: str,
    measured: Mapping[str, str] | None = None,
) -> str:
    """The card's text, from a checkpoint's record and measured numbers."""
    training, architecture = record.training, record.architecture
    shape = " x ".join(str(side) for side in architecture.image_shape)
    hardware = [f"  - {part.what}: {part.images:,} images in {_duration(part.seconds)}" for part in training.hardware]
    numbers = [f"- {what}: {text}" for what, text in (measured or {}).items()]
    epochs = training.images / training.rows
    lines = [
        f"# {name}",
        "",
        f"A denoiser D(x; sigma, class) of {shape} images, an estimate of E[x_0 | x_0 + sigma eps = x]: a U-Net of"
        f" {weights / 1e6:.2f} million",
        "weights with EDM's preconditioning (Karras et al. 2022), conditioned on a class or on none. The score `unet`"
        " reads it.",
        "",
        "## Training",
        "",
        f"- data: {training.dataset}, {training.rows:,} training images (sha256 `{training.fingerprint}`); no"
        " validation or test image was used",
        f"- classes: {', '.join(architecture.classes) or 'none'}",
        f"- images seen: {training.images:,} ({epochs:.1f} epochs) in {training.steps:,} steps",
        f"- hardware, {_duration(training.seconds)} in all:",
        *hardware,
        f"- software: torch {training.torch}, kfpbench {training.kfpbench}",
        "- weights: the exponential average of Adam's iterates, rounded to float16",
        f"- command: `{training.command}`",
        "",
        "## Measured",
        "",
        *(numbers or ["Nothing yet."]),
        "",
        "## File",
        "",
        f"{size:,} bytes, sha256 `{sha256}`. safetensors: loading it runs no code. The options, as recorded in its"
        " header:",
        "",
        "```json",
        json.dumps({"network": architecture.model_dump(mode="json"), "training": training.options}, indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
