"""CIFAR-10 from the official files in any layout: 50,000 training and 10,000 test images of 32x32 pixels."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.cifar10_files import BATCHES, META, Archive, Folder, find_source
from kfpbench.data.cifar10_layouts import CLASSES, PIXELS, RECORD, check_classes, decode_batch, expected_size
from kfpbench.data.dataset import Dataset, Reference
from kfpbench.data.decoded_cache import DecodedCache
from kfpbench.data.locations import data_places
from kfpbench.errors import DataError

_INEXACT = "inexact_records.csv"


class Cifar10:
    """Pixels x / 127.5 - 1 in [-1, 1], channel first: d = 3072, image_shape (3, 32, 32), labels and
    class names.

    The last 5,000 of the 50,000 training images are the validation rows; ``Dataset.for_reference("test")``
    gives them back to training. The fingerprint is the sha256 of all records as the binary layout has them,
    training then test, so it is the same for every layout of the same images, and ``cat data_batch_?.bin
    test_batch.bin | sha256sum`` shows it.

    Files are looked for in ``data_dir`` alone when it is given, else in ``$KFPBENCH_DATA_DIR``, its
    subfolder ``cifar10``, and the user's cache, where ``kfpbench data fetch cifar10`` puts them. In each
    the official files may lie openly, in ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` (each file
    plain, .gz or .xz), or in the official archive. What had to be decompressed or unpickled is kept decoded
    in the user's cache.

    Source: A. Krizhevsky, V. Nair, G. Hinton, "The CIFAR-10 dataset", 2009.
    """

    records_per_file: ClassVar[int] = 10_000  # six files; a subclass may state another for files it has made itself

    def __init__(self, data_dir: str | None = None) -> None:
        self.data_dir = data_dir

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of
        ``for_reference("test")``."""
        train = 5 * self.records_per_file
        return (train - self._validation_rows if reference == "validation" else train), PIXELS

    @property
    def _validation_rows(self) -> int:
        return self.records_per_file // 2

    def load(self) -> Dataset:
        """Find, check and read the files. About 1 GB of memory: 737 MB of rows, and the bytes they are
        made from.

        Raises DataError when the files are not found, incomplete, damaged or not CIFAR-10.
        """
        source = find_source(data_places("cifar10", self.data_dir))
        records, fingerprint = self._records(source)
        rows, labels = _rows(records[:, 1:]), records[:, 0].astype(np.int64)
        held = 5 * self.records_per_file
        train = held - self._validation_rows
        return Dataset(
            name="cifar10",
            train=rows[:train],
            validation=rows[train:held],
            test=rows[held:],
            image_shape=(3, 32, 32),
            train_labels=labels[:train],
            validation_labels=labels[train:held],
            test_labels=labels[held:],
            classes=CLASSES,
            source=f"CIFAR-10 (Krizhevsky, 2009), {source.layout} layout",
            fingerprint=fingerprint,
            notes=_notes(source.folder),
        )

    def identify(self) -> tuple[str, str]:
        """(where the files came from, fingerprint): found and checked as by ``load``, at a quarter of its memory."""
        source = find_source(data_places("cifar10", self.data_dir))
        return f"{source.layout} layout in {source.folder}", self._records(source)[1]

    def _records(self, source: Folder | Archive) -> tuple[NDArray[np.uint8], str]:
        """All records, (6 n, 3073), and their sha256: from the cache of decoded ones, or from the files."""
        if source.plain:
            return self._decoded(source)
        try:
            cache = DecodedCache(source.batch_files)
        except OSError as error:
            raise DataError(f"cannot be read: {error}", where=str(source.folder)) from error
        kept = cache.read((len(BATCHES[source.layout]) * self.records_per_file, RECORD))
        if kept is not None:
            return kept
        records, digest = self._decoded(source)
        cache.write(records, digest)
        return records, digest

    def _decoded(self, source: Folder | Archive) -> tuple[NDArray[np.uint8], str]:
        count, layout = self.records_per_file, source.layout
        contents = source.read(expected_size(layout, count))
        if META[layout] in contents:  # without it the data are whole: the names are known
            check_classes(layout, contents[META[layout]], source.where(META[layout]))
        records = np.concatenate(
            [decode_batch(layout, contents.pop(name), count, source.where(name)) for name in BATCHES[layout]]
        )
        return records, hashlib.sha256(records.data).hexdigest()


def _rows(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """x / 127.5 - 1, in blocks that stay in the processor's cache: faster than two passes over it all."""
    rows = np.empty(pixels.shape, dtype=np.float32)
    for start in range(0, len(rows), 256):
        block = rows[start : start + 256]
        np.divide(pixels[start : start + 256], np.float32(127.5), out=block, dtype=np.float32)
        block -= 1
    return rows


def _notes(folder: Path) -> tuple[str, ...]:
    """What a list of inexact records beside the files says of them."""
    try:
        with (folder / _INEXACT).open(newline="", encoding="utf-8") as file:
            splits = Counter(record.get("split") or "unnamed" for record in csv.DictReader(file))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return (f"{_INEXACT} lies beside the files and cannot be read: {error}",)
    counts = ", ".join(f"{count} {split}" for split, count in sorted(splits.items(), reverse=True))
    return (f"{splits.total()} records are declared inexact in {_INEXACT} ({counts or 'none'})",)
