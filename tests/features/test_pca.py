"""Principal components and rows as features, and the cache of fits."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench.data.dataset import Dataset
from kfpbench.data.row_identity import training_key
from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.features import pca
from kfpbench.features.content_cache import ContentCache
from kfpbench.features.identity import Identity
from kfpbench.features.pca import PCA
from kfpbench.protocols import FeatureExtractor


def dataset(train, fingerprint=""):
    train = np.asarray(train, np.float32)
    return Dataset("toy", train, train[:2], train[:2], fingerprint=fingerprint)


def anisotropic(n, d, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.standard_normal((d, d)))[0] * np.geomspace(5, 0.1, d)
    return (3 + rng.standard_normal((n, d)) @ mixing.T).astype(np.float32)


def test_identity():
    rows = anisotropic(5, 3)
    extractor = Identity().fit(dataset(rows))
    np.testing.assert_array_equal(extractor.transform(rows), rows)
    assert extractor.transform(rows).dtype == np.float64
    assert isinstance(extractor, FeatureExtractor)
    with pytest.raises(ShapeError, match="another shape"):
        extractor.transform(rows[:, :2])
    assert extractor.describe() == {"features": "identity", "version": "identity/1", "resize": "none"}


def test_pca_against_the_singular_value_decomposition():
    rows = anisotropic(200, 10)
    fitted = PCA(components=4).fit(dataset(rows))
    assert isinstance(fitted, FeatureExtractor)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ vt[:4].T
    got = fitted.transform(rows)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=1e-8)
    explained = fitted.describe()["explained_variance"]
    assert explained == pytest.approx((s[:4] ** 2).sum() / (s**2).sum())
    axes = fitted._axes.axes
    assert (axes[np.abs(axes).argmax(axis=0), range(4)] > 0).all()


def test_pca_lanczos_equals_the_direct_solver(monkeypatch):
    covariance = np.cov(anisotropic(300, 64).astype(np.float64).T)
    direct = pca._leading_eigenvectors(covariance, 4)
    monkeypatch.setattr(pca, "_LANCZOS_ABOVE", 10)
    lanczos = pca._leading_eigenvectors(covariance, 4)
    np.testing.assert_allclose(lanczos[0], direct[0], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(lanczos[1] * direct[1], axis=0)), 1.0, rtol=1e-10)


def test_pca_single_precision_tiles(monkeypatch):
    rows = anisotropic(300, 20)
    mean = rows.mean(axis=0, dtype=np.float64)
    exact = pca._covariance(rows, mean)
    np.testing.assert_allclose(exact, np.cov(rows.astype(np.float64).T), rtol=1e-10, atol=1e-10)
    monkeypatch.setattr(pca, "_SINGLE_PRECISION_ABOVE", 0)
    monkeypatch.setattr(pca, "_TILE_ROWS", 64)
    np.testing.assert_allclose(pca._covariance(rows, mean), exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize(("n", "d", "used"), [(50, 3, 3), (5, 20, 4)])
def test_pca_uses_the_components_that_exist_and_says_so(n, d, used):
    fitted = PCA(components=64).fit(dataset(anisotropic(n, d)))
    assert fitted.transform(anisotropic(7, d)).shape == (7, used)
    assert fitted.describe()["components"] == used
    assert "64 asked for" in fitted.describe()["components_note"]
    assert "components_note" not in PCA(components=2).fit(dataset(anisotropic(n, d))).describe()


def test_pca_of_constant_rows_is_defined():
    fitted = PCA(components=2).fit(dataset(np.ones((10, 3))))
    np.testing.assert_allclose(fitted.transform(np.ones((4, 3), np.float32)), 0.0)


def test_pca_errors():
    with pytest.raises(ParameterError, match="not been fitted"):
        PCA().transform(np.zeros((2, 2), np.float32))
    with pytest.raises(ParameterError):
        PCA(components=0)
    with pytest.raises(ShapeError, match="two training rows"):
        PCA().fit(dataset(np.zeros((1, 4))))
    with pytest.raises(NumericalError, match="training rows"):
        PCA().fit(dataset([[0.0, np.nan], [1.0, 1.0]]))
    with pytest.raises(ShapeError, match="other columns"):
        PCA(2).fit(dataset(anisotropic(9, 3))).transform(np.zeros((2, 4), np.float32))


def test_fits_are_shared_by_content(monkeypatch):
    pca._fitted.clear()
    calls = []
    original = pca._principal_axes
    monkeypatch.setattr(pca, "_principal_axes", lambda *a: calls.append(1) or original(*a))
    rows = anisotropic(60, 5)
    for fingerprint in ("", "abc"):
        calls.clear()
        first = PCA(3).fit(dataset(rows, fingerprint))
        assert PCA(3).fit(dataset(rows.copy(), fingerprint))._axes is first._axes
        assert len(calls) == 1
        PCA(3).fit(dataset(rows[:30], fingerprint))  # cut by with_train_size: the fingerprint stays, the rows do not
        PCA(2).fit(dataset(rows, fingerprint))
        assert len(calls) == 3
    assert PCA(3)._axes is None


def test_cache_is_bounded_and_keeps_what_was_used_last():
    cache: ContentCache[int] = ContentCache(size=2)
    assert [cache.get(key, lambda key=key: key * 10) for key in (1, 2, 1, 3)] == [10, 20, 10, 30]
    assert len(cache) == 2
    assert cache.get(1, lambda: -1) == 10  # 2 was the oldest
    assert cache.get(2, lambda: -1) == -1


def test_training_key_tells_rows_apart():
    rows = anisotropic(100, 4)
    assert training_key("a", rows) == training_key("a", rows.copy())
    assert training_key("a", rows) != training_key("b", rows)
    assert training_key("a", rows) != training_key("a", rows[:50])
    assert training_key("", rows) != training_key("", rows + 1)
