"""Find the official CIFAR-10 files and read their bytes, from a folder or from a tar archive, within
size limits.

Nothing is ever unpacked to disk. What the bytes mean is the matter of ``cifar10_layouts``.
"""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from kfpbench.errors import DataError

Layout = Literal["binary", "python"]

_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BATCHES: dict[Layout, tuple[str, ...]] = {"binary": tuple(f"{b}.bin" for b in _BATCHES), "python": _BATCHES}
META: dict[Layout, str] = {"binary": "batches.meta.txt", "python": "batches.meta"}
_FOLDER: dict[Layout, str] = {"binary": "cifar-10-batches-bin", "python": "cifar-10-batches-py"}
_COMPRESSIONS = ("", ".gz", ".xz")

# The official files hold at most 31.1 MB each and 186 MB together: what unpacks to more is no CIFAR-10.
MEMBER_LIMIT = 64 * 2**20
ARCHIVE_LIMIT = 256 * 2**20
_CHUNK = 2**20
_DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
_AGAIN = "The file is damaged or cut short: fetch or copy it again."


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Folder:
    """Six batch files in one folder; ``files`` maps each official name to the (possibly compressed) file."""

    layout: Layout
    folder: Path
    files: dict[str, Path]

    @property
    def plain(self) -> bool:
        """Whether reading needs neither decompression nor unpickling."""
        return self.layout == "binary" and all(path.suffix == ".bin" for path in self.batch_files)

    @property
    def batch_files(self) -> list[Path]:
        """The six files that hold images, in official order."""
        return [self.files[name] for name in BATCHES[self.layout]]

    def where(self, name: str) -> str:
        """What an error message calls the file of that official name."""
        return str(self.files[name])

    def read(self, expected: str) -> dict[str, bytes]:
        """Contents by official name; ``expected`` tells in an error what a batch holds. Raises DataError."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # decompression releases the interpreter
            contents = pool.map(lambda path: _read_file(path, expected), self.files.values())
            return dict(zip(self.files, contents, strict=True))


@dataclass(frozen=True)
class Archive:
    """The official tar archive of either layout."""

    layout: Layout
    path: Path
    plain = False

    @property
    def folder(self) -> Path:
        """The folder beside whose files notes about the data are looked for."""
        return self.path.parent

    @property
    def batch_files(self) -> list[Path]:
        """The files that hold images: the archive."""
        return [self.path]

    def where(self, name: str) -> str:
        """What an error message calls the member of that official name."""
        return f"{self.path}: {_FOLDER[self.layout]}/{name}"

    def read(self, expected: str) -> dict[str, bytes]:
        """Contents of the members by official name, in one pass. Raises DataError.

        A member that is a link, or whose name leaves the archive's folder, condemns the archive: no
        official one has any. ``expected`` says in an error how much a batch should hold.
        """
        wanted = {f"{_FOLDER[self.layout]}/{name}": name for name in (*BATCHES[self.layout], META[self.layout])}
        found: dict[str, bytes] = {}
        with _opened(self.path) as raw:
            stream = _Capped(raw, ARCHIVE_LIMIT, str(self.path))
            try:
                with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                    for member in tar:
                        name = wanted.get(_checked_name(member, self.path))
                        if name is None or member.isdir():
                            continue
                        if name in found:
                            raise DataError("the archive holds a member twice", got=name, where=str(self.path))
                        found[name] = _read_member(tar, member, self.where(name))
                while stream.read(_CHUNK):  # to the end: only there is the checksum of gzip and xz
                    pass
            except _DAMAGE as error:
                raise DataError(
                    f"cannot be read to its end: {error}",
                    got=f"{stream.total} bytes unpacked of a file of {self.path.stat().st_size}",
                    allowed=f"six batches of {expected}",
                    remedy=_AGAIN,
                    where=str(self.path),
                ) from error
        missing = [name for name in BATCHES[self.layout] if name not in found]
        if missing:
            raise DataError(
                f"the archive lacks {', '.join(missing)}",
                got=f"{stream.total} bytes unpacked of a file of {self.path.stat().st_size}",
                allowed=f"six batches of {expected}",
                remedy=_AGAIN,
                where=str(self.path),
            )
        return found


def find_source(places: Sequence[Path]) -> Folder | Archive:
    """The first complete set of files in these places.

    A place may be the folder of the files, hold a folder ``cifar-10-batches-*`` or an official archive, or
    be one. Raises DataError when there is none, listing the places, and when a place holds a part of a set.
    """
    for place in places:
        source = _source_in(place)
        if source is not None:
            return source
    raise DataError(
        "CIFAR-10 was not found",
        got="looked in " + ", ".join(str(place) for place in places),
        allowed="a folder with the official files, a cifar-10-batches-bin or -py, or an official archive",
        remedy="Run `kfpbench data fetch cifar10`, or point data_dir or $KFPBENCH_DATA_DIR at a copy.",
        where="data set 'cifar10'",
    )


def _source_in(place: Path) -> Folder | Archive | None:
    archives: dict[str, Layout] = {
        f"cifar-10-{layout}{ending}": layout for layout in BATCHES for ending in (".tar.gz", ".tgz", ".tar.xz", ".tar")
    }
    if os.path.isfile(place):
        layout = archives.get(place.name)
        return Archive(layout, place) if layout else None
    partial: list[str] = []
    for folder in (place, *sorted(place.glob("cifar-10-batches-*"))):
        for layout in BATCHES:
            files = _files_in(folder, (*BATCHES[layout], META[layout]))
            missing = [name for name in BATCHES[layout] if name not in files]
            if not missing:
                return Folder(layout, folder, files)
            if len(missing) < len(_BATCHES):
                partial.append(f"{folder} lacks {', '.join(missing)}")
    for name, layout in archives.items():
        if os.path.isfile(place / name):
            return Archive(layout, place / name)
    if partial:
        raise DataError(
            "an incomplete copy of CIFAR-10: " + "; ".join(partial),
            allowed="data_batch_1 to data_batch_5 and test_batch, each plain, .gz or .xz",
            remedy="Complete the copy, or remove it.",
            where="data set 'cifar10'",
        )
    return None


def _files_in(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    candidates = ((name, folder / (name + ending)) for name in names for ending in reversed(_COMPRESSIONS))
    return {name: path for name, path in candidates if os.path.isfile(path)}  # the plain one last: it wins


@contextmanager
def _opened(path: Path) -> Iterator[_Readable]:
    """The decompressed content as a stream; what the system refuses becomes a DataError."""
    try:
        if path.suffix in (".gz", ".tgz"):
            with gzip.open(path) as stream:
                yield stream
        elif path.suffix == ".xz":
            with lzma.open(path) as stream:
                yield stream
        else:
            with path.open("rb") as stream:
                yield stream
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def _read_file(path: Path, expected: str) -> bytes:
    content = bytearray()
    with _opened(path) as raw:
        stream = _Capped(raw, MEMBER_LIMIT, str(path))
        try:
            while chunk := stream.read(_CHUNK):
                content += chunk
        except _DAMAGE as error:
            raise DataError(
                f"cannot be unpacked to its end: {error}",
                got=f"at least {len(content)} bytes unpacked of a file of {path.stat().st_size}",
                allowed=expected,
                remedy=_AGAIN,
                where=str(path),
            ) from error
    return bytes(content)


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    if member.size > MEMBER_LIMIT:
        raise _too_large(f"a member of {member.size} bytes", MEMBER_LIMIT, where)
    stream = tar.extractfile(member)
    content = stream.read() if stream is not None else b""
    if len(content) != member.size:
        raise DataError(
            "cut short",
            got=f"{len(content)} bytes",
            allowed=f"{member.size} bytes",
            remedy=_AGAIN,
            where=where,
        )
    return content


def _checked_name(member: tarfile.TarInfo, archive: Path) -> str:
    """The member's name without a leading ``./``; refuses all but plain files and folders inside."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        fault = "a member whose name leaves the archive's folder"
    elif member.issparse() or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        fault = "a member that is a link or a special file"
    else:
        return str(name)
    raise DataError(
        f"the archive holds {fault}",
        got=member.name,
        allowed="plain files inside their folder",
        remedy="Do not trust this file: fetch the official one.",
        where=str(archive),
    )


class _Capped:
    """A stream that refuses to unpack to more than ``limit`` bytes, and counts them."""

    def __init__(self, stream: _Readable, limit: int, where: str) -> None:
        self._stream, self._limit, self._where = stream, limit, where
        self.total = 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self.total += len(chunk)
        if self.total > self._limit:
            raise _too_large(f"at least {self.total} bytes", self._limit, self._where)
        return chunk


def _too_large(got: str, limit: int, where: str) -> DataError:
    return DataError(
        "unpacks to far more than the official files hold",
        got=got,
        allowed=f"{limit} bytes",
        remedy="Do not trust this file: fetch the official one.",
        where=where,
    )
