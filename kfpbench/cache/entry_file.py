"""One kept result as a safetensors file with a checksum of all that it says."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.cache.state import State
from kfpbench.errors import StoreError

_LONGEST_HEADER = 100_000_000  # that of safetensors itself
_FIELD, _CHECKSUM = "kfpbench_cache", "sha256"


@dataclass(frozen=True)
class About:
    """What an entry says of itself.

    ``seconds`` is what the result took when it was computed, ``made`` the time in UTC, ``parts`` what it is a function
    of, ``extra`` more numbers of its making.
    """

    kind: str
    name: str
    seconds: float
    made: str
    parts: dict[str, Any]
    extra: dict[str, Any]


def encode(about: About, state: State) -> bytes:
    """The content of the file: arrays by name, and in the header the entry, with the SHA-256 of both.

    Complex arrays are kept as pairs of reals. Raises TypeError or ValueError for what JSON cannot tell.
    """
    from safetensors.numpy import save

    arrays, complex_names = {}, []
    for name, array in state.arrays.items():
        plain = np.ascontiguousarray(array).reshape(array.shape)
        if plain.dtype.kind == "c":
            complex_names.append(name)
            plain = plain.view(plain.real.dtype).reshape(*array.shape, 2) if plain.ndim else _pair(plain)
        arrays[name] = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    # in the order of its making: a state counts its objects in it
    text = json.dumps({**vars(about), "tree": state.tree, "complex": complex_names}, allow_nan=False)
    return save(arrays, {_FIELD: text, _CHECKSUM: _checksum(text, arrays)})


def decode(content: bytes) -> tuple[About, State]:
    """What `encode` was given. Raises StoreError for anything that is damaged: no bit of a sound file may differ."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    metadata = _metadata(content)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise StoreError(f"not a safetensors file: {error}") from error
    text = metadata[_FIELD]
    if _checksum(text, arrays) != metadata[_CHECKSUM]:
        raise StoreError("the checksum is not that of the content")
    about, told = _about(text)
    for name in told["complex"]:
        pairs = arrays[name]
        arrays[name] = np.ascontiguousarray(pairs).view(np.result_type(pairs.dtype, np.complex64))[..., 0]
    for array in arrays.values():
        array.setflags(write=False)
    return about, State(told["tree"], arrays)


def read_about(path: Path) -> About:
    """What the header says, without the arrays and unchecked: for lists. Raises StoreError, OSError."""
    with path.open("rb") as file:
        start = file.read(8)
        length = _header_length(start, path.stat().st_size)
        return _about(_metadata(start + file.read(length))[_FIELD])[0]


def _pair(scalar: NDArray[Any]) -> NDArray[Any]:
    return np.array([scalar.real, scalar.imag])


def _checksum(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    state = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"\n{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        state.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return state.hexdigest()


def _header_length(start: bytes, size: int) -> int:
    if len(start) < 8:
        raise StoreError("the file is cut off")
    length = int(struct.unpack("<Q", start)[0])
    if length > min(_LONGEST_HEADER, size - 8):
        raise StoreError("the file is cut off, or has no header")
    return length


def _metadata(content: bytes) -> dict[str, str]:
    length = _header_length(content[:8], len(content))
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise StoreError(f"the header is damaged: {error}") from error
    found = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in (_FIELD, _CHECKSUM)):
        raise StoreError("not an entry of the cache: the header lacks its fields")
    return found


def _about(text: str) -> tuple[About, dict[str, Any]]:
    try:
        told = json.loads(text)
        rest = {name: told[name] for name in ("tree", "complex")}
        about = About(**{name: told[name] for name in About.__dataclass_fields__})
        if not isinstance(about.seconds, int | float) or not isinstance(about.kind, str):
            raise TypeError("seconds and kind")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"the header is damaged: {type(error).__name__}: {error}") from error
    return about, rest
