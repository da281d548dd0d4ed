"""The two official layouts of CIFAR-10, both decoded to records: one label byte and 3,072 pixel bytes.

Pixels are 1,024 red, 1,024 green and 1,024 blue, each 32x32 row by row: channel first. Binary files are
such records; Python files are pickled dictionaries with ``data`` (n, 3072) and ``labels``. Source: A.
Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the data set's web page.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.cifar10_files import Layout
from kfpbench.data.uint8_pickle import load_uint8_pickle
from kfpbench.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS  # bytes


def expected_size(layout: Layout, count: int) -> str:
    """What one batch file of ``count`` records holds, in words for an error message."""
    if layout == "binary":
        return f"{count * RECORD} bytes ({count} records of {RECORD})"
    return f"a pickle of more than {count * PIXELS} bytes ({count} images of {PIXELS})"


def decode_batch(layout: Layout, content: bytes, count: int, where: str) -> NDArray[np.uint8]:
    """The ``count`` records of one batch file, (count, 3073).

    Raises DataError when there are more or fewer, or one has an impossible label.
    """
    records = _from_binary(content, count, where) if layout == "binary" else _from_pickle(content, count, where)
    wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
    if len(wrong):
        raise DataError(
            f"record {wrong[0]} has an impossible label ({len(wrong)} of {count} records do)",
            got=int(records[wrong[0], 0]),
            allowed="0 to 9",
            remedy="The file is damaged, or of another data set (CIFAR-100 records have two label bytes).",
            where=where,
        )
    return records


def check_classes(layout: Layout, content: bytes, where: str) -> None:
    """Raises DataError when the file of class names does not list those of CIFAR-10 in their order."""
    if layout == "binary":
        names = content.decode("utf-8", errors="replace").split()
    else:
        listed = load_uint8_pickle(content, where).get("label_names")
        listed = listed if isinstance(listed, list) else []
        names = [n.decode("utf-8", errors="replace") if isinstance(n, bytes) else str(n) for n in listed]
    if tuple(names) != CLASSES:
        raise DataError("not the classes of CIFAR-10", got=names[:12], allowed=", ".join(CLASSES), where=where)


def _from_binary(content: bytes, count: int, where: str) -> NDArray[np.uint8]:
    if len(content) != count * RECORD:
        whole, rest = divmod(len(content), RECORD)
        raise DataError(
            "a batch of the wrong size",
            got=f"{len(content)} bytes: {whole} records and {rest} bytes",
            allowed=expected_size("binary", count),
            remedy="The file is damaged, cut short or of another data set.",
            where=where,
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(count, RECORD)


def _from_pickle(content: bytes, count: int, where: str) -> NDArray[np.uint8]:
    batch = load_uint8_pickle(content, where)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, PIXELS):
        raise DataError(
            "the pickle's `data` is not the images of one batch",
            got=f"shape {pixels.shape}, {pixels.nbytes} bytes" if isinstance(pixels, np.ndarray) else type(pixels),
            allowed=f"uint8 of shape ({count}, {PIXELS}), {count * PIXELS} bytes",
            where=where,
        )
    if not isinstance(labels, list) or len(labels) != count or not all(isinstance(i, int) for i in labels):
        raise DataError(
            "the pickle's `labels` is not one integer per image",
            got=f"{len(labels)} entries" if isinstance(labels, list) else type(labels),
            allowed=f"a list of {count} integers",
            where=where,
        )
    records = np.empty((count, RECORD), dtype=np.uint8)
    records[:, 0] = [label if 0 <= label < 256 else 255 for label in labels]  # 255: refused with its position
    records[:, 1:] = pixels
    return records
