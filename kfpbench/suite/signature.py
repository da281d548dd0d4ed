"""Read the parameters of a component off its constructor signature."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

import kfpbench.protocols as protocols
from kfpbench.errors import PluginError
from kfpbench.suite.schema import StrictModel

PROTOCOL_KINDS: dict[type, str] = {
    protocols.DatasetPlugin: "datasets",
    protocols.Process: "processes",
    protocols.ScorePlugin: "scores",
    protocols.Kernel: "kernels",
    protocols.SamplerPlugin: "samplers",
    protocols.FeatureExtractor: "features",
    protocols.MetricPlugin: "metrics",
}
PARAMETER_KINDS = {
    "dataset": "datasets",
    "process": "processes",
    "score": "scores",
    "kernel": "kernels",
    "kernels": "kernels",
    "backend": "backends",
    "eigensolver": "eigensolvers",
    "sampler": "samplers",
    "refiner": "samplers",
    "start": "samplers",
    "features": "features",
    "metric": "metrics",
}
_PLAIN = (bool, int, float, str, bytes, complex, type(None))
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Nested:
    """A parameter that is itself a component (``kind``) or a dataclass of options (``options``)."""

    kind: str | None
    options: type | None = None
    many: bool = False  # a list of them
    optional: bool = False  # null is allowed
    required: bool = True
    default: Any = None  # as a suite would write it


@dataclass(frozen=True)
class Signature:
    """The parameters of one class: ``model`` validates the plain ones and lets the ``nested`` ones
    through."""

    component: type
    model: type[BaseModel]
    names: tuple[str, ...]
    nested: dict[str, Nested] = field(default_factory=dict)


def parameters(component: type) -> type[BaseModel]:
    """The parameters of a component as a pydantic model that refuses unknown keys and wrong types.

    Nested components and dataclasses of options appear as fields that accept any value: ``check_block``
    goes into them. Raises PluginError when the signature cannot be written in a suite.
    """
    return read_signature(component).model


@functools.cache
def read_signature(component: type) -> Signature:
    """The signature of a component or of a dataclass of options. Raises PluginError, naming the parameter."""
    fields: dict[str, Any] = {}
    nested: dict[str, Nested] = {}
    names: list[str] = []
    for parameter in _constructor_parameters(component):
        name = parameter.name
        annotation, plain_default = _annotation(component, parameter), _default(component, parameter)
        names.append(name)
        child = _nested(component, name, annotation, plain_default)
        if child is not None:
            nested[name] = child
            annotation, plain_default = Any, (_REQUIRED if child.required else None)
        elif annotation is None:
            raise _fault(component, name, f"its annotation {parameter.annotation!r} cannot be resolved")
        # a field may not be called like an attribute of BaseModel, a parameter of a component may
        safe = f"{name}_" if hasattr(BaseModel, name) else name
        alias = name if safe != name else None
        if plain_default is _REQUIRED:
            fields[safe] = (annotation, Field(alias=alias))
        else:
            fields[safe] = (annotation, Field(plain_default, alias=alias))
    # by the source's own name, so that the JSON Schema of two classes of one name does not clash
    try:
        model = create_model(component.__name__, __base__=StrictModel, __module__=component.__module__, **fields)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError) as error:
        raise PluginError(
            f"the parameters of {component.__qualname__} cannot be written in a suite: {error}",
            got=component.__module__,
            allowed="numbers, text, booleans, Literal, lists, dataclasses and components",
        ) from error
    return Signature(component, model, tuple(names), nested)


def _fault(component: type, parameter: str, reason: str) -> PluginError:
    return PluginError(
        f"parameter {parameter!r} of {component.__module__}:{component.__qualname__}: {reason}",
        remedy="Components are read off their constructor: give each parameter a name and an annotation.",
    )


def _constructor_parameters(component: type) -> list[inspect.Parameter]:
    owner = next(cls for cls in component.__mro__ if "__init__" in vars(cls))
    if owner is object or getattr(owner, "_is_protocol", False):
        return []  # a protocol's own __init__ takes anything, and means nothing
    found = list(inspect.signature(component).parameters.values())
    for parameter in found:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _fault(component, parameter.name, "it cannot be given by keyword")
        if parameter.name == "name" or parameter.name.startswith("_"):
            raise _fault(component, parameter.name, "that name is reserved in suites")
    return found


def _default(component: type, parameter: inspect.Parameter) -> Any:
    """The default of a parameter, made by its factory where a dataclass has one."""
    if dataclasses.is_dataclass(component):
        for declared in dataclasses.fields(component):
            if declared.name == parameter.name and declared.default_factory is not dataclasses.MISSING:
                return declared.default_factory()
    return parameter.default


def _annotation(component: type, parameter: inspect.Parameter) -> Any:
    """The type that a parameter is annotated with; None when a name in it is not importable at run time."""
    if parameter.annotation is _REQUIRED:
        return Any if parameter.name in PARAMETER_KINDS else None
    holder = type("holder", (), {"__annotations__": {parameter.name: parameter.annotation}})
    names = _namespace(component, parameter.name)
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return None


def _namespace(component: type, name: str) -> dict[str, Any]:
    """The globals in which the annotation was written, over the protocols, which many import for typing
    only."""
    owner = next((cls for cls in component.__mro__ if "__init__" in vars(cls)), component)
    if dataclasses.is_dataclass(component):
        declaring = [cls for cls in component.__mro__ if name in vars(cls).get("__annotations__", {})]
        owner = declaring[0] if declaring else owner
        names = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    else:
        names = getattr(inspect.unwrap(owner.__init__), "__globals__", {})  # type: ignore[misc]
    return {**vars(protocols), **names}


def _nested(component: type, name: str, annotation: Any, default: Any) -> Nested | None:
    """What a parameter nests, or None for a plain one. The annotation decides, and where it is silent the
    name."""
    leaves, many, optional = ([Any], name == "kernels", True) if annotation is None else _leaves(annotation, False)
    classes = [leaf for leaf in leaves if isinstance(leaf, type) and leaf not in _PLAIN]
    kind = next((PROTOCOL_KINDS[leaf] for leaf in classes if leaf in PROTOCOL_KINDS), None)
    if kind is None and (classes or Any in leaves or object in leaves):
        kind = PARAMETER_KINDS.get(name)
    options = next((leaf for leaf in classes if dataclasses.is_dataclass(leaf)), None)
    if kind is None and options is None:
        return None
    required = default is _REQUIRED
    written = None if required else _written(component, name, default, many, kind)
    # an unresolved annotation may have held `| None`; its default says whether it did
    optional = (annotation is not None and optional) or (not required and default is None)
    return Nested(kind, None if kind else options, many, optional, required, written)


def _leaves(annotation: Any, many: bool) -> tuple[list[Any], bool, bool]:
    """The alternatives of an annotation, whether they stand in a list, and whether None is one of them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _leaves(get_args(annotation)[0], many)
    if origin in (Union, types.UnionType):
        parts = [_leaves(part, many) for part in get_args(annotation)]
        leaves = [leaf for part in parts for leaf in part[0]]
        return leaves, any(part[1] for part in parts), any(part[2] for part in parts)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        inner = [_leaves(part, True)[0] for part in get_args(annotation) if part is not Ellipsis]
        return [leaf for leaves in inner for leaf in leaves], True, False
    if origin is Literal or origin is not None:
        return [], many, False
    return [annotation], many, annotation in (None, type(None))


def _written(component: type, name: str, default: Any, many: bool, kind: str | None) -> Any:
    """A default as a suite would write it: a name, a mapping, a list of those, or null."""
    if default is None:
        return None
    if many and isinstance(default, list | tuple):
        return [_written(component, name, item, False, kind) for item in default]
    if kind is not None and isinstance(default, str):
        return {"name": default}
    if isinstance(default, dict):
        return dict(default)
    if kind is None and dataclasses.is_dataclass(default) and not isinstance(default, type):
        signature = read_signature(type(default))
        values = {key: getattr(default, key) for key in signature.names}
        return signature.model.model_construct(**values).model_dump(mode="json", by_alias=True)
    raise _fault(component, name, f"its default {default!r} is neither a name nor None")
