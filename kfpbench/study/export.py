"""The best configurations as a suite of their own, which `kfpbench run` accepts."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfpbench.errors import ParameterError, StoreError
from kfpbench.store.atomic import write_bytes
from kfpbench.study.definition import Definition
from kfpbench.study.opened import Opened
from kfpbench.study.results import Row, front_of, rows_of
from kfpbench.study.space import Values
from kfpbench.suite.grid import read_axes
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.paths import set_path

OTHER_SEEDS = 1000  # as far from the seeds of the study, so that no repeat draws the noise that was tuned on


def trial_numbers(text: str) -> list[int]:
    """``3,7`` as numbers. Raises ParameterError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ParameterError("not numbers of trials", got=text, allowed="numbers with commas, such as 3,7") from error


def write_suite(
    opened: Opened,
    to: Path,
    numbers: Sequence[int] | None = None,
    *,
    keep_split: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the suite with the tuned entry once for each of these trials (default: the front), and return its path.

    The other entries, metrics and settings are those of the study's suite. What was tuned on one split is shown on
    another: data are compared with the test split, and the seeds are others, unless ``keep_split``. Raises StoreError
    where the file exists, or a trial is not there or has no result.
    """
    if os.path.lexists(to) and not (overwrite and to.is_file() and not to.is_symlink()):
        # the file is replaced as a whole: a device, a folder or a link must never be
        what = "the file exists" if to.is_file() and not to.is_symlink() else "the path is no ordinary file"
        remedy = "Pass --force, or name another file." if to.is_file() else "Name another file."
        raise StoreError(what, got=str(to), remedy=remedy)
    rows = _chosen(opened, numbers)
    document = suite_of(opened, rows, keep_split=keep_split)
    base = to.parent if opened.suite.path is None else opened.suite.path.parent
    plugins = bool(document.get("plugins"))
    suite_from_mapping(document, base_dir=base, allow_plugins=plugins)  # a suite that nothing can run is not written
    names = ", ".join(str(row.number) for row in rows)
    metrics = ", ".join(f"{one.metric} ({one.direction})" for one in opened.definition.objectives)
    head = f"# Configurations of trials {names} of the study {opened.definition.name}: {metrics}.\n"
    if plugins:
        head += "# Its plugins are looked for from this file's folder on.\n"
    to.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(to, (head + _yaml(document)).encode())
    return to


def suite_of(opened: Opened, rows: Sequence[Row], *, keep_split: bool = False) -> dict[str, Any]:
    """The document. Where the space is within the tuned entry, each configuration is an entry ``LABEL_tN`` of its own;
    else the configurations are an axis of the grid, whose paths vary together.
    """
    definition = opened.definition
    document = copy.deepcopy(opened.suite.document)
    document.pop("study", None)
    document.pop("include", None)
    document.pop("claim", None)  # it speaks of entries by labels that may be gone
    timing = document.get("timing")
    if isinstance(timing, dict) and timing.get("anchor") == definition.label:
        timing.pop("anchor")
    owner = f"{definition.field}.{definition.label}"
    grid = dict(document.get("grid") or {})
    _drop_axes(grid, definition, owner)
    tuned = {path for row in rows for path in row.params}
    if all(path == owner or path.startswith(f"{owner}.") for path in tuned):
        _as_entries(document, definition, rows)
    else:
        paths = [owner, *sorted(path for path in tuned if path.split(".")[0] != definition.field)]
        blocks = [_entry(definition, row.params) for row in rows]
        for block in blocks:
            block.pop("label")
        grid[", ".join(paths)] = [
            [block, *(_value(definition, row.params, path) for path in paths[1:])]
            for row, block in zip(rows, blocks, strict=True)
        ]
    if grid or "grid" in document:
        document["grid"] = grid
    document["name"] = f"{definition.name}_best"
    document["description"] = f"The best configurations of the study {definition.name}."
    if not keep_split:
        document["seed"] = int(document.get("seed", 0)) + OTHER_SEEDS
        if isinstance(document.get("data"), dict) and definition.field == "samplers":
            document["data"]["reference"] = "test"
    return document


def _chosen(opened: Opened, numbers: Sequence[int] | None) -> list[Row]:
    if numbers is None:
        rows = front_of(opened.study, opened.definition)
        if not rows:
            raise StoreError("no trial of the study has a result that keeps the constraints")
        return rows
    known = {row.number: row for row in rows_of(opened.study, opened.definition) if row.what in ("ok", "infeasible")}
    unknown = [number for number in numbers if number not in known]
    if unknown:
        allowed = ", ".join(map(str, known)) or "none has a result"
        raise StoreError("no trial of that number has a result", got=unknown[0], allowed=allowed)
    return [known[number] for number in dict.fromkeys(numbers)]


def _drop_axes(grid: dict[str, Any], definition: Definition, owner: str) -> None:
    """Take out the axes of the tuned entry: their values are in the configurations."""
    axes, _ = read_axes(grid, [owner])
    for axis in axes:
        mine = all(path.startswith(f"{owner}.") or path in definition.space.parameters for path in axis.paths)
        if mine:
            del grid[axis.key]


def _as_entries(document: dict[str, Any], definition: Definition, rows: Sequence[Row]) -> None:
    entries = document[definition.field]
    place = next(k for k, one in enumerate(entries) if _label(one, definition) == definition.label)
    tuned = [{**_entry(definition, row.params), "label": f"{definition.label}_t{row.number}"} for row in rows]
    document[definition.field] = [*entries[:place], *tuned, *entries[place + 1 :]]


def _label(entry: dict[str, Any], definition: Definition) -> Any:
    return entry.get("label") or ("spectrum" if definition.field == "spectrum" else entry.get("name"))


def _configured(definition: Definition, values: Values) -> dict[str, Any]:
    """The study's document with one configuration in it: blocks before their parts."""
    document = copy.deepcopy(definition.document)
    fixed = {path: listed[0] for path, listed in document.pop("grid").items() if "," not in path}
    document["grid"] = {}
    for path, value in sorted({**fixed, **values}.items(), key=lambda item: _depth(item[0])):
        set_path(document, path, copy.deepcopy(value))
    return document


def _entry(definition: Definition, values: Values) -> dict[str, Any]:
    block: dict[str, Any] = _configured(definition, values)[definition.field][0]
    return block


def _value(definition: Definition, values: Values, path: str) -> Any:
    """The value of a path in a configuration: its own, or what stands in the suite."""
    if path in values:
        return values[path]
    value: Any = definition.document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _depth(path: str) -> tuple[int, bool]:
    parts = path.split(".")
    return len(parts), parts[-1] != "name"


def _yaml(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    writer: Any = YAML(typ="safe", pure=True)
    writer.default_flow_style = None
    writer.width = 118
    writer.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    writer.dump(document, stream)
    return stream.getvalue()
