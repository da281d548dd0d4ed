"""The state of a component as it was, to see afterwards what a call has changed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch


def snapshot(component: object) -> dict[str, Any]:
    """A deep copy of the component's attributes; one that cannot be copied is left out."""
    kept = {}
    for name, value in vars(component).items() if hasattr(component, "__dict__") else ():
        try:
            kept[name] = copy.deepcopy(value)
        except (TypeError, ValueError, RuntimeError):  # locks, generators, compiled code
            continue
    return kept


def changed(before: dict[str, Any], component: object) -> list[str]:
    """Names of the attributes whose content differs from the snapshot; attributes that are new are caches."""
    return [name for name, value in before.items() if not _same(value, getattr(component, name, None), 0)]


def _same(one: Any, other: Any, depth: int) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(_bits(one), _bits(other)))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key], depth + 1) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b, depth + 1) for a, b in zip(one, other, strict=True))
    if isinstance(one, (bool, int, str, bytes, type(None))):
        return bool(one == other)
    if hasattr(one, "__dict__") and not callable(one) and depth < 8:
        known = vars(one)
        return all(_same(value, vars(other).get(name), depth + 1) for name, value in known.items())
    return True  # functions and foreign objects: nothing can be said


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with NaN replaced, so that equal NaN are equal."""
    return torch.nan_to_num(tensor, nan=-1.2345678) if tensor.is_floating_point() else tensor
