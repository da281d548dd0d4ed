"""One finished cell of a run as a record, and its one-line JSON form (a line of cells.jsonl)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from kfpbench.errors import StoreError
from kfpbench.store.json_values import dumps, loads, plain

if TYPE_CHECKING:
    from kfpbench.protocols import Measurement

SCHEMA_VERSION = 1

Status = Literal["ok", "skipped", "failed", "timeout"]
Better = Literal["lower", "higher", "neither"]

_MEASUREMENT_DEFAULTS: dict[str, Any] = {
    "metric": None,
    "value": None,
    "ci_low": None,
    "ci_high": None,
    "n": None,
    "unit": "",
    "better": "neither",
    "details": {},
}


def utc_now() -> str:
    """The time as ISO 8601 in UTC to the microsecond: what ``started`` and ``finished`` hold."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def measurement_entry(measurement: Measurement, better: Better = "neither") -> dict[str, Any]:
    """The entry of ``CellRecord.measurements`` for a metric's number and its direction."""
    names = ("metric", "value", "ci_low", "ci_high", "n", "unit", "details")
    return {**{name: getattr(measurement, name) for name in names}, "better": better}


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What is known of one finished cell.

    ``spec`` is the canonical description of the cell, ``axes`` the values of the swept axes, ``phases``
    seconds by phase (setup, warm_up, latency, sampling, metrics), ``files`` paths relative to the run folder
    (samples, grid). Each of ``measurements`` has metric, value, ci_low, ci_high, n, unit, better and details;
    left-out ones get their default. Values are copied into plain Python (see `json_values.plain`). Raises
    StoreError for a value that cannot be stored, a field of the wrong type, a status other than ok without a
    reason, or one metric twice.
    """

    cell: str
    index: int
    label: str
    kind: str
    status: Status
    started: str
    finished: str
    reason: str = ""
    axes: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    repeat: int = 0
    seconds: float = 0.0
    measurements: list[dict[str, Any]] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    backend: str = ""
    traceback: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, plain(getattr(self, each.name), each.name))
        self._check()

    def _check(self) -> None:
        """Check the fields, whose values are plain already."""
        object.__setattr__(self, "seconds", _number(self.seconds, "seconds"))
        check_schema_version(self.schema_version, "cell record")
        for name in ("cell", "label", "kind", "reason", "device", "backend", "traceback"):
            _require(self, name, str, "text")
        for name in ("axes", "spec", "phases", "files", "details"):
            _require(self, name, dict, "a mapping")
        for name in ("index", "seed", "repeat"):
            _require(self, name, int, "an integer from 0 to 2**63 - 1")
            if not 0 <= getattr(self, name) < 2**63:  # a column of 64-bit integers holds it
                raise _wrong(name, getattr(self, name), "an integer from 0 to 2**63 - 1")
        if not self.cell:
            raise _wrong("cell", self.cell, "text that is not empty")
        if self.status not in get_args(Status):
            raise _wrong("status", self.status, ", ".join(get_args(Status)))
        if self.status != "ok" and not self.reason:
            raise _wrong("reason", self.reason, f"a reason, because the status is {self.status}")
        _check_time(self.started, "started")
        _check_time(self.finished, "finished")
        _require(self, "measurements", list, "a list of mappings")
        object.__setattr__(self, "measurements", [_measurement(entry) for entry in self.measurements])
        names = [entry["metric"] for entry in self.measurements]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise _wrong("measurements", twice, "each metric once a cell")

    def to_json(self) -> str:
        """The record as one line of strict JSON without its line end. NaN and infinity are tagged objects."""
        return dumps({each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> CellRecord:
        """The record that `to_json` wrote.

        Raises StoreError for text that is not such a record, or one of a newer schema.
        """
        content = loads(text)
        if not isinstance(content, dict):
            raise StoreError("not a cell record", got=type(content).__name__, allowed="a JSON object")
        check_schema_version(content.get("schema_version"), "cell record")
        known = {each.name: each.default for each in fields(cls)}
        required = {each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING}
        if unknown := sorted(content.keys() - known.keys()):
            raise StoreError("a cell record has unknown fields", got=unknown, allowed=", ".join(known))
        if missing := sorted(required - content.keys()):
            raise StoreError("a cell record lacks fields", got=sorted(content), allowed=f"also {missing}")
        record = object.__new__(cls)  # what JSON holds is plain already: it need not be copied again
        for each in fields(cls):
            if each.name in content:
                value = content[each.name]
            else:
                value = each.default if each.default_factory is MISSING else each.default_factory()
            object.__setattr__(record, each.name, value)
        record._check()
        return record


def check_schema_version(version: object, what: str, where: str | None = None) -> None:
    """Raise StoreError unless this version of kfpbench reads that schema version."""
    readable = isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= SCHEMA_VERSION
    if not readable:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise StoreError(
            f"the {what} has {'a newer' if newer else 'no valid'} schema_version",
            got=version,
            allowed=f"1 to {SCHEMA_VERSION}",
            remedy="Upgrade kfpbench to read it." if newer else "The file is damaged or not one of kfpbench.",
            where=where,
        )


def _measurement(entry: Any) -> dict[str, Any]:
    """The entry with every key present and in order, numbers as float."""
    if not isinstance(entry, dict):
        raise _wrong("measurements", type(entry).__name__, "mappings")
    if unknown := sorted(entry.keys() - _MEASUREMENT_DEFAULTS.keys()):
        raise _wrong("measurements", unknown, ", ".join(_MEASUREMENT_DEFAULTS))
    full = {name: entry.get(name, plain(default)) for name, default in _MEASUREMENT_DEFAULTS.items()}
    if not isinstance(full["metric"], str) or not full["metric"]:
        raise _wrong("measurements.metric", full["metric"], "the name of a metric")
    place = f"measurements.{full['metric']}"
    full["value"] = _number(full["value"], f"{place}.value")
    for name in ("ci_low", "ci_high"):
        if full[name] is not None:
            full[name] = _number(full[name], f"{place}.{name}")
    n = full["n"]
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 2**63):
        raise _wrong(f"{place}.n", n, "an integer from 0 to 2**63 - 1, or none")
    if not isinstance(full["unit"], str):
        raise _wrong(f"{place}.unit", full["unit"], "text")
    if full["better"] not in get_args(Better):
        raise _wrong(f"{place}.better", full["better"], ", ".join(get_args(Better)))
    if not isinstance(full["details"], dict):
        raise _wrong(f"{place}.details", full["details"], "a mapping")
    return full


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, value, "a number")
    try:
        return float(value) if isinstance(value, int) else value  # keeps the one NaN object of `plain`
    except OverflowError as error:
        raise _wrong(where, value, "a number that a double can hold") from error


def _require(record: CellRecord, name: str, kind: type, allowed: str) -> None:
    value = getattr(record, name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(name, value, allowed)


def _check_time(text: Any, name: str) -> None:
    allowed = "ISO 8601 in UTC, such as 2026-01-31T12:00:00+00:00"
    if not isinstance(text, str):
        raise _wrong(name, text, allowed)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _wrong(name, text, allowed) from error
    if moment.utcoffset() != timedelta(0):
        raise _wrong(name, text, allowed)


def _wrong(name: str, got: object, allowed: str) -> StoreError:
    return StoreError(f"{name} of a cell record is not valid", got=got, allowed=allowed)


def exit_code_of(records: Iterable[CellRecord]) -> int:
    """Of a command that ran these cells: 0 when every one is ok or skipped, else 1."""
    return 0 if all(record.status in ("ok", "skipped") for record in records) else 1
