"""Real images: true test images are at the floor, training copies are found."""

from __future__ import annotations

import os

import numpy as np
import pytest

from kfpbench.data.cifar10 import Cifar10
from kfpbench.scoring.read_samples import read_samples
from kfpbench.scoring.score_samples import score_samples
from kfpbench.store.samples import to_levels

pytestmark = pytest.mark.skipif(
    not os.environ.get("KFPBENCH_DATA_DIR"), reason="set KFPBENCH_DATA_DIR to a folder with CIFAR-10 to run this"
)
N = 150
METRICS = ["frechet", "precision_recall", "nearest_train"]


@pytest.fixture(scope="module")
def cifar10():
    return Cifar10().load()


@pytest.fixture
def scored(tmp_path, cifar10):
    def score(rows):
        np.savez(tmp_path / "rows.npz", images=to_levels(rows).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return score_samples(read_samples(tmp_path / "rows.npz", cifar10), cifar10, metrics=METRICS)

    return score


def test_true_test_images_are_at_the_floor(cifar10, scored):
    result = scored(cifar10.test[-N:])
    assert result.rows["n"] == result.rows["equal_to_reference_rows"] == N
    assert result.rows["floor"] == f"{N} other rows of cifar10/test"
    for entry in result.measurements:
        floor = entry["floor"]
        assert entry["ci_low"] <= floor["ci_high"], entry["metric"]
        assert floor["ci_low"] <= entry["ci_high"], entry["metric"]
    assert result.findings == []
    assert {entry["features"] for entry in result.measurements} == {"cifar_cnn", "identity"}


def test_training_copies_are_found(cifar10, scored):
    result = scored(cifar10.train[1000 : 1000 + N])
    assert result.rows["equal_to_training_rows"] == N
    assert result.value("copied_fraction") == 1.0
    assert [finding["kind"] for finding in result.findings] == ["copies"]
    assert result.value("nearest_train_ratio") == 0.0  # exactly: 8-bit levels come back as the very floats
