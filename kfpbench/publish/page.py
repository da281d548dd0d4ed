"""A published page: a Markdown file whose tables are written from the records of runs that lie beside it.

A table stands between two comments. The first says what it shows, in YAML; what stands between them is written anew:

    <!-- kfpbench table
    runs: data/starts
    metrics: [frechet, recall]
    -->
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kfpbench.errors import KfpbenchError, StoreError
from kfpbench.publish.page_tables import CellTable, ClaimTable, DifferenceTable, Table
from kfpbench.publish.study_tables import StudyFront, StudyImportances, StudyProgress
from kfpbench.store.atomic import write_bytes
from kfpbench.suite.yaml_source import parse_yaml

KINDS: dict[str, type[Table]] = {
    "table": CellTable,
    "differences": DifferenceTable,
    "claim": ClaimTable,
    "study-front": StudyFront,
    "study-progress": StudyProgress,
    "study-importances": StudyImportances,
}
_OPEN = re.compile(r"^<!-- kfpbench (?P<kind>[\w-]+)[ \t]*\n(?P<options>.*?)^-->[ \t]*\n", re.MULTILINE | re.DOTALL)
_STARTS = re.compile(r"^<!--\s*kfpbench\b", re.MULTILINE)
_END = re.compile(r"^<!-- end -->[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class FilledPage:
    """A page with its tables written anew; ``changed`` are the lines (from 1) of the tables that were not so before."""

    text: str
    tables: int
    changed: tuple[int, ...]


def fill_page(path: Path) -> FilledPage:
    """Write the tables of a page anew, in memory. Paths of runs are relative to the page and stay below its folder.

    Raises StoreError for a file that cannot be read, a table without its end, an unknown kind or option, a run that is
    not there, and cells that it does not have; with file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("the page cannot be read", got=str(error), where=str(path)) from error
    if "\r" in text:
        raise StoreError(
            "the page has line ends of Windows", remedy="Save it with plain line ends (LF).", where=str(path)
        )
    parts, changed, position, count = [], [], 0, 0
    for start, block, end in _blocks(text, path):
        where = f"{path}:{text.count(chr(10), 0, start) + 1}"
        lines = _lines_of(block, path.parent, where)
        made = "\n".join(["", *lines, ""]) if lines else ""
        if text[block.end() : end.start()].strip("\n") != made.strip("\n"):
            changed.append(text.count("\n", 0, start) + 1)
        parts += [text[position : block.end()], made, "\n" if made else ""]
        position, count = end.start(), count + 1
    return FilledPage("".join([*parts, text[position:]]), count, tuple(changed))


def write_page(path: Path) -> FilledPage:
    """``fill_page``, and the file replaced at once where a table has changed."""
    filled = fill_page(path)
    if filled.changed:
        write_bytes(path.resolve(), filled.text.encode())
    return filled


def _blocks(text: str, path: Path) -> Iterator[tuple[int, re.Match[str], re.Match[str]]]:
    """Every opening comment with its position and its end."""
    for start in [match.start() for match in _STARTS.finditer(text)]:
        where = f"{path}:{text.count(chr(10), 0, start) + 1}"
        block = _OPEN.match(text, start)
        if block is None:
            raise StoreError(
                "this is no opening comment of a table",
                got=text[start:].split("\n", 1)[0],
                allowed="<!-- kfpbench KIND, a line for each option, and --> on a line of its own",
                where=where,
            )
        end = _END.search(text, block.end())
        following = _STARTS.search(text, block.end())
        if end is None or (following is not None and following.start() < end.start()):
            raise StoreError("a table has no end", remedy="Write a line <!-- end --> below it.", where=where)
        yield start, block, end


def _lines_of(block: re.Match[str], folder: Path, where: str) -> list[str]:
    kind = block["kind"]
    if kind not in KINDS:
        raise StoreError("unknown kind of table", got=kind, allowed=", ".join(KINDS), where=where)
    try:
        given: Any = parse_yaml(block["options"], where).data
        return KINDS[kind].model_validate(given).lines(folder)
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in one['loc']) or 'options'}: {one['msg']}" for one in error.errors()]
        raise StoreError("; ".join(faults), got=block["options"].strip(), where=where) from error
    except KfpbenchError as error:
        inside = error.where is not None and error.where.startswith(where)  # a place in the options themselves
        place = (error.where or where) if inside else where
        raise StoreError(error.what, got=error.got, allowed=error.allowed, remedy=error.remedy, where=place) from error
