"""What for_reference and with_train_size promise, on data sets of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench.data.dataset import Dataset
from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import PlanarMixture, RingMixture
from kfpbench.errors import ParameterError
from kfpbench.protocols import DatasetPlugin

PLUGINS = [
    Digits(),
    RingMixture(train=300, validation=40, test=50),
    PlanarMixture(train=300, validation=40, test=50),
]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: type(plugin).__name__)
def test_reference_decides_what_is_trained_on(plugin):
    assert isinstance(plugin, DatasetPlugin)
    data = plugin.load()
    tuning, published = data.for_reference("validation"), data.for_reference("test")

    assert plugin.size() == plugin.size("validation") == tuning.train.shape
    assert plugin.size("test") == published.train.shape
    np.testing.assert_array_equal(published.train, np.concatenate([data.train, data.validation]))
    np.testing.assert_array_equal(published.reference("test"), data.test)
    np.testing.assert_array_equal(tuning.reference("validation"), data.validation)
    assert len(published.validation) == 0
    if data.train_labels is not None:
        np.testing.assert_array_equal(
            published.train_labels, np.concatenate([data.train_labels, data.validation_labels])
        )
        assert len(published.validation_labels) == 0
    for split in (data.train, data.validation, data.test):
        assert split.dtype == np.float32
        assert split.flags.c_contiguous


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: type(plugin).__name__)
def test_splits_are_disjoint(plugin):
    data = plugin.load()
    splits = [{row.tobytes() for row in split} for split in (data.train, data.validation, data.test)]
    assert sum(map(len, splits)) == len(data.train) + len(data.validation) + len(data.test)
    assert len(set.union(*splits)) == sum(map(len, splits))


def test_merging_twice_changes_nothing_and_merged_rows_are_no_reference():
    published = Digits().load().for_reference("test")
    assert published.for_reference("test") is published
    with pytest.raises(ParameterError, match="no validation rows"):
        published.for_reference("validation")
    with pytest.raises(ParameterError, match="no validation rows"):
        published.reference("validation")


def test_neighbouring_splits_are_merged_without_a_copy_and_others_with_one():
    rows = np.arange(24, dtype=np.float32).reshape(12, 2).copy()  # owns its memory, as loaded rows do
    neighbours = Dataset("x", train=rows[2:7], validation=rows[7:10], test=rows[10:])
    merged = neighbours.for_reference("test").train
    np.testing.assert_array_equal(merged, rows[2:10])
    assert np.shares_memory(merged, rows)

    apart = Dataset("x", train=rows[2:7], validation=rows[8:10], test=rows[10:])
    np.testing.assert_array_equal(apart.for_reference("test").train, rows[[2, 3, 4, 5, 6, 8, 9]])
    cut = neighbours.with_train_size(3)  # no longer neighbours
    np.testing.assert_array_equal(cut.for_reference("test").train, rows[[2, 3, 4, 7, 8, 9]])
    reshaped = Dataset("x", train=rows.reshape(-1)[:8].reshape(4, 2), validation=rows[4:6], test=rows[6:])
    np.testing.assert_array_equal(reshaped.for_reference("test").train, rows[:6])


@pytest.mark.parametrize("size", [0, -1, 301])
def test_impossible_train_size_is_refused(size):
    with pytest.raises(ParameterError, match="1 to 300"):
        PLUGINS[1].load().with_train_size(size)
