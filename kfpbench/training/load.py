"""Load a training file: read, apply overrides, validate; every problem is reported with its line and column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kfpbench.errors import SuiteError
from kfpbench.suite.components import check_block
from kfpbench.suite.include import read_suite_file
from kfpbench.suite.places import Place, Places
from kfpbench.suite.problems import combine, from_pydantic
from kfpbench.suite.schema import SuiteModel
from kfpbench.suite.yaml_source import parse_value
from kfpbench.training.options import KINDS, AnyOptions, NetworkOptions, TrainingOptions

_BELOW = {"network": list(NetworkOptions.model_fields)}
_OF_TRAINING = {"include"}.union(*(model.model_fields for model in KINDS.values()))
_OF_SUITES = SuiteModel.model_fields.keys() - _OF_TRAINING


def load_training(path: str | Path, overrides: Sequence[str] = ()) -> AnyOptions:
    """Read a training file; ``overrides`` are ``path=value`` texts, such as images=100000 or network.patch=1.

    `kind:` says what is trained, a score network where it is missing.
    ``include`` merges other files underneath, as in suites. Raises SuiteError with the file, line and column of every
    problem found; a suite is refused with what a training file looks like.
    """
    file = Path(path)
    if not file.is_file():
        raise SuiteError("the training file does not exist", got=str(path), remedy="Check the path.")
    merged = read_suite_file(file)
    document, places = merged.data, merged.places
    document.pop("include", None)
    _refuse_suite(document, places)
    _spell_out_name(document)
    for text in overrides:
        _override(document, places, text)
    _spell_out_name(document)
    model = _model(document, places)
    problems = []
    options = None
    try:
        options = model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems += from_pydantic(error, document, model.model_fields, _BELOW)
    if isinstance(document.get("data"), dict):
        problems += [problem.under(("data",)) for problem in check_block("datasets", document["data"]).problems]
    if options is None or problems:
        raise combine([problem.error(places.where(problem.path, at_key=problem.at_key)) for problem in problems])
    return options


def _model(document: dict[str, Any], places: Places) -> type[AnyOptions]:
    kind = document.get("kind", "score")
    if not isinstance(kind, str) or kind not in KINDS:
        where = places.where(("kind",))
        raise SuiteError("nothing of that kind is trained", got=kind, allowed=", ".join(KINDS), where=where)
    return KINDS[kind]


def _refuse_suite(document: dict[str, Any], places: Places) -> None:
    for key in document:
        if key in _OF_SUITES:
            raise SuiteError(
                "this is a suite, not a training file",
                got=f"the key {key!r}",
                allowed=", ".join(TrainingOptions.model_fields),
                remedy="A training file has `name:`, `data:` and `network:`; suites/train_cifar10.yaml is one.",
                where=places.where((key,), at_key=True),
            )


def _spell_out_name(document: dict[str, Any]) -> None:
    """``data: digits`` means ``data: {name: digits}``."""
    if isinstance(document.get("data"), str):
        document["data"] = {"name": document["data"]}


def _override(document: dict[str, Any], places: Places, text: str) -> None:
    where = f"--set {text}"
    path, equals, written = text.partition("=")
    parts = tuple(path.strip().split("."))
    if not equals or not all(parts):
        raise SuiteError("an override is path=value", got=text, allowed="images=100000", where=where)
    try:
        value = parse_value(written, "value")
    except SuiteError as error:
        raise SuiteError(f"{error.what} (at {error.where})", got=error.got, where=where) from error
    block: Any = document
    for part in parts[:-1]:
        block = block.setdefault(part, {}) if isinstance(block, dict) else None
    if not isinstance(block, dict):
        raise SuiteError("the path goes on below a value that is no mapping", got=path, where=where)
    block[parts[-1]] = value
    places.overlay(value, parts, Place(where))
