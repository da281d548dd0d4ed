"""A trained network as one safetensors file: float16 weights, and a header that says what they are and whence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kfpbench.errors import DataError, NumericalError, ParameterError
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.edm_preconditioning import EdmDenoiser
from kfpbench.store.atomic import atomic_path
from kfpbench.suite.schema import StrictModel

SHIPPED = Path(__file__).with_name("weights") / "cifar10_unet.safetensors"
SHIPPED_LIMIT = 16 * 2**20  # bytes of a checkpoint that comes with the package
FORMAT_VERSION = 1
_HEADER = "kfpbench"  # the key of the record in the file's metadata


class Hardware(StrictModel):
    """A share of a training: what it ran on, in words."""

    what: str
    images: int
    seconds: float


class TrainingRecord(StrictModel):
    """Where weights come from. ``options`` are those of the training file, ``rows`` the training rows of the data."""

    name: str
    command: str
    dataset: str
    fingerprint: str
    rows: int
    images: int
    steps: int
    seconds: float
    hardware: list[Hardware]
    torch: str
    kfpbench: str
    options: dict[str, Any]


class CheckpointRecord(StrictModel):
    """The JSON in a checkpoint's header."""

    format_version: Literal[1] = Field(default=1)
    architecture: Architecture
    training: TrainingRecord


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the network in float32 on the CPU, ready to evaluate, its record, and the file's SHA-256."""

    denoiser: EdmDenoiser
    record: CheckpointRecord
    sha256: str
    size: int  # bytes


def save_checkpoint(
    path: Path, weights: Mapping[str, Tensor], record: StrictModel, *, limit: int | None = None
) -> None:
    """Write weights by name in float16, counts as they are, atomically. Cost: relative error 2^-11 of every weight.

    Raises NumericalError for weights beyond float16, ParameterError for a file of more than ``limit`` bytes.
    """
    halves = {
        name: value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in weights.items()
    }
    if lost := [name for name, value in halves.items() if not bool(torch.isfinite(value).all())]:
        raise NumericalError("weights cannot be written in float16", got=lost[0], allowed="finite, at most 65504")
    with atomic_path(path) as temporary:
        save_file(halves, temporary, metadata={_HEADER: record.model_dump_json()})
        temporary.chmod(0o644)  # safetensors makes it readable for its owner alone
        size = temporary.stat().st_size
        if limit is not None and size > limit:
            raise ParameterError(
                "the checkpoint is too large to ship",
                got=f"{size / 2**20:.1f} MiB",
                allowed=f"at most {limit / 2**20:g} MiB",
                remedy="Use fewer channels or blocks.",
                where=str(path),
            )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Nothing in the file is executed; memory is bounded by the file's size.

    Raises DataError for a missing file, one that is no checkpoint of kfpbench or a damaged one, and for tensors that
    are not those of its architecture.
    """
    text, shapes = read_header(path)
    record = _parse_record(text, str(path))
    try:
        with torch.device("meta"):  # shapes alone: a false record must not make us allocate
            planned = record.architecture.build()
    except ParameterError as error:
        raise DataError(f"the architecture is not possible: {error}", where=str(path)) from error
    require_tensors({name: tuple(value.shape) for name, value in planned.named_parameters()}, shapes, str(path))
    denoiser = record.architecture.build()
    copy_tensors(path, dict(denoiser.named_parameters()))
    denoiser.eval().requires_grad_(False)
    return Checkpoint(denoiser, record, digest(path), path.stat().st_size)


def read_record(path: Path) -> CheckpointRecord:
    """The record of a checkpoint, from the head of its file alone. Raises DataError."""
    return _parse_record(read_header(path)[0], str(path))


def copy_tensors(path: Path, into: Mapping[str, Tensor]) -> None:
    """Copy the file's tensors into these. Raises DataError for one that is missing, of another kind, or not finite."""
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name, kept in into.items():
                value = file.get_tensor(name)
                if value.is_floating_point() != kept.is_floating_point() or not bool(torch.isfinite(value).all()):
                    raise DataError("a weight is not a finite number", got=name, where=str(path))
                kept.copy_(value)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises DataError for a missing one."""
    _require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise DataError unless there are exactly the expected tensors (name: shape)."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unexpected:
        raise DataError(
            "the tensors are not those of the network",
            got=f"{len(missing)} missing{_first(missing)}, {len(unexpected)} unexpected{_first(unexpected)}",
            allowed=f"the {len(expected)} parameters of its architecture",
            where=where,
        )
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise DataError(f"{name} has the wrong shape", got=tuple(found[name]), allowed=str(shape), where=where)


def read_header(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The record as JSON, and the shape of every tensor. Raises DataError for a file that is no checkpoint of ours."""
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    if text is None:
        raise DataError(
            "the file holds tensors but no record of kfpbench: it is not one of its checkpoints",
            remedy="Write one with `kfpbench train FILE --export PATH`.",
            where=str(path),
        )
    return text, shapes


def _parse_record(text: str, where: str) -> CheckpointRecord:
    try:
        document = json.loads(text)
        version = document.get("format_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataError(
                "the checkpoint has a newer format", got=version, allowed=FORMAT_VERSION, remedy="Upgrade kfpbench."
            )
        kind = document.get("kind", "score") if isinstance(document, dict) else "score"
        if kind != "score":
            raise DataError("the file holds no score network", got=kind, where=where)
        return CheckpointRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"the record is not valid: {place}: {first['msg']}", got=first["input"], where=where) from error
    except ValueError as error:
        raise DataError(f"the record is not JSON: {error}", where=where) from error


def _require_file(path: Path) -> None:
    if path.is_file():
        return
    if path == SHIPPED:
        remedy = "Make it with `kfpbench train suites/train_cifar10.yaml`, and name its checkpoint.safetensors."
    else:
        remedy = "Put a checkpoint of kfpbench there: `kfpbench train` writes checkpoint.safetensors into its folder."
    raise DataError("the network's checkpoint does not exist", remedy=remedy, where=str(path))


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot be read as safetensors: {error}", remedy="The file is damaged.", where=str(path))


def _first(names: list[str]) -> str:
    return f" ({names[0]}{', ...' if len(names) > 1 else ''})" if names else ""
