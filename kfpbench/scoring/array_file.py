"""Arrays from .npy and .npz files of unknown origin: nothing is unpickled, sizes are checked before data are read."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import DataError

MAX_BYTES = 4 * 2**30  # of one array, unpacked: 50,000 colour images of 32 x 32 pixels in float64 are 1.1 GiB
MAX_SMALL_BYTES = 2**20  # of one of the small arrays that kfpbench writes beside its samples
_KEYS = ("samples", "images")
_OWN = ("dataset", "fingerprint", "image_shape", "clipped", "nonfinite")  # beside samples in files that kfpbench writes
# NotImplementedError, RuntimeError: a compression or an encryption that zipfile does not undo
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
# what numpy lets through of a header that is no literal
_BAD_HEADER = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
_AGAIN = "The file is damaged or cut short: write or copy it again."


@dataclass(frozen=True)
class StoredArray:
    """An array of samples as a file holds it.

    ``key`` is its name in an npz, '' in an npy. ``own`` holds what kfpbench writes beside its samples (dataset,
    fingerprint, image_shape, clipped, nonfinite); empty for files from elsewhere.
    """

    values: NDArray[Any]
    key: str = ""
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_array_file(path: Path) -> StoredArray:
    """The samples in a .npy or .npz file.

    In an npz they are the array ``samples``, else ``images``, else the only one of two or more dimensions. Raises
    DataError for a file that is damaged or cut short, holds Python objects or text, more than 4 GiB, or several arrays
    that could be meant.
    """
    where = str(path)
    try:
        if path.suffix.lower() == ".npz":
            return _read_npz(path, where)
        with path.open("rb") as stream:
            return StoredArray(_read_member(stream, path.stat().st_size, where, MAX_BYTES))
    except _DAMAGE as error:
        raise DataError(f"cannot be read: {error}", remedy=_AGAIN, where=where) from error


def _read_npz(path: Path, where: str) -> StoredArray:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise DataError("an array stands twice in the file", got=archive.namelist(), remedy=_AGAIN, where=where)

        def read(name: str, limit: int) -> NDArray[Any]:
            with archive.open(members[name]) as stream:
                return _read_member(stream, members[name].file_size, f"{where}: {name}", limit)

        key = next((name for name in _KEYS if name in members), None)
        if key is None:
            headers = {}
            for name, info in members.items():
                with archive.open(info) as stream:
                    headers[name] = _read_header(stream, f"{where}: {name}")
            candidates = [name for name, header in headers.items() if len(header.shape) >= 2]
            if len(candidates) != 1:
                raise DataError(
                    "it is not clear which array holds the samples",
                    got={name: header.shape for name, header in headers.items()},
                    allowed="an array `samples` or `images`, or only one array of two or more dimensions",
                    remedy="Write the file again with np.savez(path, samples=array).",
                    where=where,
                )
            key = candidates[0]
        own = {}
        if key == "samples" and "fingerprint" in members and "dataset" in members:
            own = {name: read(name, MAX_SMALL_BYTES).tolist() for name in _OWN if name in members}
        return StoredArray(read(key, MAX_BYTES), key, own)


def _read_header(stream: IO[bytes], where: str) -> _Header:
    """The header of one array; the stream stands at its data afterwards."""
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"format version {version}, which only records with named fields need")
        shape, _, dtype = readers[version](stream)
    except _BAD_HEADER as error:
        raise DataError(f"not an array in numpy's format: {error}", remedy=_AGAIN, where=where) from error
    return _Header(shape, dtype)


def _read_member(stream: IO[bytes], size: int, where: str, limit: int) -> NDArray[Any]:
    """One array from a stream of ``size`` bytes; everything about it is checked before its data are read."""
    header = _read_header(stream, where)
    if header.dtype.hasobject:
        raise DataError(
            "the array holds Python objects, which would have to be unpickled: that can run code",
            got=str(header.dtype),
            allowed="numbers",
            remedy="Write it again as a plain array, such as uint8 (n, H, W, C).",
            where=where,
        )
    if header.data_bytes > limit:
        raise DataError(
            "the array is too large",
            got=f"{header.shape} of {header.dtype}, {header.data_bytes / 2**20:.1f} MiB",
            allowed=f"{limit / 2**20:g} MiB",
            remedy="Store fewer samples, or images as uint8.",
            where=where,
        )
    if size - stream.tell() != header.data_bytes:
        raise DataError(
            "the file does not hold as many bytes as its header promises",
            got=f"{size - stream.tell()} bytes of data",
            allowed=f"{header.data_bytes} bytes for {header.shape} of {header.dtype}",
            remedy=_AGAIN,
            where=where,
        )
    stream.seek(0)
    try:
        values: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"cannot be read: {error}", remedy=_AGAIN, where=where) from error
    return values
