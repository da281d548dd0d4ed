"""A valid suite, with the cells that it plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from kfpbench.suite.cell import Cell
from kfpbench.suite.places import Places
from kfpbench.suite.schema import SuiteModel


@dataclass(frozen=True)
class Suite:
    """A valid suite.

    ``text`` is the file as written and ``included`` the files merged underneath, by name; ``plugins`` the SHA-256 of
    the plugin files; ``document`` is the merged mapping with overrides applied, ``model`` its validated form and
    ``cells`` the plan, in order.
    """

    path: FilePath | None
    text: str
    document: dict[str, Any]
    model: SuiteModel
    cells: tuple[Cell, ...] = ()
    axes: dict[str, list[Any]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    included: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    plugins: dict[str, str] = field(default_factory=dict)
    places: Places = field(default_factory=Places, repr=False)
