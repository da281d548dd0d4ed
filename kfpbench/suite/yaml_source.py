"""Read YAML 1.2 text into plain mappings, lists and scalars, with the line and column of every key and value.

Built on the events of ruamel.yaml rather than on its constructors: no tag runs code, nesting is bounded
before any recursion, and an alias is expanded under a budget, so that a small file cannot become a huge
document.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from kfpbench.errors import SuiteError
from kfpbench.suite.places import Place, Places
from kfpbench.suite.problems import Path

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_BYTES = 2**20
MAX_DIGITS = 400  # of an integer; no parameter of a benchmark needs more, and Python refuses to parse thousands

_TAG = "tag:yaml.org,2002:"
_CORE = {"null", "bool", "int", "float", "str"}
_NON_FINITE = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)


@dataclass
class _Node:
    """A node of the file: ``value`` is a scalar, a list of nodes, or a list of (key, key place, node)."""

    kind: str  # scalar, list, mapping or alias
    line: int
    column: int
    value: Any = None
    items: list[Any] = field(default_factory=list)
    merge: bool = False  # the plain key <<


@dataclass
class Source:
    """One parsed file: its plain data, and the places of everything in it."""

    data: Any
    places: Places


def parse_yaml(text: str, shown: str, folder: FilePath | None = None) -> Source:
    """Parse one YAML 1.2 document.

    ``shown`` names the text in errors, as in ``shown:LINE:COLUMN``. Raises SuiteError for a syntax error,
    an empty text, duplicate or non-text keys, tags, more than one document, and nesting or aliases beyond
    the limits.
    """
    builder = _Builder(shown, folder)
    root = builder.read(text)
    if root is None or (root.kind == "scalar" and root.value is None):
        raise SuiteError("the file is empty", allowed="a mapping such as `name: my_suite`", where=f"{shown}:1:1")
    places = Places()
    data = builder.expand(root, (), places, ())
    return Source(data, places)


def parse_value(text: str, shown: str) -> Any:
    """Parse one YAML value, such as the right side of an override; empty text is null. Raises SuiteError."""
    builder = _Builder(shown, None)
    root = builder.read(text)
    return None if root is None else builder.expand(root, (), Places(), ())


class _Builder:
    def __init__(self, shown: str, folder: FilePath | None) -> None:
        self.shown = shown
        self.folder = folder
        self.yaml = YAML(typ="safe", pure=True)
        self.nodes = 0

    def fail(self, what: str, line: int, column: int, **parts: Any) -> SuiteError:
        return SuiteError(what, where=f"{self.shown}:{line}:{column}", **parts)

    def place(self, node: _Node) -> Place:
        return Place(f"{self.shown}:{node.line}:{node.column}", self.folder)

    # -- events to nodes --------------------------------------------------------------------------------

    def events(self, text: str) -> Iterator[Event]:
        """The parser's events; its errors become located SuiteErrors."""
        line, column = 1, 1
        try:
            for event in self.yaml.parse(io.StringIO(text)):
                line, column = event.end_mark.line + 1, event.end_mark.column + 1
                yield event
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise self.fail(f"not valid YAML: {what}", line, column) from error
        except ReaderError as error:
            line, column = line_and_column(text, error.position)
            raise self.fail(
                "not valid YAML: a character that YAML does not allow",
                line,
                column,
                got=f"U+{error.character:04X}",
            ) from error
        except (
            ValueError,
            OverflowError,
        ) as error:  # ruamel lets through what chr() and int() say of an escape
            raise self.fail(f"not valid YAML after this place: {error}", line, column) from error

    def read(self, text: str) -> _Node | None:
        """The tree of the only document, or None for an empty text."""
        if len(text) > MAX_BYTES:
            raise self.fail("the text is too large", 1, 1, got=len(text), allowed=f"{MAX_BYTES} characters")
        roots: list[_Node] = []
        open_nodes: list[_Node] = []
        anchors: dict[str, _Node] = {}
        documents = 0
        for event in self.events(text):
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fail("a suite is one YAML document; here a second one starts", line, column)
                if event.version not in (None, (1, 2)):
                    raise self.fail("suites are YAML 1.2", line, column, got=event.version, allowed="%YAML 1.2")
                continue
            if isinstance(event, MappingEndEvent | SequenceEndEvent):
                open_nodes.pop()
                continue
            if isinstance(event, AliasEvent):
                if event.anchor not in anchors:
                    raise self.fail("unknown alias", line, column, got=f"*{event.anchor}")
                node = _Node("alias", line, column, value=anchors[event.anchor])
            elif isinstance(event, ScalarEvent):
                node = self.scalar(event, line, column)
            elif isinstance(event, MappingStartEvent | SequenceStartEvent):
                kind = "mapping" if isinstance(event, MappingStartEvent) else "list"
                self.refuse_tag(event, {"map", "seq"}, line, column)
                node = _Node(kind, line, column)
            else:
                continue
            (open_nodes[-1].items if open_nodes else roots).append(node)
            if event.anchor and not isinstance(event, AliasEvent):
                anchors[event.anchor] = node
            if node.kind in ("mapping", "list"):
                open_nodes.append(node)
                if len(open_nodes) > MAX_DEPTH:
                    raise self.fail("nested too deeply", line, column, allowed=f"{MAX_DEPTH} levels")
        return roots[0] if roots else None

    def refuse_tag(self, event: Any, allowed: set[str], line: int, column: int) -> None:
        tag = str(event.tag) if event.tag is not None else None
        if tag is not None and tag not in {"!", *(_TAG + name for name in allowed)}:
            raise self.fail(
                "tags are not allowed",
                line,
                column,
                got=tag,
                allowed=", ".join(f"!!{name}" for name in sorted(allowed)),
            )

    def scalar(self, event: ScalarEvent, line: int, column: int) -> _Node:
        """A scalar by the YAML 1.2 core schema; dates and other types of YAML 1.1 stay text."""
        self.refuse_tag(event, _CORE, line, column)
        text: str = event.value
        if event.tag is not None and str(event.tag) != "!":
            tag = str(event.tag).removeprefix(_TAG)
        else:
            tag = str(self.yaml.resolver.resolve(ScalarNode, text, event.implicit)).removeprefix(_TAG)
        if tag == "merge":
            return _Node("scalar", line, column, value="<<", merge=True)
        try:
            return _Node("scalar", line, column, value=_scalar_value(tag, text))
        except ValueError as error:
            raise self.fail(f"cannot be read as {tag}: {error}", line, column, got=text[:60]) from error

    # -- nodes to plain data ----------------------------------------------------------------------------

    def expand(self, node: _Node, path: Path, places: Places, within: tuple[int, ...]) -> Any:
        """Plain data of a node; records the places at and below ``path``. ``within``: enclosing nodes,
        for cycles."""
        while node.kind == "alias":
            node = node.value
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(
                "the document is too large once its aliases are expanded",
                node.line,
                node.column,
                allowed=f"{MAX_NODES} nodes",
            )
        if id(node) in within:
            raise self.fail("an alias contains itself", node.line, node.column)
        if len(within) > MAX_DEPTH:  # aliases may nest more deeply than the text does
            raise self.fail("nested too deeply", node.line, node.column, allowed=f"{MAX_DEPTH} levels")
        places.values[path] = self.place(node)
        if node.kind == "scalar":
            return node.value
        within = (*within, id(node))
        if node.kind == "list":
            return [self.expand(child, (*path, i), places, within) for i, child in enumerate(node.items)]
        return self.expand_mapping(node, path, places, within)

    def expand_mapping(self, node: _Node, path: Path, places: Places, within: tuple[int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[_Node] = []
        for key_node, child in zip(node.items[::2], node.items[1::2], strict=True):
            key = self.key(key_node)
            if key_node.merge:
                merged.append(child)
                continue
            if key in data:
                raise self.fail(
                    f"duplicate key; the first is at {places.keys[*path, key].shown}",
                    key_node.line,
                    key_node.column,
                    got=key,
                    remedy="Keep one of them.",
                )
            places.keys[*path, key] = self.place(key_node)
            data[key] = self.expand(child, (*path, key), places, within)
        for child in merged:  # explicit keys win over merged ones, as the YAML merge type says
            self.merge(child, data, path, places, within)
        return data

    def merge(self, node: _Node, data: dict[str, Any], path: Path, places: Places, within: tuple[int, ...]) -> None:
        """Fill ``data`` with the keys of a ``<<`` that it does not have."""
        own = Places()
        value = self.expand(node, (), own, within)
        for index, part in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(part, dict):
                raise self.fail("`<<` needs a mapping, or a list of mappings", node.line, node.column)
            prefix: Path = (index,) if isinstance(value, list) else ()
            for key in part:
                if key not in data:
                    data[key] = part[key]
                    places.graft(own, part[key], (*prefix, key), (*path, key))

    def key(self, node: _Node) -> str:
        line, column = node.line, node.column
        while node.kind == "alias":
            node = node.value
        if node.kind != "scalar" or not isinstance(node.value, str):
            got = node.value if node.kind == "scalar" else f"a {node.kind}"
            raise self.fail("a key must be text", line, column, got=got, remedy="Put quotes around it, or name a key.")
        return node.value


def _scalar_value(tag: str, text: str) -> Any:
    """The Python value of a resolved scalar. Raises ValueError when the text does not fit its tag."""
    if tag == "null":
        return None
    if tag == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError("neither true nor false")
        return text.lower() == "true"
    if tag == "int":
        digits = text.replace("_", "")
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"more than {MAX_DIGITS} digits")
        prefixed = digits.lstrip("+-")[:2].lower() in ("0x", "0o", "0b")
        return int(digits, 0 if prefixed else 10)
    if tag == "float":
        if match := _NON_FINITE.fullmatch(text):
            return float(match.group(1) + match.group(2))
        return float(text.replace("_", ""))
    text.encode("utf-8")  # a lone surrogate, written as an escape, is no text; UnicodeEncodeError is a ValueError
    return text


def line_and_column(text: str, position: int) -> tuple[int, int]:
    """Line and column, from 1, of a character position."""
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")
