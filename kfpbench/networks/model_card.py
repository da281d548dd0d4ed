"""The model card of a checkpoint: what it is, how it was made and what was measured, as Markdown beside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kfpbench.networks.checkpoint import CheckpointRecord, TrainingRecord, load_checkpoint
from kfpbench.networks.classifier_checkpoint import ClassifierRecord, load_classifier, read_classifier_record
from kfpbench.store.atomic import write_bytes
from kfpbench.suite.schema import StrictModel


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


def write_classifier_card(checkpoint: Path) -> Path:
    """Write a classifier's card, ``checkpoint`` with the ending .md, and return its path.

    Raises DataError for a file that is no classifier.
    """
    loaded = load_classifier(checkpoint)
    weights = sum(value.numel() for value in loaded.network.state_dict().values())
    record = read_classifier_record(checkpoint)
    text = classifier_card(checkpoint.name, record, weights=weights, size=loaded.size, sha256=loaded.sha256)
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
    numbers = [f"- {what}: {text}" for what, text in (measured or {}).items()]
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
        *_training_lines(training, architecture.classes, "the exponential average of Adam's iterates"),
        "",
        "## Measured",
        "",
        *(numbers or ["Nothing yet."]),
        "",
        *_file_lines(size, sha256, architecture, training),
    ]
    return "\n".join(lines) + "\n"


def classifier_card(name: str, record: ClassifierRecord, *, weights: int, size: int, sha256: str) -> str:
    """The card's text, from a classifier's record."""
    training, architecture = record.training, record.architecture
    shape = " x ".join(str(side) for side in architecture.image_shape)
    numbers = [
        f"- accuracy on the {split} images: {found.share:.4f} (n = {found.images:,}), with the weights of this file"
        for split, found in record.accuracy.items()
    ]
    lines = [
        f"# {name}",
        "",
        f"A classifier of {shape} images in {architecture.classes} classes (`kfpbench.networks.classifier`):"
        f" {weights:,} numbers. Its",
        f"penultimate layer gives {architecture.width} features. A Frechet distance in them is no FID: it compares with"
        " others in the",
        "same features alone.",
        "",
        "## Training",
        "",
        *_training_lines(training, record.classes, "those after the last step"),
        "",
        "## Measured",
        "",
        *(numbers or ["Nothing yet."]),
        "",
        *_file_lines(size, sha256, architecture, training),
    ]
    return "\n".join(lines) + "\n"


def _training_lines(training: TrainingRecord, classes: Sequence[str], weights: str) -> list[str]:
    epochs = training.images / training.rows
    return [
        f"- data: {training.dataset}, {training.rows:,} training images (sha256 `{training.fingerprint}`); no"
        " validation or test image was used",
        f"- classes: {', '.join(classes) or 'none'}",
        f"- images seen: {training.images:,} ({epochs:.1f} epochs) in {training.steps:,} steps",
        f"- hardware, {_duration(training.seconds)} in all:",
        *(f"  - {part.what}: {part.images:,} images in {_duration(part.seconds)}" for part in training.hardware),
        f"- software: torch {training.torch}, kfpbench {training.kfpbench}",
        f"- weights: {weights}, rounded to float16",
        f"- command: `{training.command}`",
    ]


def _file_lines(size: int, sha256: str, architecture: StrictModel, training: TrainingRecord) -> list[str]:
    return [
        "## File",
        "",
        f"{size:,} bytes, sha256 `{sha256}`. safetensors: loading it runs no code. The options, as recorded in its"
        " header:",
        "",
        "```json",
        json.dumps({"network": architecture.model_dump(mode="json"), "training": training.options}, indent=2),
        "```",
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
