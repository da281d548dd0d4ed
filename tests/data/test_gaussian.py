"""The Gaussian with a chosen spectrum, and mixtures on the line."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench.data.gaussian import Gaussian
from kfpbench.data.mixture1d import LineMixture
from kfpbench.errors import ParameterError

SIZES = {"train": 4000, "validation": 30, "test": 20}


@pytest.mark.parametrize(("d", "condition"), [(1, 9.0), (2, 50.0), (7, 1000.0), (5, 1.0)])
def test_the_spectrum_is_the_one_that_was_asked_for(d, condition):
    law = Gaussian(dimension=d, std=2.0, condition=condition, offset=3.0, **SIZES).load().law
    variances = np.linalg.eigvalsh(law.covariances[0])[::-1]
    assert variances[0] == pytest.approx(4.0)
    assert variances[-1] == pytest.approx(4.0 / (condition if d > 1 else 1.0))
    ratios = variances[1:] / variances[:-1]
    np.testing.assert_allclose(ratios, np.full(d - 1, condition ** (-1 / max(d - 1, 1))))
    assert np.linalg.norm(law.means[0]) == pytest.approx(3.0)
    np.testing.assert_array_equal(law.covariances[0], law.covariances[0].T)


def test_seeds_of_law_and_rows():
    one, other, elsewhere = (Gaussian(**SIZES, **seeds).load() for seeds in ({}, {"seed": 1}, {"law_seed": 1}))
    np.testing.assert_array_equal(one.law.covariances, other.law.covariances)
    assert not np.array_equal(one.law.covariances, elsewhere.law.covariances)
    assert len({one.fingerprint, other.fingerprint, elsewhere.fingerprint}) == 3
    assert Gaussian(**SIZES).load().fingerprint == one.fingerprint


@pytest.mark.parametrize("data", [Gaussian(dimension=3, **SIZES), LineMixture(**SIZES)], ids=["gaussian", "mixture1d"])
def test_rows_have_the_moments_of_the_law(data):
    loaded = data.load()
    law, rows = loaded.law, loaded.train.astype(np.float64)
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [4000, 30, 20]
    assert data.size() == rows.shape
    assert data.size("test") == loaded.for_reference("test").train.shape
    mean = law.weights @ law.means
    spread = law.means - mean
    covariance = np.einsum("k,kij->ij", law.weights, law.covariances + spread[:, :, None] * spread[:, None, :])
    white = np.linalg.solve(np.linalg.cholesky(covariance), (rows - mean).T).T
    # 5 standard errors of a mean, and of a variance whose fourth moment is at most 3 here
    assert np.abs(white.mean(0)).max() < 5 / np.sqrt(4000)
    assert np.abs(white.T @ white / 4000 - np.eye(rows.shape[1])).max() < 5 * np.sqrt(2 / 4000)


def test_weights_are_normalised():
    law = LineMixture(weights=(1.0, 3.0), means=(0.0, 1.0), stds=(0.1, 0.2), **SIZES).load().law
    np.testing.assert_allclose(law.weights, [0.25, 0.75])
    np.testing.assert_allclose(law.means, [[0.0], [1.0]])
    np.testing.assert_allclose(law.covariances, [[[0.01]], [[0.04]]])


@pytest.mark.parametrize(
    ("component", "keywords", "words"),
    [
        (Gaussian, {"std": 0.0}, "std must be positive"),
        (Gaussian, {"condition": 0.5}, "condition out of range"),
        (Gaussian, {"offset": -1.0}, "offset out of range"),
        (Gaussian, {"dimension": 0}, "dimension must be positive"),
        (Gaussian, {"seed": -1}, "seed must not be negative"),
        (LineMixture, {"weights": (0.5, 0.5)}, "equally many"),
        (LineMixture, {"weights": (0.5, 0.5, 0.0)}, "weights must be positive"),
        (LineMixture, {"stds": (0.5, -0.5, 0.1)}, "stds must be positive"),
        (LineMixture, {"weights": (), "means": (), "stds": ()}, "equally many"),
    ],
)
def test_impossible_parameters_are_refused(component, keywords, words):
    with pytest.raises(ParameterError, match=words):
        component(**keywords)
