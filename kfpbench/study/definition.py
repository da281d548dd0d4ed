"""A study as its suite defines it: what is tuned, over which space, for what; and the cells of one configuration."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kfpbench.errors import SuiteError
from kfpbench.study.objectives import COSTS, GAINS, Constraint, Objective
from kfpbench.study.space import Space, Values
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import component_entry, outputs_of
from kfpbench.suite.expand import MAX_CELLS, plan_cells
from kfpbench.suite.grid import OWNED, read_axes
from kfpbench.suite.loaded import Suite
from kfpbench.suite.paths import label_of
from kfpbench.suite.places import Places
from kfpbench.suite.problems import Path, Problem, closest, combine
from kfpbench.suite.schema import SuiteModel
from kfpbench.suite.study_schema import StudyBlock

_SPECTRUM_PREFIXES = ("eigenvalue_error_", "residual_")
_NO_RESULT_DEPENDS_ON = ("cache", "isolate", "description")
_NOT_IN_TRIALS = ("study", "claim", "timing", "include", "plugins")


@dataclass(frozen=True)
class Definition:
    """One study. ``document`` is the suite with the tuned entry alone, ``field`` and ``label`` say which it is.

    ``n_samples`` are the suite's images per cell: those of a trial that no stage stops.
    """

    name: str
    field: Literal["samplers", "spectrum"]
    label: str
    document: dict[str, Any]
    block: StudyBlock
    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    n_samples: int

    @classmethod
    def of(cls, suite: Suite, name: str | None = None) -> Definition:
        """The study of a valid suite; ``name`` in place of its own. Raises SuiteError for a suite without one."""
        if suite.model.study is None:
            where = str(suite.path) if suite.path else None
            raise SuiteError("the suite has no `study:`", remedy="See docs/studies.md for one.", where=where)
        return _define(suite.document, suite.model, name)

    @property
    def trials(self) -> int | None:
        """How many trials there will be; None where only the seconds limit them."""
        if self.block.sampler.name != "grid":
            return self.block.budget.trials
        return sum(1 for _ in self.space.grid())

    @property
    def stages(self) -> list[int]:
        """The numbers of images at which trials may stop, ascending, all below those of the full cell."""
        return list(self.block.stages)

    def cells(self, values: Values, n_samples: int | None = None) -> list[Cell]:
        """The cells of one configuration: one for each repeat, with the configuration as its axes.

        Raises SuiteError where the values do not fit together.
        """
        cells, errors = self._plan(values, n_samples)
        if errors:
            raise combine(errors)
        return cells

    def _plan(
        self, values: Values, n_samples: int | None = None, repeats: int | None = None
    ) -> tuple[list[Cell], list[SuiteError]]:
        document = copy.deepcopy(self.document)
        if repeats is not None:
            document["repeats"] = repeats
        document["grid"] = {**document["grid"], **{path: [copy.deepcopy(value)] for path, value in values.items()}}
        if n_samples is not None:
            document["n_samples"] = n_samples
        model = SuiteModel.model_validate_json(json.dumps(document))
        plan = plan_cells(document, model, Places())
        return plan.cells, plan.errors

    def digest(self) -> str:
        """Of all that makes trials comparable. Sampler, budget and stages may change while a study goes on."""
        return _digest(self._comparable())

    def digests(self) -> dict[str, str]:
        """The same part by part, by the keys of the suite: ``metrics``, ``study.space``, ..."""
        content = self._comparable()
        parts = {**content.pop("document"), **{f"study.{name}": one for name, one in content.items()}}
        return {name: _digest(one) for name, one in parts.items()}

    def _comparable(self) -> dict[str, Any]:
        return {
            "document": {key: value for key, value in self.document.items() if key not in _NO_RESULT_DEPENDS_ON},
            "target": [self.field, self.label],
            "space": {path: one.model_dump(mode="json") for path, one in self.space.parameters.items()},
            "objectives": [[one.metric, one.direction] for one in self.objectives],
            "constraints": [one.name for one in self.constraints],
        }


def study_faults(document: dict[str, Any], model: SuiteModel, places: Places) -> list[SuiteError]:
    """What is wrong with the study of a suite that is valid otherwise, each fault with its place.

    Every choice and both ends of every range are tried in a cell; what only shows when values meet fails in its trial.
    """
    try:
        definition = _define(document, model, None)
    except _Fault as fault:
        problem = fault.problem
        return [problem.error(places.where(problem.path, at_key=problem.at_key))]
    problems = [*_metric_problems(definition), *_stage_problems(definition), *_size_problems(definition)]
    named = {str(Problem((), "", one).error(None).got): one for one in definition.space.parameters}  # as errors show it
    found: dict[str, SuiteError] = {}
    for path, values in definition.space.extremes():
        _, errors = definition._plan(values, repeats=1)  # one of many equal ones
        for error in errors:
            allowed, remedy = None if error.allowed is None else str(error.allowed), error.remedy
            at, what = named.get(str(error.got), path), f"{error.what} (where {path} = {values[path]})"
            if at != path:  # another path of the space is at fault, and not the value that was tried first
                if not at.startswith(f"{path}."):
                    what = error.what
                elif remedy is None:
                    remedy = f"Where not all choices of {path} have it, say by `when` which do."
            where = places.where(("study", "space", at), at_key=True)
            found.setdefault(error.what, Problem((), what, error.got, allowed, remedy).error(where))
    return [one.error(places.where(one.path, at_key=one.at_key)) for one in problems] + list(found.values())


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Fault(SuiteError):
    """One problem of the block, not located yet."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem.error("study"))


def _define(document: dict[str, Any], model: SuiteModel, name: str | None) -> Definition:
    assert model.study is not None  # the callers have seen to it
    block = model.study
    field, index, label = _target(document, block)
    chosen = copy.deepcopy(document[field][index])
    kept = {key: value for key, value in document.items() if key not in (*_NOT_IN_TRIALS, *OWNED)}
    base = copy.deepcopy(kept) | {field: [{**chosen, "label": label}], "plugins": [], "include": []}
    base["grid"] = _single_axes(document, block, f"{field}.{label}")
    base["n_samples"] = model.n_samples
    for path in block.space:
        _check_path(path, block, f"{field}.{label}")
    objectives = tuple(
        Objective(one.metric, one.direction or _direction(one.metric, model, field, place))
        for place, one in enumerate(block.objectives)
    )
    constraints = tuple(Constraint(one.metric, one.at_most, one.at_least) for one in block.constraints)
    return Definition(
        name or block.name or model.name,
        field,
        label,
        base,
        block,
        Space.of(block.space),
        objectives,
        constraints,
        model.n_samples,
    )


def _target(document: Mapping[str, Any], block: StudyBlock) -> tuple[Literal["samplers", "spectrum"], int, str]:
    fields: tuple[Literal["samplers"], Literal["spectrum"]] = ("samplers", "spectrum")
    entries = [
        (name, index, str(label_of(entry, name)))
        for name in fields
        for index, entry in enumerate(document.get(name) or [])
    ]
    labels = [label for _, _, label in entries]
    if block.target is None:
        owners = {".".join(path.split(".")[:2]) for path in block.space if path.split(".")[0] in OWNED}
        named = [entry for entry in entries if f"{entry[0]}.{entry[2]}" in owners]
        if len(named) == 1 or len(entries) == 1:
            return (named or entries)[0]
        remedy = "Say which one is tuned: `target: LABEL`."
        raise _Fault(Problem(("study",), "the suite has several entries", allowed=", ".join(labels), remedy=remedy))
    if block.target not in labels:
        raise _Fault(
            Problem(
                ("study", "target"),
                "no entry of samplers or spectrum has that label",
                got=block.target,
                allowed=", ".join(labels),
                remedy=closest(block.target, labels),
            )
        )
    return entries[labels.index(block.target)]


def _single_axes(document: Mapping[str, Any], block: StudyBlock, owner: str) -> dict[str, Any]:
    """The axes of the suite's grid that give the tuned entry one value; those that the space has are left out.

    Raises _Fault for an axis of several values: a trial is one configuration.
    """
    grid = document.get("grid") or {}
    axes, _ = read_axes(grid, [owner])  # the suite is valid: what is reported here belongs to other entries
    kept = {}
    for axis in axes:
        mine = [path for index, path in enumerate(axis.paths) if axis.applies(index, owner)]
        if not mine or all(path in block.space for path in mine):
            continue
        if len(axis.values) > 1:
            raise _Fault(
                Problem(
                    ("grid", axis.key),
                    "the grid sweeps what the study tunes: a trial is one configuration",
                    got=f"{len(axis.values)} values",
                    remedy="Put the path into study.space, or give it one value.",
                    at_key=True,
                )
            )
        kept[axis.key] = list(grid[axis.key])
    return kept


def _check_path(path: str, block: StudyBlock, owner: str) -> None:
    place: Path = ("study", "space", path)
    head = path.split(".")[0]
    if "," in path:
        raise _Fault(Problem(place, "a parameter is one path", got=path, at_key=True))
    if head == "seed" or (head == "n_samples" and block.stages):
        why = "a trial's seed is the suite's" if head == "seed" else "the stages set n_samples"
        raise _Fault(Problem(place, why, got=path, remedy="Remove it.", at_key=True))
    if head in OWNED and not path.startswith(f"{owner}.") and path != owner:
        what = f"the study tunes {owner}, and this path belongs to another entry"
        raise _Fault(Problem(place, what, got=path, allowed=f"{owner}.*", at_key=True))


def _direction(metric: str, model: SuiteModel, field: str, place: int) -> Literal["minimize", "maximize"]:
    """The metric's own direction."""
    kind = "sample" if field == "samplers" else "spectrum"
    better = _reported(model).get(metric)
    if metric in COSTS[kind] or (kind == "spectrum" and metric.startswith(_SPECTRUM_PREFIXES)):
        better = "lower"
    elif metric in GAINS[kind]:
        better = "higher"
    if better in ("lower", "higher"):
        return "minimize" if better == "lower" else "maximize"
    if better is None and not (kind == "spectrum" and metric.startswith("eigenvalue_")):
        return "minimize"  # no cell reports it, which `_metric_problems` says
    what = "the metric has no direction of its own"
    remedy = "Say so: {metric: ..., direction: minimize}."
    raise _Fault(Problem(("study", "objectives", place), what, got=metric, remedy=remedy))


def _reported(model: SuiteModel) -> dict[str, str]:
    """The names that the suite's metrics report, with their directions."""
    found: dict[str, str] = {}
    for block in model.metrics:
        found |= getattr(component_entry("metrics", block["name"]).load(), "outputs", {})
    return found


def _metric_problems(definition: Definition) -> list[Problem]:
    """Objectives and constraints that no cell will report."""
    kind = "sample" if definition.field == "samplers" else "spectrum"
    known = [*COSTS[kind], *GAINS[kind]]
    if kind == "sample":
        for block in definition.document.get("metrics") or []:
            known += outputs_of("metrics", block["name"])
    problems = []
    for key in ("objectives", "constraints"):
        for index, one in enumerate(getattr(definition, key)):
            dynamic = kind == "spectrum" and one.metric.startswith((*_SPECTRUM_PREFIXES, "eigenvalue_"))
            if one.metric not in known and not dynamic:
                remedy = closest(one.metric, known) or "Add the metric to `metrics:`."
                what = "no cell of this suite reports that metric"
                path: Path = ("study", key, index)
                problems.append(Problem(path, what, got=one.metric, allowed=", ".join(known), remedy=remedy))
    return problems


def _stage_problems(definition: Definition) -> list[Problem]:
    stages = definition.block.stages
    if stages and definition.field == "spectrum":
        return [Problem(("study", "stages"), "a spectrum draws no images, so that it has no stages", got=stages)]
    if stages and stages[-1] >= definition.n_samples:
        allowed = f"less than n_samples = {definition.n_samples}"
        return [Problem(("study", "stages", len(stages) - 1), "not a stage", got=stages[-1], allowed=allowed)]
    return []


def _size_problems(definition: Definition) -> list[Problem]:
    if definition.block.sampler.name != "grid":
        return []
    if definition.space.grid_bound() > MAX_CELLS:
        allowed = f"at most {MAX_CELLS} points"
        return [
            Problem(("study", "space"), "the grid is too large", got=definition.space.grid_bound(), allowed=allowed)
        ]
    points = sum(1 for _ in definition.space.grid())
    trials = definition.block.budget.trials
    if trials is not None and trials < points:
        remedy = "Raise it or leave it out; or take `sampler: random` or `qmc`."
        return [Problem(("study", "budget", "trials"), f"the grid has {points} points", got=trials, remedy=remedy)]
    return []
