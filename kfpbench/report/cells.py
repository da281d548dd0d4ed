"""What the report reads of a run: cell records, as mappings (a line of cells.jsonl) or as objects with those
names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfpbench.errors import StoreError

DIRECTIONS = ("lower", "higher", "neither")
STATUSES = ("ok", "skipped", "failed", "timeout")
KINDS = ("sample", "spectrum")


@dataclass(frozen=True)
class Measured:
    """One measurement of one cell; ``low`` and ``high`` are its own 95 % interval, NaN where it has none."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    unit: str = ""
    better: str = "neither"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One finished cell, with every field present and of the type that the report expects."""

    ident: str
    index: int
    label: str
    kind: str
    status: str
    reason: str = ""
    axes: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    measured: dict[str, Measured] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    grid: str = ""
    nearest: str = ""
    functions: str = ""
    traceback: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self._name("data", "(no data set)")

    @property
    def sampler(self) -> str:
        """Name of the sampler; for a spectrum cell that has none, its kind."""
        return self._name("sampler", self.kind)

    @property
    def reference(self) -> str:
        """Name of the split that the samples were compared with, '' when the cell does not say."""
        data = self.spec.get("data")
        return str(data.get("reference") or "") if isinstance(data, Mapping) else ""

    def _name(self, part: str, otherwise: str) -> str:
        component = self.spec.get(part)
        if isinstance(component, Mapping):
            return str(component.get("name") or otherwise)
        return str(component) if component else otherwise


def read_cells(records: Iterable[Any]) -> list[Cell]:
    """Cells in the order of their index; of two records of one cell (a retry) the later one counts.

    Raises StoreError for a record without an identity, and for an unknown kind, status or direction.
    """
    latest: dict[str, Cell] = {}
    for position, record in enumerate(records):
        cell = _read_cell(record, position)
        latest[cell.ident] = cell
    return sorted(latest.values(), key=lambda cell: cell.index)


def _read_cell(record: Any, position: int) -> Cell:
    where = f"record {position + 1}"
    ident = _field(record, "cell") or _field(record, "id")
    if not ident:
        raise StoreError("a cell record has no identity", where=where, allowed="a field 'cell' or 'id'")
    index = _field(record, "index")
    files = _field(record, "files")
    measured = [_read_measured(item, where) for item in _field(record, "measurements") or ()]
    return Cell(
        ident=str(ident),
        index=position if index is None else int(index),
        label=str(_field(record, "label") or ident),
        kind=_one_of(_field(record, "kind") or "sample", KINDS, "kind", where),
        status=_one_of(_field(record, "status"), STATUSES, "status", where),
        reason=str(_field(record, "reason") or ""),
        axes=dict(_field(record, "axes") or {}),
        spec=_plain(_field(record, "spec")),
        seed=int(_field(record, "seed") or _plain(_field(record, "spec")).get("seed") or 0),
        measured={item.metric: item for item in measured},
        phases={str(k): _number(v) for k, v in _plain(_field(record, "phases")).items() if v is not None},
        grid=str(_field(files, "grid") or ""),
        nearest=str(_field(files, "nearest") or ""),
        functions=str(_field(files, "eigenfunctions") or ""),
        traceback=str(_field(record, "traceback") or ""),
        details=_plain(_field(record, "details")),
    )


def _read_measured(item: Any, where: str) -> Measured:
    metric = str(_field(item, "metric"))
    n = _field(item, "n")
    return Measured(
        metric=metric,
        value=_number(_field(item, "value")),
        low=_number(_field(item, "ci_low")),
        high=_number(_field(item, "ci_high")),
        n=None if n is None else int(n),
        unit=str(_field(item, "unit") or ""),
        better=_one_of(_field(item, "better") or "neither", DIRECTIONS, f"better of {metric}", where),
        details=_plain(_field(item, "details")),
    )


def _field(record: Any, name: str) -> Any:
    """The value of a key or an attribute; None when there is none."""
    return record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)


def _plain(value: Any) -> dict[str, Any]:
    """A mapping, or a pydantic model or dataclass instance, as a dict."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):
        return dict(value.model_dump(mode="json"))
    return dict(vars(value))


def _number(value: Any) -> float:
    """A float; JSON has no NaN, so null means 'not a number'."""
    return math.nan if value is None else float(value)


def _one_of(value: Any, allowed: tuple[str, ...], what: str, where: str) -> str:
    text = str(value)
    if text not in allowed:
        raise StoreError(f"a cell record has an unknown {what}", got=text, allowed=allowed, where=where)
    return text
