"""Network weights that come with the package: there, readable, finite, and those that their cards describe."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem
from kfpbench.doctor.torch_build import torch_fault
from kfpbench.errors import CapabilityError, KfpbenchError, PluginError, UnknownComponentError

_REINSTALL = "Reinstall kfpbench, or take the file from its repository again."
_OPTIONAL = ("inception", "dinov2")
_STATED = re.compile(r"bytes, sha256 `([0-9a-f]{64})`")  # as the model cards write it


def weights(scope: Scope) -> Iterator[Finding]:
    """The U-Net behind the score `unet`, and the classifier behind the features `cifar_cnn`."""
    if torch_fault():
        return
    from kfpbench.networks.checkpoint import SHIPPED

    yield check_file("weights of unet", SHIPPED, _load_unet)
    from kfpbench import features

    folder = Path(features.__file__).with_name("weights")
    yield check_file("weights of cifar_cnn", folder / "cifar_cnn.safetensors", _load_cifar_cnn)


def optional_weights(scope: Scope) -> Iterator[Finding]:
    """Weights that do not come with the package, behind features that nobody needs who does not name them."""
    if torch_fault():
        return
    from kfpbench.registry import find

    for name in _OPTIONAL:
        try:
            component = find("features", name).load()
        except (UnknownComponentError, PluginError):
            continue  # the check of the plugins names it
        yield check_optional(name, component)


def check_optional(name: str, component: type) -> Finding:
    """The finding for features whose ``version`` reads their weights: absent ones are no fault, damaged ones are."""
    check = f"features {name}"
    try:
        return ok(check, f"weights and packages are there: {component().version}")
    except CapabilityError as error:
        return ok(check, one_line(f"optional, and not to be had here: {error.what}. {error.remedy or ''}"))
    except KfpbenchError as error:
        return problem(check, one_line(error), error.remedy or "Put the weights there again.")


def check_file(name: str, path: Path, load: Callable[[Path], str]) -> Finding:
    """The finding for one file: its SHA-256 against the card beside it, then what ``load`` says of it."""
    if not path.is_file():
        return problem(name, f"{path} is missing", _REINSTALL)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        stated = stated_digest(path.with_suffix(".md"))
        if stated is not None and stated != found:
            text = f"{path} has sha256 {found[:12]}, its card says {stated[:12]}: the file has changed"
            return problem(name, text, _REINSTALL)
        described = load(path)
    except (KfpbenchError, OSError) as error:
        return problem(name, one_line(error), _REINSTALL)
    checked = "as its card says" if stated is not None else "its card states no checksum"
    return ok(name, f"{described}; {path.stat().st_size / 2**20:.1f} MiB, sha256 {found[:12]}, {checked}")


def stated_digest(card: Path) -> str | None:
    """The SHA-256 of the weights that a card states, or None."""
    try:
        listed = _STATED.search(card.read_text(encoding="utf-8"))
    except OSError:
        return None
    return listed.group(1) if listed else None


def _load_unet(path: Path) -> str:
    from kfpbench.networks.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    training = checkpoint.record.training
    return f"loads; trained on {training.images:,} images of {training.dataset}"


def _load_cifar_cnn(path: Path) -> str:
    from kfpbench.features.cifar_cnn import CifarCNN

    return f"loads as {CifarCNN().version}"
