"""The mixtures: samples obey the law they state, and the splits have streams of their own.

Thresholds are z-scores: with fixed seeds a test is deterministic, and 5 standard errors leave a chance of
6e-7 per comparison that a correct sampler would have been given an unlucky seed.
"""

from __future__ import annotations

from typing import get_type_hints

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import integrate, stats

from kfpbench.data.mixtures import PlanarMixture, RingMixture
from kfpbench.errors import ParameterError

Z = 5.0


@pytest.fixture(scope="module", params=[RingMixture(), PlanarMixture()], ids=["ring", "planar"])
def data(request):
    return request.param.load()


def moments(law):
    mean = law.weights @ law.means
    spread = law.means - mean
    return mean, np.einsum("k,kij->ij", law.weights, law.covariances) + np.einsum(
        "k,ki,kj->ij", law.weights, spread, spread
    )


def density(law, points):
    return sum(
        w * stats.multivariate_normal(m, c).pdf(points)
        for w, m, c in zip(law.weights, law.means, law.covariances, strict=True)
    )


def test_law_is_normalised(data):
    law = data.law
    assert law.weights.min() > 0
    assert law.weights.sum() == pytest.approx(1, abs=1e-14)
    assert np.linalg.eigvalsh(law.covariances).min() > 0
    np.testing.assert_array_equal(law.covariances, np.swapaxes(law.covariances, 1, 2))
    axis = np.arange(-9, 9, 0.05)  # a third of the smallest standard deviation: exact to far below the tolerance
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    mass = integrate.trapezoid(integrate.trapezoid(density(law, grid), axis), axis)
    assert mass == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_sample_moments_are_those_of_the_law(data, split):
    rows = getattr(data, split).astype(np.float64)
    mean, covariance = moments(data.law)
    centred = rows - mean
    assert np.all(np.abs(centred.mean(0)) < Z * np.sqrt(np.diag(covariance) / len(rows)))
    products = centred[:, :, None] * centred[:, None, :]
    standard_error = products.std(0) / np.sqrt(len(rows))
    assert np.all(np.abs(products.mean(0) - covariance) < Z * standard_error)


def test_every_component_has_its_weight_and_covariance(data):
    """Rows weighted by responsibility: averages over all rows whose expectation is known."""
    law, rows = data.law, data.test.astype(np.float64)
    for w, m, c in zip(law.weights, law.means, law.covariances, strict=True):
        responsible = w * stats.multivariate_normal(m, c).pdf(rows) / density(law, rows)
        statistics = responsible[:, None, None] * np.einsum("ni,nj->nij", rows - m, rows - m)
        for values, expected in ((responsible, w), (statistics, w * c)):
            error = np.abs(values.mean(0) - expected)
            assert np.all(error < Z * values.std(0) / np.sqrt(len(rows)))


def test_ring_has_its_modes_on_the_circle():
    law = RingMixture(modes=8, radius=4.0, std=0.3).load().law
    np.testing.assert_allclose(np.linalg.norm(law.means, axis=1), 4.0)
    np.testing.assert_allclose(law.means[[0, 2, 5]], [[4, 0], [0, 4], [-(8**0.5), -(8**0.5)]], atol=1e-12)
    np.testing.assert_allclose(law.covariances, np.tile(0.09 * np.eye(2), (8, 1, 1)))


def test_planar_mixture_is_irregular_and_its_law_has_a_seed_of_its_own():
    first, again = PlanarMixture(test=10).load(), PlanarMixture(test=10, seed=1).load()
    np.testing.assert_array_equal(first.law.means, again.law.means)
    assert not np.array_equal(first.train, again.train)
    assert len(set(first.law.weights)) == 6
    spread = np.linalg.eigvalsh(first.law.covariances)
    assert np.all(spread[:, 1] > 1.5 * spread[:, 0])
    assert not np.allclose(first.law.means, PlanarMixture(test=10, law_seed=1).load().law.means)


@pytest.mark.parametrize("plugin", [RingMixture, PlanarMixture])
def test_splits_have_streams_of_their_own(plugin):
    small = plugin(train=100, validation=50, test=20).load()
    more = plugin(train=500, validation=50, test=20).load()
    np.testing.assert_array_equal(small.validation, more.validation)
    np.testing.assert_array_equal(small.test, more.test)
    assert small.fingerprint == plugin(train=100, validation=50, test=20).load().fingerprint
    assert small.fingerprint != more.fingerprint
    assert not np.array_equal(small.train, plugin(train=100, validation=50, test=20, seed=1).load().train)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("std", 0.0),
        ("std", float("nan")),
        ("radius", -1.0),
        ("radius", float("inf")),
        ("modes", 0),
        ("train", 0),
        ("seed", -1),
    ],
)
def test_impossible_parameters_are_refused(name, wrong):
    with pytest.raises(ParameterError, match=name):
        RingMixture(**{name: wrong})
    if np.isfinite(wrong):  # the annotation, from which a suite's schema is made, refuses it too
        stated = get_type_hints(RingMixture.__init__, include_extras=True)[name]
        with pytest.raises(ValidationError):
            TypeAdapter(stated).validate_python(wrong)
