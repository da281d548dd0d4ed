"""Read files of network weights without running code from them, and fill a network with nothing left over."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kfpbench.errors import DataError

_PICKLES = (".pt", ".pth")
_SHOWN = 5  # names in an error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .pth file by name, on the CPU; of a nested state dict by dotted name.

    .pt and .pth are read with ``weights_only=True``, which builds tensors and plain containers and calls nothing else.
    Raises DataError for another kind of file, one that holds more than that, or one that cannot be read.
    """
    if not path.is_file():
        raise DataError("no file of weights there", got=str(path), remedy="Put the weights there, or correct the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in _PICKLES:
            return dict(_tensors(torch.load(path, map_location="cpu", weights_only=True)))
    except pickle.UnpicklingError as error:
        raise DataError(
            "the file holds Python objects besides tensors, and reading them could run code: it was not loaded",
            remedy="Where you trust it, save its state dict: safetensors.torch.save_file(network.state_dict(), path).",
            where=str(path),
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise DataError(f"the file of weights cannot be read: {error}", where=str(path)) from error
    raise DataError(
        "not a kind of file that is read without running code from it",
        got=path.name,
        allowed=", ".join((".safetensors", *_PICKLES)),
        remedy="Where you trust it, save its state dict: safetensors.torch.save_file(network.state_dict(), path).",
    )


def fingerprint(*files: Path) -> str | None:
    """SHA-256 of a file, or of the names and SHA-256 of several. None where one is missing or cannot be read.

    It runs nothing and loads nothing: cost of reading the files once.
    """
    digests = []
    for path in files:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            return None
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def without_prefix(weights: Mapping[str, Tensor], prefix: str, where: str) -> dict[str, Tensor]:
    """The weights whose names start with ``prefix``, without it. Raises DataError when none does."""
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not found:
        starts = sorted({name.partition(".")[0] + "." for name in weights})
        raise DataError(
            "no weights have that prefix", got=prefix, allowed=f"names start with {_listed(starts)}", where=where
        )
    return found


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy the weights into the network: every name and shape must fit.

    Raises DataError with the number of names that are missing, left over, or of another shape, and the first of each.
    """
    wanted = network.state_dict()
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    shared = sorted(wanted.keys() & weights.keys())
    differing = [
        f"{name} {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}"
        for name in shared
        if weights[name].shape != wanted[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    if any(faults.values()):
        raise DataError(
            "the weights are not those of this network",
            got="; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in faults.items() if names),
            allowed=f"the network's {len(wanted)} names and shapes",
            remedy=_advice(wanted, missing, unexpected),
            where=where,
        )
    network.load_state_dict(dict(weights))


def _advice(wanted: Mapping[str, Tensor], missing: list[str], unexpected: list[str]) -> str:
    """A prefix that would make the names fit, or where to look."""
    if missing:
        for name in unexpected:
            if name.endswith(missing[0]) and name != missing[0]:
                return f"The names fit without their prefix {name.removesuffix(missing[0])!r}: add it to `prefix`."
    return "Check the network's parameters against those that the weights were trained with."


def _tensors(content: Any, path: str = "") -> list[tuple[str, Tensor]]:
    """(dotted name, tensor) of a nested mapping; numbers, text and lists beside them (a step count) are left out."""
    if isinstance(content, Tensor):
        return [(path, content)]
    if isinstance(content, Mapping):
        nested = [_tensors(value, f"{path}.{key}" if path else str(key)) for key, value in content.items()]
        return [item for part in nested for item in part]
    return []


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
