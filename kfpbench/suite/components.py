"""Component blocks ``{name: ..., parameters}``: check them, fill in their defaults, build the components.

A canonical block has every default filled in, at every depth, so that equal components have equal blocks.
Nested components may be given by name alone: ``kernel: rbf`` means ``kernel: {name: rbf}``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from kfpbench.errors import (
    CapabilityError,
    DataError,
    KfpbenchError,
    PluginError,
    SuiteError,
    UnknownComponentError,
)
from kfpbench.registry import Entry, available, find
from kfpbench.suite.problems import Path, Problem, combine, dotted, from_pydantic, meant_name
from kfpbench.suite.schema import DataKeys, LabelKey
from kfpbench.suite.signature import Nested, Signature, read_signature
from kfpbench.testing.shape import missing_members

SPECTRUM_TARGET = "kfpbench.eigensolvers.spectrum_task:SpectrumTask"  # the eigenpair problem of `spectrum:` blocks
MAX_NESTING = 24

# keys that a block has by its place in the suite, beside the parameters of its component
PLACE_KEYS: dict[str, type[BaseModel]] = {"datasets": DataKeys, "samplers": LabelKey, "spectrum": LabelKey}


@dataclass(frozen=True)
class Checked:
    """A block with all defaults filled in, or what is wrong with it (then ``block`` is None)."""

    block: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()


class _ConstructionError(Exception):
    """A constructor refused its parameters; carries the path of its block."""

    def __init__(self, path: Path, names: tuple[str, ...], error: Exception | SystemExit) -> None:
        super().__init__(str(error))
        self.path = path
        self.names = names
        self.error = error


def spectrum_entry() -> Entry:
    """The class behind `spectrum:` blocks, as if it were registered."""
    return Entry("spectrum", "spectrum", SPECTRUM_TARGET, "kfpbench")


def component_entry(kind: str, name: str) -> Entry:
    """The registered component of that kind and name. Raises UnknownComponentError."""
    return spectrum_entry() if kind == "spectrum" else find(kind, name)


def outputs_of(kind: str, name: str) -> list[str]:
    """The names under which a component reports, when it says so: those of a metric's class."""
    return list(getattr(component_entry(kind, name).load(), "outputs", {}))


def has_own_dynamics(name: str) -> bool:
    """Whether the data set of that name is a reference problem: a stationary diffusion with a known spectrum.

    Raises UnknownComponentError, and PluginError for one that cannot be loaded.
    """
    return hasattr(component_entry("datasets", name).load(), "exact_eigenvalues")


def reference_problems() -> list[str]:
    """The registered data sets that have dynamics of their own; those that cannot be loaded are left out."""
    found = []
    for name in available("datasets"):
        try:
            if has_own_dynamics(name):
                found.append(name)
        except PluginError:
            continue
    return found


def check_block(kind: str, raw: object, *, in_place: bool = False) -> Checked:
    """Check one component block, without building anything; paths of problems start at the block.

    ``in_place`` allows the keys that the block has by its place in the suite (`label`, `reference`,
    `train_size`).
    """
    return _check_component(kind, raw, (), PLACE_KEYS.get(kind) if in_place else None)


def check_construction(kind: str, block: dict[str, Any]) -> Problem | None:
    """Build a canonical block and throw the result away; what its constructors refuse comes back as a
    problem.

    A CapabilityError or DataError is not a fault of the suite: the cell is skipped, or fails, when it is run.
    """

    def guarded(component: type, arguments: dict[str, Any], path: Path) -> object:
        try:
            return component(**arguments)
        except (CapabilityError, DataError):
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # a plugin's constructor may fail in any way
            raise _ConstructionError(path, tuple(arguments), error) from error

    try:
        _build(kind, block, (), guarded)
    except (CapabilityError, DataError):
        return None
    except _ConstructionError as refusal:
        error = refusal.error
        if isinstance(error, KfpbenchError):
            allowed = None if error.allowed is None else str(error.allowed)
            path = (*refusal.path, *_parameter_named_in(error.what, refusal.names))
            return Problem(path, error.what, got=error.got, allowed=allowed, remedy=error.remedy)
        return Problem(refusal.path, f"the constructor failed: {type(error).__name__}: {error}")
    return None


def _parameter_named_in(message: str, names: tuple[str, ...]) -> Path:
    """The parameter that a message speaks of, if it names exactly one: the place to point at in its block."""
    words = set(re.findall(r"\w+", message))
    named = [name for name in names if name in words]
    return (named[0],) if len(named) == 1 else ()


def create(kind: str, block: dict[str, Any] | str) -> Any:
    """Build the component that a block describes, with everything nested in it.

    ``kind`` is one of ``kfpbench.protocols.KINDS``, or ``"spectrum"``. The keys that a block has by its
    place in the suite are left out. Raises SuiteError for a block that does not fit the component, and lets
    errors of constructors through.
    """
    if isinstance(block, dict):
        by_place = PLACE_KEYS[kind].model_fields if kind in PLACE_KEYS else {}
        block = {key: value for key, value in block.items() if key not in by_place}
    checked = check_block(kind, block)
    if checked.block is None:
        raise combine([problem.error(dotted(problem.path) or kind) for problem in checked.problems])
    return _build(kind, checked.block, (), lambda component, arguments, _: component(**arguments))


@functools.cache  # it disassembles every method; a suite names the same few classes in many blocks
def _lacking(kind: str, component: type) -> tuple[str, ...]:
    return tuple(missing_members(kind, component))


# -- checking --------------------------------------------------------------------------------------


def _check_component(kind: str, raw: object, path: Path, place_keys: type[BaseModel] | None) -> Checked:
    if len(path) > MAX_NESTING:
        return Checked(None, (Problem(path, "components are nested too deeply; does a default nest itself?"),))
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, dict):
        fault = Problem(path, f"not a component of {kind}", got=raw, allowed="a name, or {name: ..., parameters}")
        return Checked(None, (fault,))
    head: dict[str, Any] = {}
    if kind != "spectrum":
        if "name" not in raw:
            what = f"a component of {kind} needs the key 'name'"
            fault = Problem(path, what, got=raw, remedy=meant_name(raw))
            return Checked(None, (fault,))
        if not isinstance(raw["name"], str):
            fault = Problem((*path, "name"), f"not the name of a component of {kind}", got=raw["name"])
            return Checked(None, (fault,))
        head = {"name": raw["name"]}
    try:
        component = component_entry(kind, head.get("name", kind)).load()
        lacking = () if kind == "spectrum" else _lacking(kind, component)
        if lacking:
            raise PluginError(
                f"{head['name']!r} is no component of {kind}: it lacks {'; '.join(lacking)}",
                remedy=f"`python -m kfpbench.testing {kind}` runs the contract suite on it.",
            )
        signature = read_signature(component)
    except (UnknownComponentError, PluginError) as error:
        allowed = None if error.allowed is None else str(error.allowed)
        where = (*path, "name") if head else path
        return Checked(None, (Problem(where, error.what, got=error.got, allowed=allowed, remedy=error.remedy),))

    by_place = list(place_keys.model_fields) if place_keys else []
    clash = [key for key in by_place if key in signature.names]
    if clash:
        owner = signature.component.__qualname__
        what = f"{owner} has a parameter named {clash[0]!r}, a key of the suite itself"
        return Checked(None, (Problem(path, what, remedy="Rename the parameter."),))
    problems: list[Problem] = []
    own = {key: value for key, value in raw.items() if key in by_place}
    given = {key: value for key, value in raw.items() if key not in by_place and key not in head}
    if place_keys is not None:
        own = _check_model(place_keys, own, path, by_place, problems)
    known = [*head, *by_place, *signature.names]
    filled = _check_parameters(signature, given, path, known, problems)
    return Checked(None, tuple(problems)) if problems else Checked({**head, **filled, **own})


def _check_model(
    model: type[BaseModel], given: dict[str, Any], path: Path, known: list[str], problems: list[Problem]
) -> dict[str, Any]:
    """Validate plain values; returns them with defaults filled in, in the form that equal values share."""
    try:
        # the types of defaults are not looked at yet, so that a list's default may be a tuple
        once = model.model_validate_json(json.dumps(given)).model_dump(mode="json", by_alias=True, warnings=False)
    except ValidationError as error:
        problems += [problem.under(path) for problem in from_pydantic(error, given, known)]
        return {}
    except TypeError as error:  # pydantic cannot compare, say, text with a bound that stands on a whole union
        what = f"{model.__name__}: {error}"
        problems.append(Problem(path, what, remedy="Its author should put the bound on one alternative."))
        return {}
    try:  # a second pass gives defaults the type of their annotation: 1 becomes 1.0 for a float
        return model.model_validate_json(json.dumps(once)).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        for problem in from_pydantic(error, once, known):
            what = f"{model.__name__} has a default that its own annotation does not allow: {problem.what}"
            problems.append(Problem(path, what, got=problem.got, allowed=problem.allowed))
        return {}


def _check_parameters(
    signature: Signature, given: dict[str, Any], path: Path, known: list[str], problems: list[Problem]
) -> dict[str, Any]:
    plain = {key: None if key in signature.nested else value for key, value in given.items()}
    filled = _check_model(signature.model, plain, path, known, problems)
    for name, nested in signature.nested.items():
        if name not in given and nested.required:
            continue  # reported as missing, above
        value = given.get(name, nested.default)
        filled[name] = _check_nested(nested, value, (*path, name), problems)
    return filled


def _check_nested(nested: Nested, value: object, path: Path, problems: list[Problem]) -> Any:
    if value is None and nested.optional:
        return None
    if nested.many:
        if not isinstance(value, list):
            problems.append(Problem(path, f"not a list of {nested.kind or 'mappings'}", got=value, allowed="a list"))
            return None
        one = Nested(nested.kind, nested.options)
        return [_check_nested(one, item, (*path, index), problems) for index, item in enumerate(value)]
    if nested.kind is not None:
        checked = _check_component(nested.kind, value, path, None)
        problems += checked.problems
        return checked.block
    assert nested.options is not None  # Nested has one or the other
    if not isinstance(value, dict):
        problems.append(Problem(path, f"{path[-1]}: not a mapping", got=value, allowed="a mapping"))
        return None
    try:
        signature = read_signature(nested.options)
    except PluginError as error:
        problems.append(Problem(path, error.what, got=error.got, remedy=error.remedy))
        return None
    return _check_parameters(signature, value, path, list(signature.names), problems)


# -- building --------------------------------------------------------------------------------------

_Call = Callable[[type, dict[str, Any], Path], object]


def _build(kind: str, block: dict[str, Any], path: Path, call: _Call) -> Any:
    """Build a canonical block; ``call`` calls each constructor, innermost first."""
    signature = read_signature(component_entry(kind, block.get("name", kind)).load())
    return _build_parameters(signature, block, path, call)


def _build_parameters(signature: Signature, block: dict[str, Any], path: Path, call: _Call) -> Any:
    plain = {key: None if key in signature.nested else block[key] for key in signature.names}
    try:  # through the model once more: it turns lists into tuples, and text into paths and enums
        model = signature.model.model_validate_json(json.dumps(plain))
    except ValidationError as error:  # the block was checked, so its own canonical form should be valid
        raise SuiteError(f"{signature.component.__qualname__}: {error}", where=dotted(path)) from error
    arguments = {field.alias or key: getattr(model, key) for key, field in type(model).model_fields.items()}
    for name, nested in signature.nested.items():
        arguments[name] = _build_nested(nested, block[name], (*path, name), call)
    return call(signature.component, arguments, path)


def _build_nested(nested: Nested, value: Any, path: Path, call: _Call) -> Any:
    if value is None:
        return None
    if nested.many:
        one = Nested(nested.kind, nested.options)
        return [_build_nested(one, item, (*path, index), call) for index, item in enumerate(value)]
    if nested.kind is not None:
        return _build(nested.kind, value, path, call)
    assert nested.options is not None  # Nested has one or the other
    return _build_parameters(read_signature(nested.options), value, path, call)
