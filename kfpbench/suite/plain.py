"""Turn a mapping from Python into the plain data that a YAML file would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfpbench.errors import SuiteError
from kfpbench.suite.problems import Path, dotted
from kfpbench.suite.yaml_source import MAX_DEPTH, MAX_DIGITS, MAX_NODES


def plain_mapping(mapping: object) -> dict[str, Any]:
    """A deep copy of plain mappings, lists and scalars; tuples become lists.

    Raises SuiteError, located by dotted path, for other types, keys that are not text, and too much depth
    or size.
    """
    if not isinstance(mapping, Mapping):
        raise SuiteError("a suite is a mapping", got=type(mapping).__name__)
    copied: dict[str, Any] = _Copier().copy(mapping, ())
    return copied


class _Copier:
    def __init__(self) -> None:
        self.nodes = 0

    def copy(self, value: object, path: Path) -> Any:
        self.nodes += 1
        where = dotted(path) or None
        if len(path) > MAX_DEPTH:
            raise SuiteError("nested too deeply", allowed=f"{MAX_DEPTH} levels", where=dotted(path[:4]))
        if self.nodes > MAX_NODES:
            raise SuiteError("the mapping is too large", allowed=f"{MAX_NODES} nodes", where=where)
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise SuiteError("a key must be text", got=key, where=where)
            return {self.text(key, where): self.copy(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(child, (*path, index)) for index, child in enumerate(value)]
        if isinstance(value, str):
            return self.text(value, where)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            if abs(value) >= 10**MAX_DIGITS:
                raise SuiteError("the integer is too long", allowed=f"{MAX_DIGITS} digits", where=where)
            return int(value)
        if isinstance(value, float):
            return float(value)
        raise SuiteError(
            "not a value that a suite may hold",
            got=type(value).__name__,
            allowed="text, numbers, booleans, None, lists and mappings",
            where=where,
        )

    @staticmethod
    def text(value: str, where: str | None) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise SuiteError("not valid text: a lone surrogate", got=ascii(value), where=where) from error
        return str(value)
