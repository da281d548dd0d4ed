"""Read a suite file and merge the files that it includes underneath."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from kfpbench.errors import SuiteError
from kfpbench.suite.places import Places
from kfpbench.suite.problems import Path
from kfpbench.suite.yaml_source import MAX_BYTES, Source, line_and_column, parse_yaml

MAX_FILES = 64  # read in all; a file that two others include is read twice


@dataclass
class Merged:
    """A suite with its includes merged in: plain data, the place of everything, and the texts that were
    read."""

    data: dict[str, Any]
    places: Places
    text: str
    texts: dict[str, str] = field(default_factory=dict)  # of included files, by name as shown in errors


def read_suite_file(path: FilePath) -> Merged:
    """Read a suite and everything that it includes.

    Mappings are merged key by key, where the including file wins over the included one and a later include
    over an earlier one; lists and scalars are replaced. Raises SuiteError, located in the file at fault,
    for unreadable files, YAML that is not valid, includes that leave the folder of the suite, and cycles.
    """
    reader = _Reader(path.resolve().parent)
    text = _read_text(path, str(path), None)
    source = reader.read(text, str(path), path.resolve(), ())
    return Merged(source.data, source.places, text, reader.texts)


def merge_includes(data: dict[str, Any], places: Places, folder: FilePath) -> Merged:
    """Merge the includes of a mapping that came from Python; ``folder`` stands for the folder of its file."""
    reader = _Reader(folder.resolve())
    source = reader.merge(Source(data, places), "", folder.resolve(), ())
    return Merged(source.data, source.places, "", reader.texts)


class _Reader:
    def __init__(self, root: FilePath) -> None:
        self.root = root
        self.texts: dict[str, str] = {}
        self.count = 0

    def read(self, text: str, shown: str, path: FilePath, chain: tuple[FilePath, ...]) -> Source:
        source = parse_yaml(text, shown, path.parent)
        if not isinstance(source.data, dict):
            raise SuiteError(
                "a suite is a mapping",
                got=type(source.data).__name__,
                allowed="keys such as `name:`, `data:`, `samplers:`",
                where=source.places.where(()),
            )
        return self.merge(source, os.path.dirname(shown), path.parent, (*chain, path))

    def merge(self, source: Source, shown_folder: str, folder: FilePath, chain: tuple[FilePath, ...]) -> Source:
        """Put the includes of ``source`` underneath it."""
        names = source.data.get("include")
        if not isinstance(names, list):
            return source  # absent, or of a wrong type, which the schema reports
        under = Source({}, Places())
        for index, name in enumerate(names):
            where = source.places.where(("include", index))
            path = self.include_path(name, folder, chain, where)
            shown = os.path.join(shown_folder, name)
            self.count += 1
            if self.count > MAX_FILES:
                raise SuiteError("too many included files", allowed=str(MAX_FILES), where=where)
            self.texts[shown] = text = _read_text(path, shown, where)
            included = self.read(text, shown, path, chain)
            included.data.pop("include", None)
            _merge(under, included, under.data, included.data, ())
        _merge(under, source, under.data, source.data, ())
        return under

    def include_path(self, name: object, folder: FilePath, chain: tuple[FilePath, ...], where: str | None) -> FilePath:
        if not isinstance(name, str) or not name or "\0" in name:
            raise SuiteError("an include is a path", got=name, allowed="text", where=where)
        path = (folder / name).resolve()
        if not path.is_relative_to(self.root):
            raise SuiteError(
                "an include may not leave the folder of the suite",
                got=name,
                allowed="a path inside that folder, symbolic links resolved",
                where=where,
            )
        if path in chain:
            raise SuiteError("files include each other in a circle", got=name, where=where)
        return path


def _merge(into: Source, over: Source, under_data: dict[str, Any], over_data: dict[str, Any], path: Path) -> None:
    """Merge ``over`` into ``into``, in place; ``path`` is where the two mappings stand."""
    if path in over.places.values:
        into.places.values[path] = over.places.values[path]
    if path in over.places.keys:
        into.places.keys[path] = over.places.keys[path]
    for key, value in over_data.items():
        below = under_data.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _merge(into, over, below, value, (*path, key))
        else:
            under_data[key] = value
            into.places.graft(over.places, value, (*path, key), (*path, key))


def _read_text(path: FilePath, shown: str, where: str | None) -> str:
    """The text of a UTF-8 file. Raises SuiteError, at the include that names the file where there is one."""
    if path.is_dir():
        if where:
            raise SuiteError(
                "an include is a file, and this is a folder", got=shown, remedy="Name a file.", where=where
            )
        remedy = "Name the YAML file; `kfpbench run SUITE --out FOLDER` goes on with a run, `kfpbench report` shows it."
        raise SuiteError("a suite is a file, and this is a folder", got=shown, remedy=remedy)
    if not path.is_file():
        what = "the included file does not exist" if where else "the suite file does not exist"
        raise SuiteError(what, got=shown, remedy="Check the path.", where=where)
    try:
        if path.stat().st_size > 4 * MAX_BYTES:  # bytes, for characters of up to four: nothing larger is read at all
            raise SuiteError("the file is too large", got=f"{path.stat().st_size} bytes", where=where or shown)
        content = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"cannot be read: {error.strerror}", got=shown, where=where) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        line, column = line_and_column(before, len(before))
        raise SuiteError(
            "not valid UTF-8",
            got=f"byte 0x{content[error.start]:02x}",
            remedy="Save the file as UTF-8.",
            where=f"{shown}:{line}:{column}",
        ) from error
