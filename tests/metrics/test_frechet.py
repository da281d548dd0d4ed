from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from kfpbench.errors import NumericalError, ShapeError
from kfpbench.metrics.frechet import FrechetDistance, frechet_distance, frechet_gaussian


def covariance(rng, d):
    a = rng.standard_normal((d, d))
    return a @ a.T / d


def with_exact_moments(rng, n, mean, cov):
    """n rows whose sample mean and unbiased covariance are exactly those given."""
    z = rng.standard_normal((n, len(mean)))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / (n - 1)).T)
    return z @ np.linalg.cholesky(cov).T + mean


def test_commuting_covariances():
    # diagonal: sum_i (sqrt a_i - sqrt b_i)^2 + |m|^2
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 0.0])
    value = frechet_gaussian(np.zeros(3), np.diag(a), np.array([1.0, 2.0, 2.0]), np.diag(b))
    assert value == pytest.approx(9.0 + 4.0 + 1.0, rel=1e-12)


def test_general_covariances_against_the_matrix_square_root():
    rng = np.random.default_rng(0)
    c1, c2 = covariance(rng, 6), covariance(rng, 6)
    root = sqrtm(c1)
    expected = np.trace(c1 + c2 - 2 * np.real(sqrtm(root @ c2 @ root)))
    assert frechet_gaussian(np.zeros(6), c1, np.zeros(6), c2) == pytest.approx(expected, rel=1e-9)
    assert frechet_gaussian(np.zeros(6), c1, np.zeros(6), c1) == pytest.approx(0.0, abs=1e-12)


def test_rows_with_exact_moments_give_the_population_value():
    rng = np.random.default_rng(1)
    m1, m2, c1, c2 = np.zeros(5), rng.standard_normal(5), covariance(rng, 5), covariance(rng, 5)
    x, y = with_exact_moments(rng, 40, m1, c1), with_exact_moments(rng, 60, m2, c2)
    assert frechet_distance(x, y) == pytest.approx(frechet_gaussian(m1, c1, m2, c2), rel=1e-9)


def test_more_dimensions_than_rows_equals_the_covariance_formula(make_input):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((12, 30)), 1 + 2 * rng.standard_normal((12, 30))
    moments = [f(z) for z in (x, y) for f in (lambda z: z.mean(axis=0), lambda z: np.cov(z.T))]
    assert frechet_distance(x, y) == pytest.approx(frechet_gaussian(*moments), rel=1e-6)
    (result,) = FrechetDistance(features="identity").evaluate(make_input(x, y))
    assert result.details["rank_deficient"] is True
    assert "12 <= feature dimension 30" in result.details["rank_note"]
    assert result.value == pytest.approx(frechet_distance(x, y), rel=1e-5)


@pytest.mark.parametrize("d", [4, 40])
def test_permutation_and_translation(d):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, d)), rng.standard_normal((30, d)) * 1.5
    value = frechet_distance(x, y)
    assert frechet_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(x + 100, y + 100) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


def test_equal_rows_have_no_covariance(make_input):
    x, y = np.zeros((16, 3)), np.zeros((16, 3))
    y[:, 1] = 2.0
    (result,) = FrechetDistance(features="identity").evaluate(make_input(x, y))
    assert result.value == pytest.approx(4.0)
    (by_pca,) = FrechetDistance().evaluate(make_input(x, y))
    assert np.isfinite(by_pca.value)


def test_refuses_what_has_no_distance():
    good = np.zeros(2), np.eye(2)
    with pytest.raises(NumericalError, match="NaN or infinite"):
        frechet_gaussian(np.array([0.0, np.nan]), np.eye(2), *good)
    with pytest.raises(ShapeError):
        frechet_gaussian(np.zeros(3), np.eye(2), *good)
    with pytest.raises(NumericalError, match="2 of 4 rows, the first is row 1"):
        frechet_distance(np.array([[0.0], [np.inf], [1.0], [np.nan]]), np.zeros((4, 1)))


def test_finite_n_bias_is_estimated(make_input):
    # equal laws: the population value is 0 and the value is all bias; value - bias is nearer to 0 by far
    rng = np.random.default_rng(4)
    data = make_input(rng.standard_normal((600, 8)), rng.standard_normal((600, 8)))
    (result,) = FrechetDistance(features="identity").evaluate(data)
    assert result.details["finite_n_bias"] > 0
    assert abs(result.value - result.details["finite_n_bias"]) < 0.5 * result.value
