"""From a name, a class or an instance to constructed components that the checks can take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from kfpbench.errors import CapabilityError
from kfpbench.registry import find
from kfpbench.testing.contract import Check, ContractError, Finding
from kfpbench.testing.shape import missing_members

Keywords = dict[str, Any]
_EXAMPLES = "contract_examples"


@dataclass(frozen=True)
class Case:
    """One way to build a component. ``label`` names it in findings; ``build`` constructs a fresh one."""

    kind: str
    label: str
    build: Callable[[], Any]


def cases(kind: str, component: object, examples: tuple[Keywords, ...] | None = None) -> tuple[Case, ...]:
    """The cases of a registered name, a class, or an instance (one case, itself).

    A class is built with ``examples``, else with the keywords that it names itself,

        contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"degree": 3})

    else with none, and a kernel once more with other numbers: a factor that its formula lacks does not show where it is
    1. Raises UnknownComponentError for a name that is not registered.
    """
    if isinstance(component, str):
        return _of_class(kind, find(kind, component).load(), component, examples)
    if isinstance(component, type):
        return _of_class(kind, component, component.__name__, examples)
    return (Case(kind, type(component).__name__, lambda: component),)


def construct(case: Case) -> Any:
    """Build the component of a case. Raises ContractError where its constructor fails; CapabilityError passes."""
    try:
        return case.build()
    except (CapabilityError, ContractError):
        raise
    except Exception as error:  # a stranger's constructor may fail in any way
        raise ContractError(
            f"the constructor failed: {type(error).__name__}: {error}",
            got=case.label,
            allowed=f"an instance from every set of keywords in {_EXAMPLES}",
            remedy="Repair the constructor, or the example.",
        ) from error


def construction(case: Case) -> Finding | None:
    """What is wrong with the class or its constructor; None when there is an instance to be checked."""
    try:
        construct(case)
    except ContractError as error:
        return Finding(case.label, "constructs", "failed", error.what, error.got, error.allowed, error.remedy)
    except CapabilityError as error:
        return Finding(case.label, "constructs", "skipped", str(error))
    return None


def check_members(kind: str, component: object) -> None:
    """Raise ContractError when the component's class lacks what the protocol of its kind asks for."""
    missing = missing_members(kind, type(component))
    if missing:
        raise ContractError(
            f"the class is no component of {kind}: it lacks {missing[0]}",
            got=f"{type(component).__name__}, without {'; '.join(missing)}",
            remedy="See kfpbench.protocols for the interface, and examples/ for a component in one file.",
        )


def members_check(kind: str) -> Check:
    """The first check of every kind."""
    law = "The class has the methods and data that the protocol of its kind asks for."
    return Check(kind, "has_the_members_of_its_protocol", law, lambda component: check_members(kind, component))


def _of_class(kind: str, component: type, name: str, examples: tuple[Keywords, ...] | None) -> tuple[Case, ...]:
    own = getattr(component, _EXAMPLES, None) if examples is None else examples
    if own is None:
        plain = Case(kind, name, lambda: _by_defaults(component))
        moved = _other_numbers(component) if kind == "kernels" else {}
        other = Case(kind, f"{name}({_written(moved)})", lambda: _by_other_numbers(component, moved))
        return (plain, other) if moved else (plain,)
    if not own or not all(isinstance(keywords, dict) for keywords in own):
        text = f"{_EXAMPLES} is not a tuple of dictionaries of keywords"
        return (Case(kind, name, lambda: _refuse(text, own)),)
    return tuple(_of_keywords(kind, component, name, keywords) for keywords in own)


def _of_keywords(kind: str, component: type, name: str, keywords: Keywords) -> Case:
    label = f"{name}({_written(keywords)})" if keywords else name
    return Case(kind, label, lambda: component(**keywords))


def _written(keywords: Keywords) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in keywords.items())


def _by_defaults(component: type) -> Any:
    try:
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]
    if needed:
        written = ", ".join(f'"{name}": ...' for name in needed)
        raise ContractError(
            f"{component.__name__} cannot be built without parameters, and names no {_EXAMPLES} to build it with",
            got=f"required parameters: {', '.join(needed)}",
            allowed=f"defaults for all parameters, or {_EXAMPLES} in the class",
            remedy=f"Give defaults, or add `{_EXAMPLES}: ClassVar[tuple[dict[str, Any], ...]] = ({{{written}}},)`.",
        )
    return component()


def _other_numbers(component: type) -> Keywords:
    """The numbers among a class's defaults, moved as their annotations allow: times 1.5, or 0.75, or by one."""
    constructor = next(vars(owner)["__init__"] for owner in component.__mro__ if "__init__" in vars(owner))
    try:
        hints = get_type_hints(constructor, include_extras=True)
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError, NameError, AttributeError):  # what cannot be read is not moved
        return {}
    moved: Keywords = {}
    for parameter in parameters:
        default = parameter.default
        if isinstance(default, bool) or not isinstance(default, (int, float)) or parameter.name not in hints:
            continue
        allowed = TypeAdapter(hints[parameter.name])
        for value in (1.5 * (default or 1.0), 0.75 * (default or 1.0), default + 1):
            with suppress(ValidationError):
                moved[parameter.name] = allowed.validate_python(value)
                break
    return moved


def _by_other_numbers(component: type, moved: Keywords) -> Any:
    try:
        return component(**moved)
    except Exception as error:  # a stranger's constructor may refuse numbers in any way: the defaults are checked
        raise CapabilityError(f"the constructor refuses these numbers: {type(error).__name__}: {error}") from error


def _refuse(what: str, got: object) -> Any:
    raise ContractError(what, got=got, allowed='such as ({}, {"degree": 3})')
