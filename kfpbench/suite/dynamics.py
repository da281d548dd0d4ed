"""Which cells may leave out score and process: the spectra of data sets that have dynamics of their own."""

from __future__ import annotations

from typing import Any

from kfpbench.suite.components import has_own_dynamics, reference_problems
from kfpbench.suite.problems import Problem
from kfpbench.suite.schema import DYNAMICS


def missing_dynamics(raw: dict[str, Any], data: dict[str, Any] | None, field: str) -> list[Problem]:
    """What is wrong with the score and the process of one cell, where one of them is absent or null.

    ``raw`` is the document of the cell, ``data`` its checked data set (None: refused already), ``field`` where its
    entry stands: `samplers` or `spectrum`.
    """
    absent = [key for key in DYNAMICS if raw.get(key) is None]
    if not absent:
        return []
    if field == "samplers":
        return [_needed(key, raw, "A sampler needs a score and a process.") for key in absent]
    if data is None:
        return []
    if not has_own_dynamics(data["name"]):
        remedy = f"Give a score and a process, or take a data set with dynamics of its own: {_references()}."
        return [_needed(key, raw, remedy) for key in absent]
    if len(absent) < len(DYNAMICS):
        remedy = "Give both for the reverse process, or neither for the dynamics of the data set itself."
        return [_needed(absent[0], raw, remedy)]
    return []


def _needed(key: str, raw: dict[str, Any], remedy: str) -> Problem:
    if key in raw:
        return Problem((key,), f"{key} cannot be null here", remedy=remedy)
    return Problem((), f"the required key {key!r} is missing", remedy=remedy)


def _references() -> str:
    return ", ".join(reference_problems()) or "none is installed"
