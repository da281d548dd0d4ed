"""The samples nearest to the training images, and the picture of them."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kfpbench.data.digits import Digits
from kfpbench.features.pca import PCA
from kfpbench.metrics import nearest_rows
from kfpbench.metrics.authenticity import Authenticity
from kfpbench.metrics.energy_distance import EnergyDistance
from kfpbench.metrics.nearest_train import NearestTrain
from kfpbench.protocols import MetricInput
from kfpbench.runner.nearest_pairs import PAIRS, nearest_pairs
from kfpbench.store.sample_grid import GAP


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


@pytest.fixture(autouse=True)
def _cold_cache():
    nearest_rows._found.clear()


def test_the_most_suspicious_come_first_beside_their_training_image(digits):
    samples = digits.validation[:40].copy()
    samples[[7, 30]] = digits.train[[500, 3]]
    samples[30] += 0.001
    record, picture = nearest_pairs([NearestTrain()], digits, samples, digits.test[:40])
    assert record["sample"][:2] == [7, 30]
    assert record["train"][:2] == [500, 3]
    assert len(record["sample"]) == PAIRS
    assert record["distance"] == sorted(record["distance"])
    every = np.linalg.norm(digits.test[:40, None] - digits.train[None], axis=2).min(axis=1)
    assert record["median_held_out_distance"] == pytest.approx(float(np.median(every)), rel=1e-5)
    assert record["ratio"][0] == 0.0
    assert record["features"] == "identity"
    json.dumps(record)
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    above, below = pixels[GAP : GAP + 64, GAP : GAP + 64], pixels[2 * GAP + 64 : 2 * GAP + 128, GAP : GAP + 64]
    np.testing.assert_array_equal(above, below)  # the copy and its source


def test_the_search_of_a_metric_is_not_done_again(digits, monkeypatch):
    samples, reference = digits.validation[:30], digits.test[:30]
    metric = NearestTrain(features=PCA(components=10))
    metric.evaluate(MetricInput(samples, reference, digits.train, digits, "test", 0))
    monkeypatch.setattr(nearest_rows, "_nearest", None)  # a further search would fail
    record, _ = nearest_pairs([EnergyDistance(), metric, Authenticity()], digits, samples, reference)
    assert record["features_version"] == "pca-10/1"


def test_without_such_a_metric_components_are_searched_and_without_any_nothing(digits):
    samples, reference = digits.validation[:10], digits.test[:10]
    record, _ = nearest_pairs([EnergyDistance()], digits, samples, reference)
    assert record["features"] == "pca"
    assert nearest_pairs([], digits, samples, reference) is None
    assert nearest_pairs([NearestTrain()], replace(digits, image_shape=None), samples, reference) is None


def test_held_out_copies_leave_the_ratio_out(digits):
    samples = digits.validation[:10]
    record, picture = nearest_pairs([NearestTrain()], digits, samples, digits.train[:10])
    assert record["ratio"] == [None] * PAIRS
    assert picture.startswith(b"\x89PNG")


def test_fewer_samples_than_pairs(digits):
    record, _ = nearest_pairs([NearestTrain()], digits, digits.validation[:3], digits.test[:3])
    assert len(record["sample"]) == 3


def test_a_single_training_row_has_no_components(digits):
    record, _ = nearest_pairs([EnergyDistance()], digits.with_train_size(1), digits.validation[:3], digits.test[:3])
    assert record["features"] == "identity"
    assert record["train"] == [0, 0, 0]
