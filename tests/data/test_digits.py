"""The digits: their scale, and a split that never changes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from kfpbench.data.digits import Digits


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_rows_are_the_images_of_scikit_learn_scaled(digits):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    original = {(row.tobytes(), label) for row, label in zip(pixels.astype(np.float32), labels, strict=True)}
    rows = np.concatenate([digits.train, digits.validation, digits.test])
    ours = np.concatenate([digits.train_labels, digits.validation_labels, digits.test_labels])
    assert rows.min() == -1
    assert rows.max() == 1
    assert {(row.tobytes(), label) for row, label in zip((rows + 1) * 8, ours, strict=True)} == original
    assert digits.image_shape == (1, 8, 8)


def test_splits_are_stratified(digits):
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1097, 200, 500]
    total = np.bincount(np.concatenate([digits.train_labels, digits.validation_labels, digits.test_labels]))
    for labels in (digits.validation_labels, digits.test_labels):
        share = total * len(labels) / 1797
        assert np.all(np.abs(np.bincount(labels) - share) < 1)


def test_the_first_rows_of_every_split_are_a_fair_sample(digits):
    for labels in (digits.train_labels, digits.validation_labels, digits.test_labels):
        chi_squared = ((np.bincount(labels[:100], minlength=10) - 10) ** 2 / 10).sum()
        assert chi_squared < 27.9  # the 0.1 % point at 9 degrees of freedom


def test_split_is_the_published_one(digits):
    """If this fails, numbers that were published on this data set are no longer comparable."""
    content = hashlib.sha256()
    for split in (digits.train, digits.validation, digits.test):
        content.update(((split + 1) * 8).astype(np.uint8).tobytes())
    assert content.hexdigest() == "83ecc42d473caeb74f1d895f423e4dec53c9235d79d09494e664b04ba1e54fdd"
    assert digits.fingerprint == "9f19b1f1bab004175ff0566f7f0d9f536bda7c0bae819f1de5b0dc3ffee31a1c"
