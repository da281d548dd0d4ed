"""Load a suite: read, merge includes, load plugins, apply overrides, validate, expand. Nothing runs
before all is valid."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from kfpbench.errors import PluginError, SuiteError
from kfpbench.registry import load_plugin_file
from kfpbench.suite.cell import Cell
from kfpbench.suite.expand import plan_cells
from kfpbench.suite.include import Merged, merge_includes, read_suite_file
from kfpbench.suite.loaded import Suite
from kfpbench.suite.named_labels import fault_of_anchor, fault_of_labels
from kfpbench.suite.override import apply_overrides
from kfpbench.suite.places import Places, dotted_places
from kfpbench.suite.plain import plain_mapping
from kfpbench.suite.problems import Problem, combine, from_pydantic
from kfpbench.suite.schema import COMPONENT_FIELDS, COMPONENT_LISTS, NESTED_KEYS, SCHEMA_VERSION, SuiteModel
from kfpbench.suite.study_schema import spell_out, study_problems

_log = logging.getLogger(__name__)


def load_suite(path: str | FilePath, *, overrides: Sequence[str] = (), allow_plugins: bool = False) -> Suite:
    """Load and check a suite file, and expand it into cells.

    ``overrides`` are ``path=value`` texts; ``allow_plugins`` permits running the Python files under
    `plugins:`. Raises SuiteError with the file, line and column of every problem found.
    """
    file = FilePath(path)
    return _finish(read_suite_file(file), file, overrides, allow_plugins)


def suite_from_mapping(
    mapping: Mapping[str, Any],
    *,
    base_dir: str | FilePath | None = None,
    overrides: Sequence[str] = (),
    allow_plugins: bool = False,
) -> Suite:
    """The same for a mapping from Python; places in errors are dotted paths.

    ``base_dir`` is the folder of `include:` and `plugins:`. Raises SuiteError.
    """
    data = plain_mapping(mapping)
    places = dotted_places(data)
    text = json.dumps(data, indent=2)
    if base_dir is not None:
        merged = merge_includes(data, places, FilePath(base_dir))
    elif data.get("include") or data.get("plugins"):
        key = "include" if data.get("include") else "plugins"
        raise SuiteError(f"{key} needs a folder to start from", remedy="Pass base_dir.", where=key)
    else:
        merged = Merged(data, places, text)
    merged.text = text
    return _finish(merged, None, overrides, allow_plugins, None if base_dir is None else FilePath(base_dir))


def expand(suite: Suite) -> list[Cell]:
    """The cells of a suite in plan order. Raises SuiteError, listing every problem, when one of them is
    not valid."""
    plan = plan_cells(suite.document, suite.model, suite.places)
    if plan.errors:
        raise combine(plan.errors)
    return plan.cells


def _finish(
    merged: Merged,
    path: FilePath | None,
    overrides: Sequence[str],
    allow_plugins: bool,
    folder: FilePath | None = None,
) -> Suite:
    document, places = merged.data, merged.places
    _check_version(document, places)
    plugins = _load_plugins(document, places, folder, allow_plugins)
    _spell_out_names(document)
    apply_overrides(document, places, overrides)
    _spell_out_names(document)
    model = _validate(document, places)
    plan = plan_cells(document, model, places)
    if plan.errors:
        raise combine(plan.errors)
    if model.study is not None:
        from kfpbench.study.definition import study_faults

        if faults := study_faults(document, model, places):
            raise combine(faults)
    axes = {axis.key: list(document["grid"][axis.key]) for axis in plan.axes}
    _log.info("suite %s: %d cells, includes %s", path or model.name, len(plan.cells), list(merged.texts) or "none")
    return Suite(
        path=path,
        text=merged.text,
        document=document,
        model=model,
        cells=tuple(plan.cells),
        axes=axes,
        shared=plan.shared,
        included=merged.texts,
        overrides=tuple(overrides),
        plugins=plugins,
        places=places,
    )


def _check_version(document: dict[str, Any], places: Places) -> None:
    version = document.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        raise SuiteError(
            "the suite was written for a newer schema than this version of kfpbench knows",
            got=version,
            allowed=str(SCHEMA_VERSION),
            remedy="Upgrade kfpbench.",
            where=places.where(("schema_version",)),
        )


def _load_plugins(
    document: dict[str, Any], places: Places, folder: FilePath | None, allow_plugins: bool
) -> dict[str, str]:
    """Run the plugin files of the suite, each found from the folder of the file that names it.

    Returns the SHA-256 of each by the name that the suite gives it.
    """
    names = document.get("plugins")
    if not isinstance(names, list) or not names:
        return {}  # absent, or of a wrong type, which the schema reports
    if not allow_plugins:
        raise SuiteError(
            "the suite wants to run Python files of its own",
            got=names,
            remedy="If you trust them, pass --allow-plugins (allow_plugins=True from Python).",
            where=places.where(("plugins",), at_key=True),
        )
    digests = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        where = places.where(("plugins", index))
        place = places.place(("plugins", index))
        start = place.folder if place is not None and place.folder is not None else folder
        if "\0" in name or start is None:
            raise SuiteError("not a path", got=name, where=where)
        try:
            load_plugin_file(start / name)
        except PluginError as error:
            raise SuiteError(str(error), where=where) from error
        digests[name] = hashlib.sha256((start / name).read_bytes()).hexdigest()
        _log.info("plugin %s was run, sha256 %s", name, digests[name])
    return digests


def _spell_out_names(document: dict[str, Any]) -> None:
    """``data: digits`` means ``data: {name: digits}``; values of other types are left for the schema to
    report."""
    for key in COMPONENT_FIELDS:
        if isinstance(document.get(key), str):
            document[key] = {"name": document[key]}
    for key in COMPONENT_LISTS:
        if isinstance(document.get(key), list):
            document[key] = [{"name": item} if isinstance(item, str) else item for item in document[key]]
    if isinstance(document.get("study"), dict):
        spell_out(document["study"])


def _validate(document: dict[str, Any], places: Places) -> SuiteModel:
    """The document as a model. Raises SuiteError with every problem of the whole document."""
    model, problems = _model(document)
    errors = [problem.error(places.where(problem.path, at_key=problem.at_key)) for problem in problems]
    if model is not None:
        return model
    # Leave out what is wrong, where the rest still makes a plan, so that faults of components show in the
    # same report; not so for the grid, which may supply what a component needs.
    rest = copy.deepcopy(document)
    for problem in problems:
        if problem.path:
            rest.pop(str(problem.path[0]), None)
        else:
            rest.setdefault("name", "unnamed")
    if any(problem.path[:1] == (key,) for problem in problems for key in COMPONENT_FIELDS):
        raise combine(errors)  # what is left out is needed
    remaining, _ = _model(rest)
    same_grid = rest.get("grid") == document.get("grid")
    if remaining is not None and same_grid and (remaining.samplers or remaining.spectrum):
        errors += plan_cells(rest, remaining, places).errors
    raise combine(errors)


def _model(document: dict[str, Any]) -> tuple[SuiteModel | None, list[Problem]]:
    study = study_problems(document.get("study"))
    rest = {key: value for key, value in document.items() if key != "study"} if study else document
    try:
        model = SuiteModel.model_validate_json(json.dumps(rest))
    except ValidationError as error:
        return None, [*from_pydantic(error, rest, SuiteModel.model_fields, NESTED_KEYS), *study]
    if study:
        return None, study
    if model.claim is not None and (fault := fault_of_labels(model.claim, model.samplers, model.grid)):
        return None, [Problem(("claim",), f"claim: {fault}")]
    if model.timing is not None and (fault := fault_of_anchor(model.timing.anchor, model.samplers)):
        return None, [Problem(("timing", "anchor"), f"timing.anchor: {fault}")]
    return model, []
