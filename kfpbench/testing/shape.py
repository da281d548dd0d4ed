"""The light check of a class against the protocol of its kind: what it lacks, found without building it."""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from kfpbench import protocols
from kfpbench.errors import PluginError

_PROTOCOLS: dict[str, type] = {
    "datasets": protocols.DatasetPlugin,
    "processes": protocols.Process,
    "scores": protocols.ScorePlugin,
    "kernels": protocols.Kernel,
    "backends": protocols.Backend,
    "samplers": protocols.SamplerPlugin,
    "features": protocols.FeatureExtractor,
    "metrics": protocols.MetricPlugin,
}
KERNEL_FORMS = (("profile",), ("arguments", "jet"), ("block", "generator_block", "max_dim"))


def missing_members(kind: str, component: type) -> list[str]:
    """What a class lacks to be a component of that kind, in words; empty when its shape is right.

    Methods must exist and take the protocol's positional arguments; data must be a class attribute, an annotation, a
    field, or be assigned to ``self`` in a method. A class with ``__getattr__`` may have anything. Nothing is built or
    called. Cost O(size of the class), once for each class. Raises PluginError for an unknown kind.
    """
    return list(_missing(kind, component))


@functools.lru_cache(maxsize=512)
def _missing(kind: str, component: type) -> tuple[str, ...]:
    if hasattr(component, "__getattr__"):
        return ()
    protocol = _protocol(kind)
    present = set(_data(component))
    missing = []
    for name, member in _members(protocol):
        if not isinstance(member, FunctionType):
            if name not in present and not hasattr(component, name):
                missing.append(f"the attribute {name}")
            continue
        found = getattr(component, name, None)
        if found is None and name not in present:
            missing.append(f"the method {_written(name, member)}")
        elif found is not None and not callable(found):
            missing.append(f"{name} as a method ({_written(name, member)}), not as {type(found).__name__}")
        elif found is not None and not _takes(component, name, member):
            missing.append(f"the arguments of {_written(name, member)}: it has {name}{inspect.signature(found)}")
    if kind == "kernels" and not any(
        all(name in present or hasattr(component, name) for name in form) for form in KERNEL_FORMS
    ):
        missing.append("a formula: profile, or arguments and jet, or block, generator_block and max_dim")
    return tuple(missing)


def _protocol(kind: str) -> type:
    if kind == "eigensolvers":  # imports torch, as every eigensolver has
        from kfpbench.eigensolvers.eigenpairs import Eigensolver

        return Eigensolver
    if kind not in _PROTOCOLS:
        raise PluginError("unknown kind of component", got=kind, allowed=", ".join(protocols.KINDS))
    return _PROTOCOLS[kind]


def _members(protocol: type) -> Iterator[tuple[str, Any]]:
    """Data (None) and methods of a protocol."""
    for name in inspect.get_annotations(protocol):
        yield name, None
    for name, member in vars(protocol).items():
        if isinstance(member, FunctionType) and not name.startswith("_"):
            yield name, member


def _data(component: type) -> Iterator[str]:
    """Names that instances have as data, as far as the class shows."""
    for base in component.__mro__[:-1]:
        yield from inspect.get_annotations(base)
        if dataclasses.is_dataclass(base):
            yield from (field.name for field in dataclasses.fields(base))
        yield from getattr(base, "__slots__", ())
        for member in vars(base).values():
            function = getattr(member, "__func__", member)
            if isinstance(function, FunctionType):
                yield from (str(i.argval) for i in dis.get_instructions(function) if i.opname == "STORE_ATTR")


def _takes(component: type, name: str, wanted: FunctionType) -> bool:
    """Whether the method can be called with the protocol's arguments, all of them and the required ones alone."""
    bound = [p for p in inspect.signature(wanted).parameters.values()][1:]
    counts = {len(bound), sum(p.default is inspect.Parameter.empty for p in bound)}
    found = inspect.getattr_static(component, name)
    try:
        signature = inspect.signature(getattr(component, name))
    except (TypeError, ValueError):  # a builtin without a signature: nothing can be said
        return True
    own = 0 if isinstance(found, (staticmethod, classmethod)) else 1
    for count in counts:
        try:
            signature.bind(*[None] * (count + own))
        except TypeError:
            return False
    return True


def _written(name: str, member: FunctionType) -> str:
    parameters = list(inspect.signature(member).parameters)[1:]
    return f"{name}({', '.join(parameters)})"
