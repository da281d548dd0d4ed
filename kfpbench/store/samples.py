"""Generated samples on disk: one npz a cell, small enough to publish.

Images are stored as uint8 (n, C, H, W), level round(127.5 (x + 1)): what lies outside [-1, 1] is clipped and
counted, and a value comes back to within 1/255. Points are stored as float32 (n, d), exactly. Neither is
compressed: photographs and noise hardly shrink, and a plain npz can be mapped and read at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from kfpbench.errors import ShapeError, StoreError
from kfpbench.store.atomic import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset


def file_stem(cell_id: str) -> str:
    """A file name without suffix for a cell id; different ids give different names, and none leaves its
    folder.
    """
    return quote(cell_id, safe="=,+@")


def to_levels(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Images in [-1, 1] as levels 0 to 255; values outside are clipped, NaN becomes 0. Any shape."""
    levels = np.nan_to_num(127.5 * (np.asarray(images, dtype=np.float32) + 1.0), nan=0.0)
    return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)


def check_rows(rows: NDArray[np.floating], dataset: Dataset, what: str = "samples") -> None:
    """Raise ShapeError unless ``rows`` is (n, d) with the data set's d."""
    if rows.ndim != 2 or rows.shape[1] != dataset.dimension:
        raise ShapeError(
            f"{what} are not rows of {dataset.name!r}", got=rows.shape, allowed=f"(n, {dataset.dimension})"
        )


def write_samples(path: Path, samples: NDArray[np.float32], dataset: Dataset) -> None:
    """Write ``samples`` (n, d) atomically.

    Keys of the npz: samples, image_shape (empty for points), dataset, fingerprint, clipped (the number of
    values outside [-1, 1]; 0 for points) and nonfinite (the number of NaN and infinite values). Raises
    ShapeError.
    """
    samples = np.asarray(samples, dtype=np.float32)
    check_rows(samples, dataset)
    shape = dataset.image_shape
    finite = np.isfinite(samples)
    outside = int(np.count_nonzero(finite & (np.abs(samples) > 1.0))) if shape else 0
    stored = to_levels(samples).reshape(-1, *shape) if shape else samples
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            samples=stored,
            image_shape=np.array(shape or (), dtype=np.int64),
            dataset=np.array(dataset.name),
            fingerprint=np.array(dataset.fingerprint),
            clipped=np.array(outside),
            nonfinite=np.array(samples.size - int(np.count_nonzero(finite))),
        )


def read_levels(path: Path) -> NDArray[np.uint8]:
    """The samples of a file as they are stored: of images the levels (n, C, H, W). Raises StoreError."""
    return _stored(path)


def read_samples(path: Path) -> NDArray[np.float32]:
    """The rows (n, d) of a file that `write_samples` wrote; images again in [-1, 1]. Raises StoreError."""
    stored = _stored(path)
    if stored.dtype == np.uint8:
        return (stored.reshape(len(stored), -1).astype(np.float32) / 127.5 - 1.0).astype(np.float32)
    return stored.astype(np.float32)


def _stored(path: Path) -> NDArray:
    from zipfile import BadZipFile

    try:
        with np.load(path, allow_pickle=False) as content:
            found: NDArray = content["samples"]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise StoreError(f"not a file of samples: {error}", where=str(path)) from error
    return found
