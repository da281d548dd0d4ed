"""Samples from anywhere as rows of a data set: a .npz, a .npy, or a folder of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import DataError, NumericalError, ParameterError, ShapeError
from kfpbench.scoring.array_file import StoredArray, read_array_file
from kfpbench.scoring.image_folder import read_image_folder
from kfpbench.scoring.image_layout import channels_first, resize
from kfpbench.scoring.value_range import ValueRange, decide_range
from kfpbench.store.run_folder import RunFolder

LEAST_ROWS = 8  # fewer have no interval
_BLOCK = 512


@dataclass(frozen=True)
class Samples:
    """Samples as they were read: ``values`` (m, d) in the order of the data set's rows, ``scale`` of images.

    ``name`` is that of the file or folder, ``read_as`` what was decided in reading it, ``sha256`` identifies the
    values: equal for equal images in equal types, whatever they were stored in.
    """

    name: str
    values: NDArray[Any]
    scale: ValueRange | None
    read_as: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float32]:
        """Those rows in the units of the data set (images: -1 is black, 1 is white), float32, nothing clipped."""
        values = self.values[index]
        return values.astype(np.float32) if self.scale is None else self.scale.to_model(values)


def read_samples(
    path: Path, dataset: Dataset, *, value_range: tuple[float, float] | None = None, resized: bool = False
) -> Samples:
    """Read the samples in ``path`` for a data set as loaded.

    ``value_range`` states what black and white are; by default it is decided (`value_range.decide_range`). ``resized``
    lets images of another size be resized. Files that kfpbench wrote must be of this data set, by their fingerprint.
    Raises DataError for what cannot be read, is not clear or was made for another data set, ShapeError for shapes that
    do not fit, NumericalError for NaN and infinities, ParameterError for options that points do not have.
    """
    where = str(path)
    if dataset.image_shape is None and (value_range is not None or resized):
        raise ParameterError(
            f"data set {dataset.name!r} holds points, which have neither a range of values nor a size in pixels",
            remedy="Leave out --range and --resize.",
        )
    stored, notes = _open(path, dataset)
    values = _numbers(stored.values, where)
    own = bool(stored.own)
    if own:
        _check_own(stored.own, dataset, where)
        notes.append("written by kfpbench; the fingerprint of its data set agrees")
        if stored.own.get("clipped"):
            notes.append(f"{stored.own['clipped']} values were clipped to [-1, 1] when the file was written")
    if dataset.image_shape is None:
        return _points(path, values, dataset, notes)
    scale = None
    if own and value_range is None and values.dtype == np.uint8:  # clear without a look: even where all are dark
        scale = ValueRange(0.0, 255.0, "uint8: levels 0 to 255")
    return _images(path, values, dataset.image_shape, value_range, scale, resized, notes)


def _open(path: Path, dataset: Dataset) -> tuple[StoredArray, list[str]]:
    where = str(path)
    if path.is_dir():
        if RunFolder.is_run(path):
            files = sorted(file.name for file in RunFolder(path).samples_path.glob("*.npz"))
            raise DataError(
                "this is a run folder, which holds the samples of many cells",
                got=f"{len(files)} files in samples/",
                allowed="one of them",
                remedy=f"Name one, such as {path / 'samples' / files[0]}." if files else "It holds no samples.",
                where=where,
            )
        if dataset.image_shape is None:
            raise DataError(
                f"a folder of images cannot be measured against points of {dataset.name!r}",
                allowed="a .npz or .npy file of rows",
                where=where,
            )
        folder = read_image_folder(path)
        return StoredArray(folder.images), [f"{len(folder.images)} images in natural order of name", *folder.notes]
    if not path.exists():
        raise DataError("there is no such file or folder", got=where, remedy="Check the path.")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise DataError(
            "not a file of samples",
            got=path.name,
            allowed=".npz, .npy, or a folder of PNG or JPEG images",
            remedy="Name the folder that holds the image."
            if path.suffix.lower() in (".png", ".jpg", ".jpeg")
            else None,
            where=where,
        )
    stored = read_array_file(path)
    return stored, [f"array {stored.key!r} of an npz" if stored.key else "a npy"]


def _numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    """The values where they are real, finite and enough. Raises DataError, ShapeError, NumericalError."""
    if values.dtype.kind not in "uif":
        raise DataError(
            "the samples are no real numbers",
            got=str(values.dtype),
            allowed="integers or floats",
            remedy="Store the images as uint8.",
            where=where,
        )
    if values.ndim < 2 or len(values) < LEAST_ROWS or values.size == 0:
        raise ShapeError(
            "too few samples to measure",
            got=values.shape,
            allowed=f"at least {LEAST_ROWS} rows or images",
            where=where,
        )
    if values.dtype.kind == "f":
        bad = 0
        for start in range(0, len(values), _BLOCK):
            part = values[start : start + _BLOCK]
            bad += int((~np.isfinite(part).reshape(len(part), -1).all(axis=1)).sum())
        if bad:
            raise NumericalError(
                "samples hold NaN or infinity",
                got=f"{bad} of {len(values)} rows",
                allowed="finite numbers",
                remedy="A sampler that diverges has no distance to the data: leave such rows out only if you say so.",
                where=where,
            )
    return values


def _check_own(own: dict[str, Any], dataset: Dataset, where: str) -> None:
    if own["fingerprint"] != dataset.fingerprint:
        raise DataError(
            "the samples were drawn for another data set",
            got=f"{own['dataset']!r} with fingerprint {str(own['fingerprint'])[:12]!r}",
            allowed=f"{dataset.name!r} with fingerprint {dataset.fingerprint[:12]!r}",
            remedy="Name that data set with --data and its parameters with --set.",
            where=where,
        )
    if own.get("nonfinite"):
        raise NumericalError(
            "the sampler made NaN or infinity, which the file holds as other values",
            got=f"{own['nonfinite']} values",
            allowed="0",
            remedy="Repair the sampler.",
            where=where,
        )


def _points(path: Path, values: NDArray[Any], dataset: Dataset, notes: list[str]) -> Samples:
    if values.ndim != 2 or values.shape[1] != dataset.dimension:
        raise ShapeError(
            f"the array does not hold points of {dataset.name!r}",
            got=values.shape,
            allowed=f"(n, {dataset.dimension})",
            remedy="Measure against another data set with --data.",
            where=str(path),
        )
    return Samples(path.name, values, None, (*notes, f"{values.dtype} rows as they stand"), _sha256(values))


def _images(
    path: Path,
    values: NDArray[Any],
    shape: tuple[int, int, int],
    value_range: tuple[float, float] | None,
    scale: ValueRange | None,
    resized: bool,
    notes: list[str],
) -> Samples:
    where = str(path)
    values, decisions = channels_first(values, shape, where, resized=resized)
    scale = decide_range(values, value_range, where) if scale is None else scale
    notes = [*notes, *decisions, scale.reason]
    if scale.outside:
        notes.append(f"{scale.outside} values lie outside {scale.low:g} to {scale.high:g} and are kept as they are")
    if values.shape[2:] != shape[1:]:
        values, words = resize(scale.to_model(values), shape[1], shape[2], where)
        notes.append(words)
        scale = ValueRange(-1.0, 1.0, "resized")
    rows = np.ascontiguousarray(values).reshape(len(values), -1)
    return Samples(path.name, rows, scale, tuple(notes), _sha256(rows))


def _sha256(values: NDArray[Any]) -> str:
    state = hashlib.sha256(f"{values.shape} {values.dtype.str}".encode())
    state.update(np.ascontiguousarray(values).data)
    return state.hexdigest()
