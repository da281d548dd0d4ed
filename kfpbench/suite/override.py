"""Overrides from the command line: ``--set path=value``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfpbench.errors import SuiteError
from kfpbench.suite.paths import PathError, set_path
from kfpbench.suite.places import Place, Places
from kfpbench.suite.problems import value_at
from kfpbench.suite.yaml_source import parse_value

FIXED = ("schema_version", "include", "plugins")  # what a file is and what code it runs is up to the file


def apply_overrides(document: dict[str, Any], places: Places, overrides: Sequence[str]) -> None:
    """Set each ``path=value`` in the document, in place and in order; values are YAML 1.2, paths those of
    the grid.

    Raises SuiteError, located as ``--set path=value``, for a missing ``=``, a value that is not YAML, a
    path that leads nowhere, and a path that the grid sets again in each cell.
    """
    for text in overrides:
        where = f"--set {text}"
        path, equals, written = text.partition("=")
        path = path.strip()
        if not equals or not path:
            raise SuiteError("an override is path=value", got=text, allowed="seed=3", where=where)
        if path.split(".")[0] in FIXED:
            raise SuiteError("cannot be overridden", got=path, remedy="Edit the suite.", where=where)
        axis = _axis_over(document, path)
        if axis is not None:
            remedy = f"Override the axis: --set 'grid.{axis}=[...]'."
            raise SuiteError("the grid sets this path in every cell", got=path, remedy=remedy, where=where)
        try:
            value = parse_value(written, "value")
        except SuiteError as error:
            raise SuiteError(f"{error.what} (at {error.where})", got=error.got, where=where) from error
        try:
            target = set_path(document, path, value)
        except PathError as error:
            raise error.problem.error(where) from error
        places.overlay(value_at(document, target), target, Place(where))


def _axis_over(document: dict[str, Any], path: str) -> str | None:
    """The axis of the grid that would undo an override of ``path``: of that path, or of a block that
    holds it."""
    grid = document.get("grid")
    for key in grid if isinstance(grid, dict) else ():
        for axis in str(key).split(","):
            if path == axis.strip() or path.startswith(axis.strip() + "."):
                return str(key)
    return None
