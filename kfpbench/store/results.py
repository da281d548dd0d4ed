"""The tidy table of a run: one row per cell and metric, with the same columns and types for every run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfpbench.errors import StoreError
from kfpbench.store.atomic import atomic_path
from kfpbench.store.cell_log import latest
from kfpbench.store.json_values import dumps
from kfpbench.store.records import CellRecord, check_schema_version

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# Nullable types, so that a column keeps its type when a run has no value in it, and in any version of pandas.
COLUMNS = {
    "cell": "string",
    "index": "Int64",
    "label": "string",
    "kind": "string",
    "status": "string",
    "reason": "string",
    "dataset": "string",
    "reference": "string",
    "score": "string",
    "process": "string",
    "sampler": "string",
    "kernel": "string",
    "operator": "string",
    "eta": "float64",
    "time": "string",
    "frame": "string",
    "rank": "Int64",
    "eigensolver": "string",
    "backend": "string",
    "device": "string",
    "dtype": "string",
    "seed": "Int64",
    "repeat": "Int64",
    "metric": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "Int64",
    "unit": "string",
    "better": "string",
    "features": "string",
    "features_version": "string",
    "resize": "string",
    "schema_version": "Int64",
}
_FROM_MEASUREMENT = ("metric", "value", "ci_low", "ci_high", "n", "unit", "better")
_FROM_DETAILS = ("features", "features_version", "resize")  # of metrics that are taken in features
_DIGEST_KEY = b"kfpbench.cells_sha256"
_VERSION_KEY = b"kfpbench.schema_version"


def results_frame(records: Iterable[CellRecord]) -> DataFrame:
    """The tidy table of the records, in the order of the plan; the last record of a cell counts.

    One row per cell and metric with the columns of ``COLUMNS`` and then one column ``axis:<name>`` per swept
    axis. A cell without a measurement (skipped, failed, timed out) has one row whose metric is null. An axis
    column is boolean, Int64 or float64 when all its values are, else text (JSON for lists and mappings). The table of
    a collected run has the column ``origin`` last: the run that each record came from.
    """
    import pandas as pd

    cells = latest(records)
    rows = [row for record in cells for row in _rows(record)]
    data = {name: pd.array([row[name] for row in rows], dtype=kind) for name, kind in COLUMNS.items()}
    frame = pd.DataFrame(data, columns=list(COLUMNS))
    axes = dict.fromkeys(axis for record in cells for axis in record.axes)  # in order of appearance
    for axis in axes:
        frame[f"axis:{axis}"] = _axis_column([row["axes"].get(axis) for row in rows])
    if any(row["origin"] is not None for row in rows):  # of records that were collected from other run folders
        frame["origin"] = pd.array([row["origin"] for row in rows], dtype="string")
    return frame


def write_parquet(frame: DataFrame, path: Path, digest: str) -> None:
    """Write the table atomically, marked with the digest of the log that it was made from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kfpbench.store.records import SCHEMA_VERSION

    table = pa.Table.from_pandas(frame, preserve_index=False)
    marks = {_DIGEST_KEY: digest.encode(), _VERSION_KEY: str(SCHEMA_VERSION).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **marks})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(path: Path, digest: str | None) -> DataFrame | None:
    """The table, or None when it was made from another state of the log than ``digest`` (None: take it as it
    is).

    Raises StoreError for a file that cannot be read, or one of a newer schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        marks = pq.read_schema(path).metadata or {}
        version = marks.get(_VERSION_KEY, b"")
        check_schema_version(int(version) if version.isdigit() else None, "table", str(path))
        if digest is not None and marks.get(_DIGEST_KEY) != digest.encode():
            return None
        return pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"the table cannot be read: {error}",
            remedy="Delete it: it is made again from cells.jsonl.",
            where=str(path),
        ) from error


def _rows(record: CellRecord) -> Iterator[dict[str, Any]]:
    spec = record.spec
    rank = _find(spec, "rank")
    eta = _find(spec, "eta")
    shared = {
        "cell": record.cell,
        "index": record.index,
        "label": record.label,
        "kind": record.kind,
        "status": record.status,
        "reason": record.reason,
        "dataset": _name(spec.get("data")),
        "reference": _name(_part(spec, "data").get("reference")),
        "score": _name(spec.get("score")),
        "process": _name(spec.get("process")),
        "sampler": _name(spec.get("sampler")),
        "kernel": _name(_find(spec, "kernel")),
        "operator": _operator(_find(spec, "operator")),
        "eta": float(eta) if _is_number(eta) else None,
        "time": _name(_find(spec, "time")),
        "frame": _name(_find(spec, "frame")),
        "rank": rank if isinstance(rank, int) and not isinstance(rank, bool) else None,
        "eigensolver": _name(_find(spec, "eigensolver")),
        "backend": _name(_find(spec, "backend")) or record.backend or None,
        "device": record.device or _name(spec.get("device")),
        "dtype": _name(spec.get("dtype")),
        "seed": record.seed,
        "repeat": record.repeat,
        "schema_version": record.schema_version,
        "axes": record.axes,
        "origin": _part(record.details, "origin").get("run"),
    }
    for entry in record.measurements or [{}]:
        details = entry.get("details") or {}
        of_features = {name: None if details.get(name) is None else str(details[name]) for name in _FROM_DETAILS}
        yield {**shared, **{name: entry.get(name) for name in _FROM_MEASUREMENT}, **of_features}


def _part(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """A block of the holder; empty when there is none, or it is given by name alone."""
    block = holder.get(name)
    return block if isinstance(block, dict) else {}


def _find(spec: dict[str, Any], key: str) -> Any:
    """The value of a setting, which stands in the sampler or spectrum, or in its operator."""
    for part in (_part(spec, "sampler"), _part(spec, "spectrum")):
        for holder in (part, _part(part, "operator")):
            if holder.get(key) is not None:
                return holder[key]
    return None


def _name(component: Any) -> str | None:
    """The name of a component given as text or as a mapping with ``name``; null for a mapping without one."""
    if isinstance(component, dict):
        component = component.get("name")
    return None if component is None else str(component)


def _operator(block: Any) -> str | None:
    """The operator's name; options without one are of the generator family, told apart by eta, time and frame."""
    return _name(block) or ("generator" if isinstance(block, dict) else None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _axis_column(values: list[Any]) -> Series:
    import pandas as pd

    given = [value for value in values if value is not None]
    if given and all(isinstance(value, bool) for value in given):
        return pd.Series(values, dtype="boolean")
    if given and all(_is_number(value) for value in given):
        if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in given):
            return pd.Series(values, dtype="Int64")
        return pd.Series([None if value is None else float(value) for value in values], dtype="float64")
    return pd.Series([None if value is None else _text(value) for value in values], dtype="string")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return dumps(value) if isinstance(value, dict | list | complex) else json.dumps(value)
