"""Where each key and value of a document was written: file, line and column, or the override that set it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from kfpbench.suite.problems import Path, dotted


@dataclass(frozen=True)
class Place:
    """One place: how an error shows it (``suite.yaml:3:7``), and the folder against which its paths are
    read."""

    shown: str
    folder: FilePath | None = None


@dataclass
class Places:
    """The places of all keys and values of one document, by path.

    A path that is not known is shown at the nearest enclosing one that is.
    """

    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def where(self, path: Path, *, at_key: bool = False) -> str | None:
        """How an error shows that place; None when nothing at all is known about it."""
        if at_key and path in self.keys:
            return self.keys[path].shown
        place = self.place(path)
        return place.shown or None if place is not None else None

    def place(self, path: Path) -> Place | None:
        """The place of the value at ``path``, or of the nearest value that encloses it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return self.values[path[:length]]
        return None

    def graft(self, other: Places, value: Any, source: Path, target: Path) -> None:
        """Take over the places of ``value``, which ``other`` knows at ``source``, as the places of
        ``target``."""
        for mine, theirs in ((self.values, other.values), (self.keys, other.keys)):
            if source in theirs:
                mine[target] = theirs[source]
        for key, child in _items(value):
            self.graft(other, child, (*source, key), (*target, key))

    def overlay(self, value: Any, path: Path, place: Place) -> None:
        """Say that ``value``, which now stands at ``path``, was written at ``place`` with all that is in
        it."""
        for table in (self.values, self.keys):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]
        self._overlay(value, path, place)

    def _overlay(self, value: Any, path: Path, place: Place) -> None:
        self.values[path] = self.keys[path] = place
        for key, child in _items(value):
            self._overlay(child, (*path, key), place)


def dotted_places(value: Any) -> Places:
    """The places of a document that came from Python: each path itself."""
    places = Places()

    def add(child: Any, path: Path) -> None:
        places.values[path] = places.keys[path] = Place(dotted(path))
        for key, grandchild in _items(child):
            add(grandchild, (*path, key))

    add(value, ())
    return places


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()
