"""The `score` command: read the data set and the samples, measure, show, and write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from kfpbench.cache.use import keeping
from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError, StoreError, SuiteError
from kfpbench.runner.materials import read_only
from kfpbench.scoring.choose_rows import Split
from kfpbench.scoring.read_samples import read_samples
from kfpbench.scoring.score_samples import ScoreResult, score_samples
from kfpbench.scoring.score_table import render_score
from kfpbench.scoring.value_range import parse_range
from kfpbench.store.atomic import atomic_path, write_bytes
from kfpbench.suite.components import check_block, create
from kfpbench.suite.include import read_suite_file
from kfpbench.suite.paths import PathError, set_path
from kfpbench.suite.problems import combine
from kfpbench.suite.yaml_source import parse_value, parse_yaml

_FORMATS = (".json", ".csv", ".parquet")


def score(
    path: Path,
    *,
    data: str,
    overrides: Sequence[str],
    reference: str | None,
    metrics: str | None,
    features: str | None,
    n: int | None,
    seed: int,
    value_range: str | None,
    resized: bool,
    out: Path | None,
    no_cache: bool,
    as_json: bool,
) -> ScoreResult:
    """Measure the samples in ``path``; print a table, or JSON; write ``out``. Raises KfpbenchError."""
    console = Console(stderr=as_json)
    if out is not None:
        check_out(out)
    split = _split(reference)
    stated = None if value_range is None else parse_range(value_range)
    block = data_block(data, overrides)
    with console.status("reading") as status, keeping(not no_cache):
        dataset: Dataset = read_only(create("datasets", block).load())
        result = score_samples(
            read_samples(path, dataset, value_range=stated, resized=resized),
            dataset,
            reference=split or block["reference"],
            metrics=None if metrics is None else _names(metrics),
            features=features,
            n=n,
            seed=seed,
            train_size=block["train_size"],
            progress=lambda text: status.update(text.replace("[", "\\[")),
        )
    if out is not None:
        write_score(result, out)
    if as_json:
        print(result.to_json())
    else:
        render_score(result, console)
    return result


def data_block(text: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The canonical `data:` block that ``--data`` and ``--set`` describe.

    ``text`` is the name of a data set, a mapping in YAML, or a YAML file: its `data:`, or all of it. ``overrides`` are
    ``parameter=value``. Raises SuiteError.
    """
    document = {"data": _raw_block(text)}
    if isinstance(document["data"], str):
        document["data"] = {"name": document["data"]}
    for override in overrides:
        _override(document, override)
    checked = check_block("datasets", document["data"], in_place=True)
    if checked.block is None:
        raise combine([problem.error("--data") for problem in checked.problems])
    return checked.block


def _raw_block(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return parse_yaml(text, "--data").data
    if text.endswith((".yaml", ".yml")):
        content = read_suite_file(Path(text)).data
        return content.get("data", content)
    return text


def _override(document: dict[str, Any], text: str) -> None:
    where = f"--set {text}"
    parameter, equals, written = text.partition("=")
    parameter = parameter.strip().removeprefix("data.")
    if not equals or not parameter:
        raise SuiteError("an override is parameter=value", got=text, allowed="data_dir=FOLDER", where=where)
    try:
        set_path(document, f"data.{parameter}", parse_value(written, "value"))
    except SuiteError as error:
        raise SuiteError(f"{error.what} (at {error.where})", got=error.got, where=where) from error
    except PathError as error:
        raise error.problem.error(where) from error


def _split(name: str | None) -> Split | None:
    if name is None:
        return None
    for split in get_args(Split):
        if split == name:
            return split
    raise ParameterError("no such split", got=name, allowed=", ".join(get_args(Split)), where="--reference")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def check_out(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured. Raises StoreError."""
    if path.suffix.lower() not in _FORMATS:
        raise StoreError("this format is not written", got=path.name, allowed=", ".join(_FORMATS), where="--out")
    if path.is_dir() or not path.parent.is_dir():
        raise StoreError(
            "the file cannot be written there",
            got=str(path),
            allowed="a file in a folder that exists",
            remedy="Make the folder first.",
            where="--out",
        )


def write_score(result: ScoreResult, path: Path) -> None:
    """Write the whole result (.json) or its table (.csv, .parquet), atomically. Raises StoreError."""
    check_out(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_bytes(path, (result.to_json() + "\n").encode("ascii"))
        return
    import pandas as pd

    frame = pd.DataFrame(result.table())
    if suffix == ".csv":
        write_bytes(path, frame.to_csv(index=False, lineterminator="\n").encode())
        return
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
