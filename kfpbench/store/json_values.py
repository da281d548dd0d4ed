"""Python values to strict JSON and back without loss: NaN, infinities and complex numbers are tagged objects.

JSON has no NaN. ``float("nan")`` is written ``{"$float": "nan"}`` (also ``"inf"``, ``"-inf"``), ``1+2j`` is
written ``{"$complex": [1.0, 2.0]}``, and a key of the user's own that starts with ``$`` gets one more ``$``.
So every value that `plain` accepts comes back equal, floats bit for bit (Python writes the shortest text that
identifies a double; only the payload of a NaN is lost).
"""

from __future__ import annotations

import json
import math
import os
from enum import Enum
from typing import Any

from kfpbench.errors import StoreError

_PLAIN = frozenset({str, int, bool, type(None)})
_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: Any, where: str = "value") -> Any:
    """A copy made of None, bool, int, float, complex, str, list and dict with text keys.

    Arrays, tensors and their scalars become lists and numbers, tuples lists, paths and enumeration members
    text and values. Raises StoreError, naming the place in ``where``, for anything else.
    """
    kind = type(value)
    if kind in _PLAIN:  # nearly all of what a record holds
        return value
    if kind is float:
        return math.nan if value != value else value
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, dict):
        return {_key(key, where): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy scalars come first: np.float64 is also a float
        listed = value.tolist()
        if type(listed) is not type(value):  # np.longdouble lists to itself: Python has no such number
            return plain(listed, where)
    if isinstance(value, float):
        return math.nan if math.isnan(value) else float(value)  # one NaN object: equal inside containers
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, complex):
        return complex(value)
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value), where)
    raise StoreError(
        "a value cannot be stored",
        got=type(value).__name__,
        allowed="None, bool, int, float, complex, str, list, tuple, dict, arrays, paths",
        remedy="Convert it to one of these before it is recorded.",
        where=where,
    )


def _key(key: Any, where: str) -> str:
    if type(key) is str:
        return key
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    raise StoreError("a key cannot be stored", got=type(key).__name__, allowed="text or an integer", where=where)


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON of a value, on one line unless ``indent`` is given; ASCII only. Raises StoreError as
    `plain` does.
    """
    return json.dumps(_tag(plain(value)), allow_nan=False, ensure_ascii=True, indent=indent)


def loads(text: str | bytes) -> Any:
    """The value that `dumps` wrote. Raises StoreError for text that is not strict JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        # a tag is a key that begins with $, which may also be written as an escape
        content = text.encode("utf-8", "replace") if isinstance(text, str) else text
        tagged = b"$" in content or b"\\u0024" in content
        return _untag(value) if tagged else value
    except (ValueError, TypeError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise StoreError(f"not strict JSON: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _tag(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, complex):
        return {"$complex": [_tag(value.real), _tag(value.imag)]}
    if isinstance(value, dict):
        return {f"${key}" if key.startswith("$") else key: _tag(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    return value


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$float":
            if item not in _NONFINITE:
                raise ValueError(f"unknown $float {item!r}")
            return _NONFINITE[item]
        if key == "$complex":
            real, imaginary = _untag(item)
            return complex(real, imaginary)
    return {key.removeprefix("$"): _untag(item) for key, item in value.items()}
