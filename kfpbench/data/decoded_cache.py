"""A cache of decoded uint8 records, so that compressed or pickled files are decoded once.

One entry is two files in the user's cache: the raw bytes, and a JSON header with the shape, the sha256 and
the sources (path, size, mtime) it was decoded from. Both are written to a temporary name and moved into
place, the header last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kfpbench.cache.location import user_cache

_log = logging.getLogger(__name__)

_VERSION = 1  # raise it when the meaning of the bytes changes


class DecodedCache:
    """The entry for one set of source files; one set has one entry, which newer sources replace.

    Holds what ``stat`` says of the sources when constructed, that is before they are read: sources that
    change while they are being decoded leave an entry that is not used.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        """Raises OSError when a source has vanished."""
        paths = [path.resolve() for path in sources]
        stats = [path.stat() for path in paths]
        self._sources = [[str(p), s.st_size, s.st_mtime_ns] for p, s in zip(paths, stats, strict=True)]
        name = hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()[:24]
        folder = user_cache() / "decoded"
        self.header, self.content = folder / f"{name}.json", folder / f"{name}.u8"

    def read(self, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], str] | None:
        """The records and their sha256 (hex), or None without an entry that is current and undamaged."""
        try:
            header = json.loads(self.header.read_bytes())
            if not isinstance(header, dict) or header != self._header(shape, header.get("sha256")):
                return None
            if self.content.stat().st_size != math.prod(shape):
                return None
            records = np.memmap(self.content, dtype=np.uint8, mode="r", shape=shape)
        except (OSError, ValueError):  # ValueError: not JSON
            return None
        digest = hashlib.sha256(records.data).hexdigest()
        intact = digest == header["sha256"]
        _log.info("decoded records %s: %s", "reused" if intact else "damaged, they are decoded again", self.content)
        return (records, digest) if intact else None

    def write(self, records: NDArray[np.uint8], digest: str) -> None:
        """Keep the records; a cache that cannot be written is done without."""
        with suppress(OSError):
            self.content.parent.mkdir(parents=True, exist_ok=True)
            self.header.unlink(missing_ok=True)  # no old header beside new content
            _write_atomically(self.content, np.ascontiguousarray(records).data.cast("B"))
            header = json.dumps(self._header(records.shape, digest)).encode()
            _write_atomically(self.header, memoryview(header))

    def _header(self, shape: tuple[int, ...], digest: object) -> dict[str, object]:
        return {"version": _VERSION, "shape": list(shape), "sha256": digest, "sources": self._sources}


def _write_atomically(path: Path, content: memoryview) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
