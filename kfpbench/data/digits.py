"""The 1,797 real 8x8 handwritten digits that come with scikit-learn: the image set that needs no download."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset, Reference
from kfpbench.errors import DataError

_TOTAL, _VALIDATION, _TEST = 1797, 200, 500


class Digits:
    """Pixels 0..16 scaled to [-1, 1]: d = 64, image_shape (1, 8, 8), labels 0..9.

    1,097 training, 200 validation and 500 test images, stratified by class. The split is a function of the
    image's index alone (sha256), so that it does not depend on any version of a random generator. Every
    split is in an order that mixes the classes, so that its first rows are a fair sample.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (its test part), UCI, 1998.
    """

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of
        ``for_reference("test")``."""
        return _TOTAL - _TEST - (_VALIDATION if reference == "validation" else 0), 64

    def load(self) -> Dataset:
        """Read the images from the installed scikit-learn.

        Raises DataError when that copy does not hold the 1,797 images.
        """
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        if pixels.shape != (_TOTAL, 64):
            raise DataError(
                "scikit-learn's digits do not have the known shape",
                got=pixels.shape,
                allowed=f"({_TOTAL}, 64)",
                remedy="Install a scikit-learn from 1.5 on.",
                where="data set 'digits'",
            )
        labels = labels.astype(np.int64)
        order, train, validation = _split(labels)
        pixels, labels = pixels[order].astype(np.uint8), labels[order]
        rows = pixels.astype(np.float32) / np.float32(8) - np.float32(1)
        held = train + validation
        content = hashlib.sha256(pixels.tobytes() + labels.astype(np.uint8).tobytes())
        return Dataset(
            name="digits",
            train=rows[:train],
            validation=rows[train:held],
            test=rows[held:],
            image_shape=(1, 8, 8),
            train_labels=labels[:train],
            validation_labels=labels[train:held],
            test_labels=labels[held:],
            classes=tuple(str(digit) for digit in range(10)),
            source="Optical Recognition of Handwritten Digits (UCI), as shipped with scikit-learn",
            fingerprint=content.hexdigest(),
        )


def _split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, int]:
    """An order of the images, training then validation then test, and the sizes of the first two."""
    ranked = _shuffled(len(labels), "split")
    counts = np.bincount(labels)
    for_test, for_validation = _shares(counts, _TEST), _shares(counts, _VALIDATION)
    part = np.zeros(len(labels), dtype=np.int64)
    for digit in range(len(counts)):
        members = ranked[labels[ranked] == digit]
        part[members[: for_test[digit]]] = 2
        part[members[for_test[digit] : for_test[digit] + for_validation[digit]]] = 1
    # In another order than the one that chose the split: by that one the training images of a class begin
    # where its held-out ones end, so that some classes would begin late.
    ranked = _shuffled(len(labels), "order")
    order = np.concatenate([ranked[part[ranked] == which] for which in range(3)])
    return order, int(np.sum(part == 0)), int(np.sum(part == 1))


def _shuffled(count: int, purpose: str) -> NDArray[np.int64]:
    """0 to count - 1 in the order of the sha256 of "digits <purpose> <index>"."""
    ranks = [hashlib.sha256(f"digits {purpose} {index}".encode()).digest() for index in range(count)]
    return np.array(sorted(range(count), key=ranks.__getitem__), dtype=np.int64)


def _shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """How many of ``total`` go to each class: proportional to ``counts``, by largest remainder (ties:
    lower class)."""
    floors, remainders = np.divmod(counts * total, counts.sum())
    extra = np.argsort(-remainders, kind="stable")[: total - floors.sum()]
    floors[extra] += 1
    return floors
