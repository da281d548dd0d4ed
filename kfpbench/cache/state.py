"""Objects as arrays and plain text, and back, without pickle: nothing in a file can name code that is then run.

An object is told as its class and its attributes; a file is read by making the object without calling its class and
setting these attributes. Classes are taken from the packages that the reader names, and nothing of them is called.
"""

from __future__ import annotations

import importlib
import math
import sys
from abc import ABC
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

OWN_PACKAGES = frozenset({"kfpbench", "kfpbench_baselines"})
_DEEPEST = 60
_TAGS = ("list", "tuple", "dict", "number", "array", "tensor", "dtype", "device", "class")
_PLAIN_BASES = (object, ABC, Generic, Protocol)
_NUMBERS = (np.bool_, np.integer, np.floating)


class NotKept(Exception):
    """The object holds what cannot be told as arrays and text: a function, an open file, a network."""


class State:
    """``tree``, plain values, and ``arrays`` by name: what `tell` makes of an object and `rebuild` makes it from."""

    def __init__(self, tree: Any = None, arrays: dict[str, NDArray[Any]] | None = None) -> None:
        self.tree = tree
        self.arrays: dict[str, NDArray[Any]] = {} if arrays is None else arrays


def tell(value: Any, given: Mapping[str, object] | None = None, packages: Collection[str] = OWN_PACKAGES) -> State:
    """The state of an object: arrays, tensors, numbers, text, containers, and objects of these.

    ``given`` names objects that the reader has itself (the data set, the score): they are told by name. ``packages``
    are those, or the single modules, that classes may come from, their bases included: classes of others may hold what
    their attributes do not show. An object that occurs twice is told once. Raises NotKept.
    """
    state = State()
    state.tree = _Teller(state, given or {}, packages).tell(value, 0)
    return state


def rebuild(state: State, given: Mapping[str, object] | None = None, packages: Collection[str] = OWN_PACKAGES) -> Any:
    """The object of a state. ``packages`` are the packages, or single modules, from which classes may come.

    Raises NotKept for a state that is not valid, or names a class from elsewhere. Arrays that were read-only are so.
    """
    try:
        return _Builder(state, given or {}, packages).build(state.tree, 0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ImportError, StopIteration) as error:
        raise NotKept(f"{type(error).__name__}: {error}") from error


class _Teller:
    def __init__(self, state: State, given: Mapping[str, object], packages: Collection[str]) -> None:
        self._state = state
        self._packages = packages
        self._names = {id(part): name for name, part in given.items()}
        self._told: dict[int, tuple[int, Any]] = {}  # by id: its number, and the object, so that the id stays its own
        self._open: set[int] = set()

    def tell(self, value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise NotKept("nested too deeply")
        if value is None or type(value) in (bool, str, int):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) is complex:
            return {"complex": [self.tell(value.real, depth), self.tell(value.imag, depth)]}
        if id(value) in self._names:
            return {"given": self._names[id(value)]}
        if id(value) in self._told:
            return {"again": self._told[id(value)][0]}
        if id(value) in self._open:
            raise NotKept("an object that holds itself")
        self._open.add(id(value))
        told = self._tell_new(value, depth + 1)
        self._open.discard(id(value))
        number = len(self._told)
        self._told[id(value)] = number, value
        return {"new": told}

    def _tell_new(self, value: Any, depth: int) -> Any:
        if type(value) in (list, tuple):
            return {"list" if type(value) is list else "tuple": [self.tell(part, depth) for part in value]}
        if type(value) is dict:
            return {"dict": [[self.tell(key, depth), self.tell(part, depth)] for key, part in value.items()]}
        if isinstance(value, _NUMBERS):
            return {"number": self._keep(np.asarray(value))}
        if type(value) is np.ndarray:
            locked = {} if value.flags.writeable else {"locked": True}
            return {"array": self._keep(value), **_order(value.strides, value.shape), **locked}
        torch = sys.modules.get("torch")
        if torch is not None:
            if type(value) is torch.Tensor:
                return self._tensor(value)
            if isinstance(value, torch.dtype):
                return {"dtype": str(value).removeprefix("torch.")}
            if isinstance(value, torch.device):
                return {"device": str(value)}
        return self._object(value, depth)

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        if value.requires_grad or value.is_sparse:
            raise NotKept("a tensor with a gradient, or a sparse one")
        try:
            array = value.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            raise NotKept(str(error)) from error
        return {"tensor": self._keep(array), "on": str(value.device), **_order(value.stride(), value.shape)}

    def _object(self, value: Any, depth: int) -> dict[str, Any]:
        cls = type(value)
        foreign = [
            base for base in cls.__mro__ if base not in _PLAIN_BASES and not _is_of(base.__module__, self._packages)
        ]
        if foreign or isinstance(value, type):
            raise NotKept(f"a {(foreign or [cls])[0].__module__}.{(foreign or [cls])[0].__qualname__}")
        slots = [name for part in cls.__mro__ for name in _slots(part)]
        if _found(cls.__module__, cls.__qualname__) is not cls:
            raise NotKept(f"the class {cls.__qualname__} cannot be found by its name")
        held = {
            **{name: getattr(value, name) for name in slots if hasattr(value, name)},
            **getattr(value, "__dict__", {}),
        }
        attributes = {name: self.tell(part, depth) for name, part in held.items()}
        return {"class": [cls.__module__, cls.__qualname__], "attributes": attributes}

    def _keep(self, array: NDArray[Any]) -> str:
        if array.dtype.hasobject or array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
            raise NotKept(f"an array of {array.dtype}")
        name = f"a{len(self._state.arrays)}"
        self._state.arrays[name] = array
        return name


class _Builder:
    def __init__(self, state: State, given: Mapping[str, object], packages: Collection[str]) -> None:
        self._arrays = state.arrays
        self._given = given
        self._packages = packages
        self._built: list[Any] = []

    def build(self, told: Any, depth: int) -> Any:
        if depth > 4 * _DEEPEST:
            raise NotKept("nested too deeply")
        if not isinstance(told, dict):
            return told
        (tag,) = told
        content = told[tag]
        if tag == "float":
            return float(content)
        if tag == "complex":
            return complex(*(self.build(part, depth + 1) for part in content))
        if tag == "given":
            return self._given[content]
        if tag == "again":
            return self._built[content]
        if tag != "new":
            raise NotKept(f"unknown tag {tag!r}")
        made = self._new(content, depth + 1)
        self._built.append(made)
        return made

    def _new(self, told: dict[str, Any], depth: int) -> Any:
        tag = next(tag for tag in _TAGS if tag in told)
        content = told[tag]
        if tag in ("list", "tuple"):
            parts = [self.build(part, depth) for part in content]
            return parts if tag == "list" else tuple(parts)
        if tag == "dict":
            return {self.build(key, depth): self.build(part, depth) for key, part in content}
        if tag == "number":
            return self._arrays[content][()]
        if tag == "array":
            return _in_order(self._arrays[content], told.get("order"), locked=told.get("locked", False))
        if tag == "class":
            return self._object(content, told["attributes"], depth)
        import torch

        if tag == "tensor":
            array = self._arrays[content]
            # a copy: torch wants memory that it may write to
            tensor = torch.from_numpy(np.array(array, order="C")).to(told["on"])
            order = told.get("order")
            return tensor if order is None else tensor.permute(order).contiguous().permute(*np.argsort(order).tolist())
        if tag == "dtype":
            if not isinstance(getattr(torch, content), torch.dtype):
                raise NotKept(f"no dtype {content!r}")
            return getattr(torch, content)
        return torch.device(content)

    def _object(self, name: list[str], attributes: dict[str, Any], depth: int) -> Any:
        module, qualname = name
        if not _is_of(module, self._packages):
            raise NotKept(f"a class from {module}, which is not part of this component")
        importlib.import_module(module)
        cls = _found(module, qualname)
        if not isinstance(cls, type) or cls.__module__ != module or issubclass(cls, BaseException):
            raise NotKept(f"no class {module}:{qualname}")
        made = object.__new__(cls)
        for attribute, part in attributes.items():
            object.__setattr__(made, attribute, self.build(part, depth))
        return made


def _is_of(module: str, packages: Collection[str]) -> bool:
    return module in packages or module.partition(".")[0] in packages


def _slots(cls: type) -> tuple[str, ...]:
    names = cls.__dict__.get("__slots__", ())
    return tuple(one for one in ((names,) if isinstance(names, str) else names) if not one.startswith("__"))


def _found(module: str, qualname: str) -> object:
    found: object = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _order(strides: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, list[int]]:
    """The axes from the slowest to the fastest in memory, where that is not their own order.

    Products of a transposed matrix may round otherwise than those of its copy: what is rebuilt lies as it lay.
    """
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    significant = [axis for axis in order if shape[axis] > 1]
    return {} if significant == sorted(significant) else {"order": order}


def _in_order(array: NDArray[Any], order: list[int] | None, *, locked: bool) -> NDArray[Any]:
    if order is None:
        made = array if locked else array.copy()
    else:
        made = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    made.setflags(write=not locked)
    return made
