"""The `study:` block of a suite as pydantic models, and what is wrong with one as it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from kfpbench.suite.base_model import LABEL, SLUG, StrictModel
from kfpbench.suite.problems import Path, Problem, closest, from_pydantic

Number = int | float
LARGEST_INT = 2**53  # Optuna keeps numbers as float64, which has every integer up to here
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class ParameterBlock(StrictModel):
    """One axis of the search space: ``choices``, or a range from ``low`` to ``high``, both included."""

    choices: Annotated[list[Any], Field(min_length=1)] | None = Field(
        None, description="The values to choose from: text, numbers, null, or whole component blocks."
    )
    low: Number | None = Field(None, description="The least value.")
    high: Number | None = Field(None, description="The largest value.")
    step: Annotated[Number, Field(gt=0)] | None = Field(None, description="Only low, low + step, ...")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    type: Literal["int", "float"] | None = Field(
        None, description="By default int where low, high and step are written without a point."
    )
    when: dict[str, Any] | None = Field(
        None,
        description="Only where these parameters of the space have this value, or one of these values; a block goes "
        "by the name of its component.",
    )


class ObjectiveBlock(StrictModel):
    """A metric to make small or large."""

    metric: str = Field(description="The name under which the cells report it.")
    direction: Literal["minimize", "maximize"] | None = Field(None, description="By default what the metric says.")


class ConstraintBlock(StrictModel):
    """A bound that a configuration must keep to be on the front."""

    metric: str = Field(description="The name under which the cells report it.")
    at_most: float | None = None
    at_least: float | None = None


class SamplerBlock(StrictModel):
    """How configurations are chosen."""

    name: Literal["tpe", "nsga2", "random", "qmc", "grid"] = "tpe"
    startup: Count = Field(10, description="tpe: random trials before the model is used.")
    population: Annotated[int, Field(ge=2)] = Field(20, description="nsga2: trials of a generation.")
    sequence: Literal["sobol", "halton"] = Field("sobol", description="qmc: the low-discrepancy sequence.")


class StudyBudget(StrictModel):
    """When a study ends."""

    trials: Count | None = Field(
        None, description="Trials in all; null: as many as the seconds allow, or the grid has."
    )
    seconds: Seconds | None = Field(
        None, description="No trial begins once the trials, of all workers together, have taken so long."
    )


class StudyBlock(StrictModel):
    """A search over configurations of one entry of the suite; it changes no cell of `kfpbench run`."""

    name: Annotated[str, Field(pattern=SLUG)] | None = Field(None, description="Default: the name of the suite.")
    target: Annotated[str, Field(pattern=LABEL)] | None = Field(
        None, description="Label of the entry of samplers or spectrum that is tuned; default: the only one."
    )
    objectives: Annotated[list[ObjectiveBlock], Field(min_length=1)]
    constraints: list[ConstraintBlock] = Field([])
    space: Annotated[dict[str, ParameterBlock], Field(min_length=1)]
    sampler: SamplerBlock = SamplerBlock.model_validate({})
    budget: StudyBudget = StudyBudget.model_validate({})
    stages: list[Count] = Field(
        [], description="Numbers of images, ascending, at which a trial that is clearly dominated stops."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of the sampler.")
    heartbeat: Annotated[int, Field(ge=1)] = Field(
        30, description="PostgreSQL: seconds between signs of life; after three the trial is another worker's."
    )


_LISTS: dict[str, type[BaseModel]] = {"objectives": ObjectiveBlock, "constraints": ConstraintBlock}
_SINGLE: dict[str, type[BaseModel]] = {"sampler": SamplerBlock, "budget": StudyBudget}
STUDY_KEYS = {key: tuple(model.model_fields) for key, model in _SINGLE.items()}  # of its nested mappings


def spell_out(study: dict[str, Any]) -> None:
    """Write short forms out, in place: a metric or a sampler by its name alone, choices as a plain list."""
    if isinstance(study.get("objectives"), list):
        study["objectives"] = [{"metric": one} if isinstance(one, str) else one for one in study["objectives"]]
    if isinstance(study.get("sampler"), str):
        study["sampler"] = {"name": study["sampler"]}
    if isinstance(study.get("space"), dict):
        for path, value in study["space"].items():
            if isinstance(value, list):
                study["space"][path] = {"choices": value}


def study_problems(study: object) -> list[Problem]:
    """What is wrong with a block by itself, each problem at its place below `study`; none for null."""
    if study is None:
        return []
    if not isinstance(study, dict):
        return [Problem(("study",), "study is not a mapping", got=study, allowed="a mapping")]
    problems: list[Problem] = []
    shell = {key: value for key, value in study.items() if key not in (*_LISTS, *_SINGLE, "space")}
    stand_in = {"objectives": [{"metric": "x"}], "space": {"x": {"choices": [0]}}}
    present = {key: value for key, value in stand_in.items() if key in study}
    problems += _model_problems(StudyBlock, {**shell, **present}, ("study",), list(StudyBlock.model_fields))
    for key, model in _LISTS.items():
        problems += _list_problems(study, key, model)
    for key, model in _SINGLE.items():
        if key in study:
            problems += _model_problems(model, study[key], ("study", key))
    problems += _space_problems(study)
    return problems or _bounds_problems(StudyBlock.model_validate_json(json.dumps(study)))


def _model_problems(model: type[BaseModel], value: object, path: Path, known: list[str] | None = None) -> list[Problem]:
    if not isinstance(value, dict):
        return [Problem(path, f"{'.'.join(map(str, path))} is not a mapping", got=value, allowed="a mapping")]
    try:
        model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        found = from_pydantic(error, value, known or list(model.model_fields))
        return [problem.under(path) for problem in found]
    return []


def _list_problems(study: dict[str, Any], key: str, model: type[BaseModel]) -> list[Problem]:
    if key not in study:
        return []
    listed = study[key]
    if not isinstance(listed, list) or (key == "objectives" and not listed):
        return [Problem(("study", key), f"study.{key} cannot have this value", got=listed, allowed="a list of metrics")]
    return [found for index, one in enumerate(listed) for found in _model_problems(model, one, ("study", key, index))]


def _space_problems(study: dict[str, Any]) -> list[Problem]:
    space = study.get("space")
    if space is None and "space" not in study:
        return []  # reported as missing
    path: Path = ("study", "space")
    if not isinstance(space, dict) or not space:
        return [Problem(path, "study.space cannot have this value", got=space, allowed="a mapping of dotted paths")]
    problems: list[Problem] = []
    for name, value in space.items():
        found = _model_problems(ParameterBlock, value, (*path, name))
        if not found:
            parameter = ParameterBlock.model_validate_json(json.dumps(value))
            found = _parameter_problems(parameter, (*path, name))
        problems += found
    return problems or _condition_problems(space, path)


def _parameter_problems(parameter: ParameterBlock, path: Path) -> list[Problem]:
    """What is wrong with one axis."""
    ranged = {key: getattr(parameter, key) for key in ("low", "high", "step", "type")}
    given = [key for key, value in ranged.items() if value is not None] + (["log"] if parameter.log else [])
    if parameter.choices is not None:
        if given:
            what = f"choices and {given[0]} exclude each other"
            return [Problem((*path, given[0]), what, remedy="Give choices, or a range.", at_key=True)]
        texts = [json.dumps(one, sort_keys=True) for one in parameter.choices]
        twice = next((one for one, text in zip(parameter.choices, texts, strict=True) if texts.count(text) > 1), None)
        return [Problem((*path, "choices"), "a choice is listed twice", got=twice)] if twice is not None else []
    low, high, step = parameter.low, parameter.high, parameter.step
    if low is None or high is None:
        return [Problem(path, "a parameter needs choices, or low and high", got=given or "neither")]
    for key in ("low", "high", "step"):
        value = ranged[key]
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            return [Problem((*path, key), "the integer is too large", got=value, allowed="up to 2**53")]
    if not low < high:
        return [Problem((*path, "high"), "high is not above low", got=high, allowed=f"more than {low:g}")]
    if parameter.log and low <= 0:
        return [Problem((*path, "low"), "a logarithmic scale begins above 0", got=low, allowed="more than 0")]
    if parameter.log and step is not None:
        return [Problem((*path, "step"), "a logarithmic scale has no step", got=step, remedy="Remove one of them.")]
    if is_integer(parameter):
        for key in ("low", "high", "step"):
            value = ranged[key]
            if value is not None and value != int(value):
                return [Problem((*path, key), "an int parameter has whole bounds", got=value, allowed="an integer")]
    return []


def is_integer(parameter: ParameterBlock) -> bool:
    """Whether a range is one of integers."""
    if parameter.type is not None:
        return parameter.type == "int"
    return all(isinstance(one, int) for one in (parameter.low, parameter.high, parameter.step) if one is not None)


def _condition_problems(space: Mapping[str, Any], path: Path) -> list[Problem]:
    """Conditions on parameters that are not there, that can never hold, or that go in a circle."""
    problems: list[Problem] = []
    for name, value in space.items():
        for parent, wanted in (value.get("when") or {}).items():
            where = (*path, name, "when", parent)
            if parent not in space:
                problems.append(
                    Problem(
                        where,
                        "the condition is on no parameter of the space",
                        got=parent,
                        allowed=", ".join(space),
                        remedy=closest(parent, space),
                        at_key=True,
                    )
                )
                continue
            choices = space[parent].get("choices")
            values = wanted if isinstance(wanted, list) else [wanted]
            if choices is None:
                what = "a condition is on a parameter with choices"
                problems.append(Problem(where, what, got=parent, at_key=True))
            for one in values if choices is not None else ():
                if not any(matches(one, choice) for choice in choices):
                    names = [str(_name_of(choice)) for choice in choices]
                    what, remedy = f"{parent} never has this value", closest(one, names)
                    problems.append(Problem(where, what, got=one, allowed=", ".join(names), remedy=remedy))
    return problems or _circle(space, path)


def _circle(space: Mapping[str, Any], path: Path) -> list[Problem]:
    for start in space:
        reached, frontier = set(), [start]
        while frontier:
            for parent in space[frontier.pop()].get("when") or ():
                if parent == start:
                    return [Problem((*path, start, "when"), "conditions go in a circle", got=start)]
                if parent not in reached:
                    reached.add(parent)
                    frontier.append(parent)
    return []


def matches(wanted: object, value: object) -> bool:
    """Whether a value of a parameter is the one that a condition wants: itself, or a block of that component."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return wanted is value
    return wanted == value or (isinstance(wanted, str) and wanted == _name_of(value))


def _name_of(choice: object) -> object:
    return choice.get("label", choice.get("name")) if isinstance(choice, dict) else choice


def _bounds_problems(study: StudyBlock) -> list[Problem]:
    """What is wrong with budget, stages, objectives and constraints taken together."""
    problems = []
    for index, constraint in enumerate(study.constraints):
        if (constraint.at_most is None) == (constraint.at_least is None):
            what = "a constraint has at_most or at_least, one of them"
            problems.append(Problem(("study", "constraints", index), what, got=constraint.metric))
    names = [objective.metric for objective in study.objectives]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        problems.append(Problem(("study", "objectives"), "an objective is listed twice", got=twice))
    if study.stages != sorted(set(study.stages)):
        problems.append(Problem(("study", "stages"), "stages are ascending numbers of images", got=study.stages))
    if study.sampler.name == "grid":
        problems += _grid_problems(study)
    elif study.budget.trials is None and study.budget.seconds is None:
        remedy = "Give budget.trials, budget.seconds or both."
        problems.append(Problem(("study",), "the study would never end: it has no budget", remedy=remedy))
    return problems


def _grid_problems(study: StudyBlock) -> list[Problem]:
    return [
        Problem(("study", "space", name), "a grid needs choices, integers, or a step", remedy="Give it a step.")
        for name, one in study.space.items()
        if one.choices is None and one.step is None and (not is_integer(one) or one.log)
    ]
