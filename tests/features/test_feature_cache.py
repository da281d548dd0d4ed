"""Features are computed once for the metrics of a cell and for the cells of a run, and never mixed up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfpbench.data.dataset import Dataset
from kfpbench.features import feature_cache
from kfpbench.features.content_cache import ContentCache
from kfpbench.features.feature_cache import feature_key, features_of, forget_features
from kfpbench.features.identity import Identity
from kfpbench.features.pca import PCA
from kfpbench.metrics.density_coverage import DensityCoverage
from kfpbench.metrics.frechet import FrechetDistance
from kfpbench.metrics.inputs import extract, resolve_features
from kfpbench.metrics.precision_recall import PrecisionRecall
from kfpbench.protocols import MetricInput


def rows(count=40, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)


def dataset(train=None, fingerprint="here"):
    return Dataset("toy", rows(50, 9) if train is None else train, rows(9, 1), rows(9, 2), fingerprint=fingerprint)


def cell(samples, data=None, reference=None):
    data = dataset() if data is None else data
    return MetricInput(samples, rows(seed=7) if reference is None else reference, data.train, data, "test", 0)


@pytest.fixture
def transforms(monkeypatch):
    """The rows that PCA was asked to transform, from a cold cache on."""
    forget_features()
    seen = []
    honest = PCA.transform

    def counted(self, given):
        seen.append(given.copy())
        return honest(self, given)

    monkeypatch.setattr(PCA, "transform", counted)
    yield seen
    forget_features()


def test_three_metrics_of_five_cells_transform_each_cloud_once(transforms):
    """5 samples and their one reference: 6 transforms, where 5 x 3 x 2 would be made without a cache."""
    for seed in range(5):
        for metric in (FrechetDistance("pca"), PrecisionRecall(features="pca"), DensityCoverage(features="pca")):
            assert all(np.isfinite(each.value) for each in metric.evaluate(cell(rows(seed=seed))))
    assert len(transforms) == 6
    assert sum(np.array_equal(given, rows(seed=7)) for given in transforms) == 1


def test_values_are_those_of_a_cold_cache(transforms):
    cold = FrechetDistance("pca").evaluate(cell(rows()))
    assert FrechetDistance("pca").evaluate(cell(rows())) == cold
    forget_features()
    assert FrechetDistance("pca").evaluate(cell(rows())) == cold


def test_what_a_caller_does_to_features_stays_with_it(transforms):
    first, _, _ = extract(PCA(3), cell(rows()))
    kept = first.copy()
    first[:] = np.nan
    np.testing.assert_array_equal(extract(PCA(3), cell(rows()))[0], kept)
    assert len(transforms) == 2


@pytest.mark.parametrize(
    ("extractor", "data", "given"),
    [
        (PCA(2), dataset(), rows()),
        (PCA(3), dataset(rows(50, 8)), rows()),
        (PCA(3), dataset(rows(49, 9)), rows()),
        (PCA(3), dataset(fingerprint="there"), rows()),
        (PCA(3), dataset(), rows(39)),
        (PCA(3), dataset(), rows() + np.float32(1e-6)),
        (Identity(), dataset(), rows()),
    ],
)
def test_keys_tell_apart_what_features_depend_on(extractor, data, given):
    one, other = feature_key(PCA(3), dataset(), rows()), feature_key(extractor, data, given)
    assert one != other
    assert one.name != other.name
    assert one == feature_key(PCA(3), dataset(), rows().copy())


def test_a_key_is_the_same_in_another_process():
    """Text and hashes alone, so that files can be named after it."""
    code = "from tests.features.test_feature_cache import *; print(feature_key(PCA(3), dataset(), rows()).name)"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.split() == [feature_key(PCA(3), dataset(), rows()).name]


def test_fixed_features_are_shared_between_training_sets():
    class Fixed(Identity):
        costs_nothing = False

    assert feature_key(Fixed(), dataset(), rows()) == feature_key(Fixed(), dataset(rows(30, 8)), rows())
    assert feature_key(Fixed(), dataset(), rows()) != feature_key(Identity(), dataset(), rows())


def test_an_extractor_that_holds_more_than_numbers_and_text_is_not_cached():
    """Two of them share class and version, and their features differ."""

    class Weighted(Identity):
        version = "weighted/1"
        costs_nothing = False

        def __init__(self, weights):
            super().__init__()
            self.weights = weights

        def transform(self, given):
            return super().transform(given) * self.weights

    for weight in (1.0, 2.0):
        extractor = Weighted(np.full(6, weight))
        assert feature_key(extractor, dataset(), rows()) is None
        found = features_of(extractor, extractor.fit(dataset()), dataset(), rows())
        np.testing.assert_allclose(found, weight * rows().astype(np.float64))
    for weight in (1.0, 2.0):  # a plain number is part of the key
        extractor = Weighted(weight)
        np.testing.assert_allclose(
            features_of(extractor, extractor.fit(dataset()), dataset(), rows()), weight * rows().astype(np.float64)
        )


def test_rows_that_are_their_own_features_are_neither_hashed_nor_kept(monkeypatch):
    forget_features()
    monkeypatch.setattr(feature_cache, "digest", lambda given: pytest.fail("hashed"))
    extract(Identity(), cell(rows()))
    assert len(feature_cache._features) == 0


def test_memory_is_bounded_in_bytes():
    cache: ContentCache[np.ndarray] = ContentCache(size=10, most_bytes=1000)
    made = []

    def value(key, size):
        return cache.get(key, lambda: made.append(key) or np.zeros(size, np.uint8))

    value("a", 400), value("b", 400)
    assert len(cache) == 2
    value("a", 400), value("c", 300)  # b was used longest ago
    assert made == ["a", "b", "c"]
    assert len(cache) == 2
    value("large", 1001)  # never kept, and nothing is pushed out for it
    assert len(cache) == 2
    value("a", 400)
    assert made == ["a", "b", "c", "large"]
    value("b", 400)
    value("c", 300)
    assert made == ["a", "b", "c", "large", "b", "c"]
    value("whole", 1000)
    assert len(cache) == 1
    cache.clear()
    value("a", 400), value("b", 400)
    assert len(cache) == 2


def test_extractors_are_recognised_without_reading_their_version():
    class Unread:
        @property
        def version(self):
            raise AssertionError("the weights were loaded")

        def fit(self, data):
            return self

        def transform(self, given):
            return given

    assert isinstance(resolve_features(Unread()), Unread)
