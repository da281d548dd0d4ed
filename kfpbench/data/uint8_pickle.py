"""Read pickles of dictionaries with uint8 arrays, as the official CIFAR-10 files are, without running
their code.

A pickle is a program: it may name any importable function and call it. Here every global is refused except
the five that a pickled numpy array needs, and those five are answered by inert stand-ins, so that not even
numpy sees the file's arguments. The pure-Python machine of the standard library executes it: its memo is a
dictionary, where that of the C one is an array that a single opcode can grow to many gigabytes.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import DataError

# What the machine raises when the bytes are not a well-formed program.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def load_uint8_pickle(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary that a pickle holds; byte-string keys become str, arrays are read-only uint8 ndarrays.

    Python 2 strings come back as bytes. Raises DataError, naming ``where``, for a global other than those
    of a numpy array, for an array that is not uint8 or whose bytes do not fill its shape, and for damaged
    content.
    """
    try:
        if not content.endswith(pickle.STOP):  # cut in the midst of a global's name, it would look malicious
            raise pickle.UnpicklingError("the end is missing")
        value = _Unpickler(content, where).load()
    except _DAMAGE as error:
        raise DataError(
            f"not a readable pickle: {type(error).__name__}: {error}",
            got=f"{len(content)} bytes",
            remedy="The file is damaged or cut short: fetch or copy it again.",
            where=where,
        ) from error
    if not isinstance(value, dict):
        raise DataError("the pickle holds no dictionary", got=type(value).__name__, where=where)
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): item.value(where)
        if isinstance(item, _Array)
        else item
        for key, item in value.items()
    }


class _Dtype:
    """Stands for numpy.dtype('uint8'), the only one that is let through."""

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: one byte has none."""


class _Array:
    """Stands for numpy.ndarray; keeps the state that the pickle gives it."""

    def __init__(self) -> None:
        self._state: Any = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def value(self, where: str) -> NDArray[np.uint8]:
        """The array, or DataError when shape, type and bytes do not agree."""
        match self._state:
            case (int(), tuple() as shape, _Dtype(), bool() | int() as fortran, bytes() as content) if all(
                isinstance(size, int) and size >= 0 for size in shape
            ) and math.prod(shape) == len(content):
                flat = np.frombuffer(content, dtype=np.uint8)
                return flat.reshape(shape, order="F" if fortran else "C")
            case (_, shape, _, _, bytes() as content):
                detail: object = f"shape {shape}, {len(content)} bytes"
            case _:
                detail = "no array state"
        raise DataError("an array's bytes do not fill its shape", got=detail, where=where)


class _Unpickler(pickle._Unpickler):
    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._where = where
        self._to_encode = len(content)  # characters; a text may be named again and again by a few bytes of program

    def find_class(self, module: str, name: str, /) -> Any:
        """The stand-in for a global: bound methods and a class, none of which the program can alter."""
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return self._reconstruct
            case "numpy", "ndarray":
                return _Array
            case "numpy", "dtype":
                return self._dtype
            case "_codecs", "encode":
                return self._encode
        raise DataError(
            "the pickle names a global that a data file has no use for; nothing of it was executed",
            got=f"{module}.{name}",
            allowed="_reconstruct, ndarray and dtype of numpy, and _codecs.encode",
            remedy="Do not trust this file: fetch the official one.",
            where=self._where,
        )

    def _reconstruct(self, subtype: object, *_: object) -> _Array:
        if subtype is not _Array:
            raise ValueError("_reconstruct of something other than numpy.ndarray")
        return _Array()

    def _dtype(self, code: object, *_: object) -> _Dtype:
        if code not in ("u1", b"u1", "|u1", b"|u1"):
            raise DataError("the pickle holds an array that is not uint8", got=code, where=self._where)
        return _Dtype()

    def _encode(self, text: str, codec: object = "latin1") -> bytes:
        """Python 3 writes bytes as text for the old protocols."""
        if codec not in ("latin1", b"latin1"):
            raise ValueError(f"codec {codec!r}")
        self._to_encode -= len(text)
        if self._to_encode < 0:
            raise ValueError("more text than the file has bytes")
        return text.encode("latin-1")
