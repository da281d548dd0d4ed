"""Expand a suite into its cells, checking the components of every one of them."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from kfpbench.errors import SuiteError
from kfpbench.suite.cell import Cell, cell_id, without_negative_zero
from kfpbench.suite.components import Checked, check_block, check_construction, outputs_of
from kfpbench.suite.dynamics import missing_dynamics
from kfpbench.suite.grid import Axis, Setting, combinations, count, read_axes
from kfpbench.suite.paths import PathError, label_of, set_path
from kfpbench.suite.places import Places
from kfpbench.suite.problems import Path, Problem, from_pydantic, meant_name
from kfpbench.suite.schema import COMPONENT_FIELDS, DYNAMICS, LABEL_PATTERN, NESTED_KEYS, Settings, SuiteModel

MAX_CELLS = 20_000
MAX_PROBLEMS = 50
_NOT_OF_A_CELL = ("samplers", "spectrum", "grid", "study")  # a grid may be long, and would be copied for every cell


@dataclass(frozen=True)
class Entry:
    """One sampler or spectrum of the suite; ``owner`` is how grids name it."""

    field: Literal["samplers", "spectrum"]
    index: int
    label: str

    @property
    def owner(self) -> str:
        """Its dotted path."""
        return f"{self.field}.{self.label}"


@dataclass
class Plan:
    """The outcome of expansion: cells in plan order, and the errors, of which there may be none."""

    cells: list[Cell] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    errors: list[SuiteError] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)  # label to the earlier label that has an equal cell


def plan_cells(document: dict[str, Any], model: SuiteModel, places: Places) -> Plan:
    """Expand a document that fits the model. Cost: one check and one construction per distinct component
    block."""
    entries, problems = _entries(document)
    axes, axis_problems = read_axes(document.get("grid", {}), [entry.owner for entry in entries])
    problems += axis_problems
    total = count(axes, [entry.owner for entry in entries]) * model.repeats
    if total > MAX_CELLS:
        path: Path = ("grid",) if axes else ("repeats",)
        problems.append(Problem(path, "too many cells", got=total, allowed=f"at most {MAX_CELLS}", at_key=True))
    if problems:
        errors = [problem.error(places.where(problem.path, at_key=problem.at_key)) for problem in problems]
        return Plan(axes=axes, errors=errors)
    return _Expansion(document, model, places, axes).run(entries)


def _entries(document: dict[str, Any]) -> tuple[list[Entry], list[Problem]]:
    """The samplers and spectra with their labels, which must be unique."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    fields: tuple[Literal["samplers"], Literal["spectrum"]] = ("samplers", "spectrum")
    for name in fields:
        for index, block in enumerate(document.get(name, [])):
            label = label_of(block, name)
            path: Path = (name, index, "label") if "label" in block else (name, index)
            if label is None:
                key = "label" if "label" in block or name == "spectrum" else "name"
                what = "needs a label that is text" if key == "label" else "a sampler needs the key 'name'"
                remedy = meant_name(block) if key == "name" else None
                problems.append(Problem(path, what, got=block, remedy=remedy))
            elif not LABEL_PATTERN.fullmatch(label):
                allowed = "letters, digits, - and _"
                problems.append(Problem(path, "not allowed as a label", got=label, allowed=allowed))
            elif label in taken:
                remedy = "Give each entry of samplers and spectrum its own `label`."
                problems.append(Problem(path, "the label is taken already", got=label, remedy=remedy))
            else:
                taken.add(label)
                entries.append(Entry(name, index, label))
    if not problems and not entries:
        what = "nothing to run: both samplers and spectrum are empty"
        given: list[Path] = [(name,) for name in fields if name in document]
        problems.append(Problem((given or [()])[0], what, remedy="Add an entry to one of them."))
    return entries, problems


class _Expansion:
    def __init__(self, document: dict[str, Any], model: SuiteModel, places: Places, axes: list[Axis]) -> None:
        self.document = document
        self.model = model
        self.places = places
        self.axes = axes
        self.checked: dict[str, Checked] = {}
        self.faults: dict[tuple[object, ...], _Fault] = {}
        self.sizes: dict[str, int] = {}  # cells of each entry
        self.seen: dict[str, tuple[Entry, tuple[Setting, ...]]] = {}
        self.cells: list[Cell] = []
        self.shared: dict[str, str] = {}

    def run(self, entries: list[Entry]) -> Plan:
        for entry, settings in self.ordered(entries):
            self.sizes[entry.owner] = self.sizes.get(entry.owner, 0) + 1
            spec = self.spec(entry, settings)
            if spec is not None:
                self.add(entry, settings, spec)
            if len(self.faults) >= MAX_PROBLEMS:
                break
        errors = [fault.error(self.sizes) for fault in self.faults.values()]
        return Plan(self.cells, self.axes, errors, self.shared)

    def ordered(self, entries: list[Entry]) -> list[tuple[Entry, tuple[Setting, ...]]]:
        """Plan order: common axes outermost, then the entries in the order of the file, then their own
        axes."""
        common = [axis for axis in self.axes if axis.is_common]
        own = [axis for axis in self.axes if not axis.is_common]
        rank = {axis.key: place for place, axis in enumerate(common)}
        found = []
        for position, entry in enumerate(entries):
            for settings in combinations([*common, *own], entry.owner):
                outer = [0] * len(common)
                for setting in settings:
                    key = setting.origin[1]
                    if key in rank:
                        outer[rank[str(key)]] = setting.index
                found.append((outer, position, entry, settings))
        found.sort(key=lambda item: item[:2])  # stable: own axes keep their order
        return [(entry, settings) for _, _, entry, settings in found]

    def spec(self, entry: Entry, settings: tuple[Setting, ...]) -> dict[str, Any] | None:
        """The canonical spec of a cell, without repeats; None when something is wrong, which is then
        recorded."""
        raw = {key: copy.deepcopy(value) for key, value in self.document.items() if key not in _NOT_OF_A_CELL}
        block = copy.deepcopy(self.document[entry.field][entry.index])
        raw[entry.field] = [{**block, "label": entry.label}]
        origins: dict[Path, Path] = {(entry.field, 0): (entry.field, entry.index)}
        # a block before its parts, and a component's name before the parameters that depend on it
        for setting in sorted(settings, key=_depth):
            try:
                target = set_path(raw, setting.path, copy.deepcopy(setting.value))
            except PathError as error:
                problem = replace(error.problem, path=("grid", setting.origin[1]), at_key=True)
                self.record(entry, settings, problem, {})
                return None
            origins[target] = setting.origin

        hits = 0

        def take(problems: list[Problem]) -> None:
            nonlocal hits
            hits += len(problems)
            for problem in problems:
                self.record(entry, settings, problem, origins)

        spec: dict[str, Any] = {}
        for key, kind in COMPONENT_FIELDS.items():
            absent = key in DYNAMICS and raw.get(key) is None
            spec[key] = None if absent else self.component(kind, raw[key], (key,), take)
        take(missing_dynamics(raw, spec["data"], entry.field))
        name = "sampler" if entry.field == "samplers" else "spectrum"
        spec[name] = self.component(entry.field, raw[entry.field][0], (entry.field, 0), take)
        spec["metrics"] = self.metrics(raw.get("metrics", []), take)
        spec |= self.settings(raw, take)
        if hits:
            return None
        spec[name].pop("label", None)
        cleaned: dict[str, Any] = without_negative_zero(spec)
        return cleaned

    def component(self, kind: str, raw: object, path: Path, take: Any, *, in_place: bool = True) -> Any:
        """The canonical block, checked and constructed once for all cells that share it."""
        key = json.dumps([kind, raw, in_place], sort_keys=True)
        if key not in self.checked:
            checked = check_block(kind, raw, in_place=in_place)
            refused = None if checked.block is None else check_construction(kind, checked.block)
            self.checked[key] = Checked(None, (refused,)) if refused else checked
        checked = self.checked[key]
        take([problem.under(path) for problem in checked.problems])
        return None if checked.block is None else dict(checked.block)

    def metrics(self, raw: object, take: Any) -> list[Any]:
        if not isinstance(raw, list):
            take([Problem(("metrics",), "metrics is not a list", got=raw, allowed="a list of metrics")])
            return []
        blocks: list[Any] = []
        owners: dict[str, int] = {}  # by the names that metrics report, which one comes with which
        for index, item in enumerate(raw):
            block = self.component("metrics", item, ("metrics", index), take, in_place=False)
            if block is not None and block in blocks:
                take([Problem(("metrics", index), "the same metric twice", got=item, remedy="Remove one.")])
            reported = [] if block is None else outputs_of("metrics", block["name"])
            clash = next((name for name in reported if name in owners), None)
            if clash is not None and block not in blocks:
                problem = f"the metric {clash} is reported by metrics.{owners[clash]} too"
                remedy = "A cell has each metric once: sweep its parameters over cells with `grid`, or drop one."
                take([Problem(("metrics", index), problem, got=item, remedy=remedy)])
            owners |= dict.fromkeys(reported, index)
            blocks.append(block)
        return blocks

    def settings(self, raw: dict[str, Any], take: Any) -> dict[str, Any]:
        given = {key: raw[key] for key in Settings.model_fields if key in raw}
        try:
            settings = Settings.model_validate_json(json.dumps(given))
        except ValidationError as error:
            take(from_pydantic(error, given, Settings.model_fields, NESTED_KEYS))
            return {}
        values: dict[str, Any] = settings.model_dump(mode="json")
        return values

    def add(self, entry: Entry, settings: tuple[Setting, ...], spec: dict[str, Any]) -> None:
        """Append the cell with its repeats. An equal cell of another entry is the same work and is kept
        once."""
        for repeat in range(self.model.repeats):
            seeded = {**spec, "seed": spec["seed"] + repeat}
            identity = cell_id(seeded)
            if identity in self.seen:
                owner, earlier = self.seen[identity]
                if owner == entry:
                    self.record(entry, settings, _duplicate(settings, earlier), {})
                else:
                    self.shared[entry.label] = owner.label
                continue
            self.seen[identity] = (entry, settings)
            kind: Literal["sample", "spectrum"] = "sample" if entry.field == "samplers" else "spectrum"
            axes = {setting.path: copy.deepcopy(setting.value) for setting in settings}
            cell = Cell(
                len(self.cells),
                identity,
                kind,
                entry.label,
                axes,
                repeat,
                seeded["seed"],
                copy.deepcopy(seeded),
            )
            self.cells.append(cell)

    def record(self, entry: Entry, settings: tuple[Setting, ...], problem: Problem, origins: dict[Path, Path]) -> None:
        """Note a problem once, however many cells have it."""
        path = _translate(problem.path, origins)
        where = self.places.where(path, at_key=problem.at_key)
        key = (where, problem.what, repr(problem.got), problem.allowed)
        fault = self.faults.setdefault(key, _Fault(problem, where, settings, path[:1] != ("grid",)))
        fault.hits[entry.owner] = fault.hits.get(entry.owner, 0) + 1


@dataclass
class _Fault:
    """A problem, and how many cells of each entry have it."""

    problem: Problem
    where: str | None
    settings: tuple[Setting, ...]  # of the first cell that has it
    outside_grid: bool
    hits: dict[str, int] = field(default_factory=dict)

    def error(self, sizes: dict[str, int]) -> SuiteError:
        total = sum(sizes[owner] for owner in self.hits)
        found = sum(self.hits.values())
        text = ""
        if self.outside_grid and found < total:
            first = ", ".join(f"{setting.path}={setting.value}" for setting in self.settings)
            text = f" (in {found} of {total} cells, first where {first[:100]})"
        return replace(self.problem, in_cells=text).error(self.where)


def _depth(setting: Setting) -> tuple[int, bool]:
    parts = setting.path.split(".")
    return len(parts), parts[-1] != "name"


def _translate(path: Path, origins: dict[Path, Path]) -> Path:
    """Where the suite says what stands at ``path`` in one cell."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]] + path[length:]
    return path


def _duplicate(settings: tuple[Setting, ...], earlier: tuple[Setting, ...]) -> Problem:
    """The problem that two combinations of the grid give one cell, at the last value in which they differ."""
    differing = [now for now, then in zip(settings, earlier, strict=True) if now.index != then.index]
    if not differing:
        return Problem(("repeats",), "repeats give the same cell twice")
    last = differing[-1]
    what = "the grid gives the same cell twice: this value makes no difference to an earlier one"
    return Problem(last.origin, what, got=last.value, remedy="Remove it.")
