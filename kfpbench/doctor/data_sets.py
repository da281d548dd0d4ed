"""Data: where CIFAR-10 is looked for and whether it is whole; any data set by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kfpbench.doctor.finding import Finding, Scope, ok, one_line, problem, warning
from kfpbench.errors import DataError, KfpbenchError

_FETCH = "kfpbench data fetch cifar10; or export KFPBENCH_DATA_DIR=FOLDER, the folder with the official files"
_ABSENT = "CIFAR-10 was not found"  # how the error of an absent copy begins, as against an incomplete one


def cifar10(scope: Scope) -> Iterator[Finding]:
    """Layout and fingerprint of CIFAR-10 where it is; every file is read. Absent, it is a warning."""
    if scope.data == "cifar10":
        return  # it is loaded whole by ``named_data``
    from kfpbench.data.cifar10 import Cifar10

    try:
        place, fingerprint = Cifar10().identify()
    except DataError as error:
        from kfpbench.data.locations import DATA_DIR_VARIABLE

        if error.what != _ABSENT:
            yield problem("CIFAR-10", one_line(error), error.remedy or _FETCH)
            return
        stated = os.environ.get(DATA_DIR_VARIABLE)
        where = f"{DATA_DIR_VARIABLE} is {stated}" if stated else f"{DATA_DIR_VARIABLE} is not set"
        yield warning("CIFAR-10", f"not found ({where}; {error.got}); the suites cifar10_* need it", _FETCH)
        return
    yield judge_cifar10(place, fingerprint, _of_shipped_network())


def judge_cifar10(place: str, fingerprint: str, shipped: str | None) -> Finding:
    """The finding for images of that fingerprint, beside those that the shipped network was trained on."""
    shown = f"{place}, fingerprint {fingerprint[:12]}"
    if shipped is None:
        return ok("CIFAR-10", shown)
    if fingerprint != shipped:
        found = f"{shown}; the shipped U-Net was trained on images with fingerprint {shipped[:12]}"
        return warning("CIFAR-10", found, "Compare numbers only with runs that show the same fingerprint.")
    return ok("CIFAR-10", f"{shown}: the images that the shipped U-Net was trained on")


def _of_shipped_network() -> str | None:
    """The fingerprint of the data in the header of the shipped checkpoint; None where that cannot be read."""
    from kfpbench.networks.checkpoint import SHIPPED, read_record

    try:
        return read_record(SHIPPED).training.fingerprint
    except DataError:
        return None  # the check of the weights says so


def named_data(scope: Scope) -> Iterator[Finding]:
    """Load the data set that ``--data`` names, with its default parameters."""
    if scope.data is None:
        return
    from kfpbench.suite.components import create

    name = f"data {scope.data}"
    try:
        loaded = create("datasets", {"name": scope.data}).load()
    except KfpbenchError as error:
        yield problem(name, one_line(error), error.remedy or "Correct its parameters or files.")
        return
    except Exception as error:  # a plugin's data set may fail in any way
        fix = "Repair the data set, or ask its author."
        yield problem(name, f"cannot be loaded: {type(error).__name__}: {one_line(error)}", fix)
        return
    splits = f"{len(loaded.train)} training, {len(loaded.validation)} validation and {len(loaded.test)} test rows"
    shown = f"{splits} of {loaded.dimension} numbers; {loaded.source}"
    shown += f"; fingerprint {loaded.fingerprint[:12]}" if loaded.fingerprint else ""
    yield ok(name, "; ".join([shown, *loaded.notes]))
