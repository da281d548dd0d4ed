"""W2 between Gaussians against closed forms and an independent formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from kfpbench.errors import ShapeError
from kfpbench.exact.gaussian_w2 import gaussian_w2
from kfpbench.metrics.frechet import frechet_gaussian

ZERO = np.zeros(4)


def random_roots(seed, rows=4):
    return np.random.default_rng(seed).standard_normal((2, rows, 4))


def test_in_one_dimension():
    found = gaussian_w2(np.array([1.0]), np.array([[2.0]]), np.array([-2.0]), np.array([[-6.0]]))
    assert found == pytest.approx((3.0, 4.0))
    assert found.total == pytest.approx(5.0)


@pytest.mark.parametrize("diagonal", [True, False])
def test_commuting_covariances(diagonal):
    first, second = np.array([3.0, 0.5, 1e-6, 0.0]), np.array([1.0, 2.0, 1e-3, 0.1])
    axes = ortho_group.rvs(4, random_state=1)
    roots = (first, second) if diagonal else (first[:, None] * axes.T, second[:, None] * axes.T)
    found = gaussian_w2(ZERO, roots[0], ZERO, roots[1])
    assert found.covariance == pytest.approx(np.linalg.norm(first - second), rel=1e-12)


@pytest.mark.parametrize("rows", [2, 4, 9])  # a singular covariance, a square root, more draws than dimensions
def test_against_the_formula_of_traces(rows):
    first, second = random_roots(2, rows)
    mean = np.array([0.3, -1.0, 2.0, 0.0])
    found = gaussian_w2(mean, first, ZERO, second)
    c1, c2 = first.T @ first, second.T @ second
    assert found.total**2 == pytest.approx(frechet_gaussian(mean, c1, ZERO, c2), rel=1e-10)
    if rows >= 4:
        root = np.real(sqrtm(c1))
        bures = np.trace(c1 + c2 - 2 * np.real(sqrtm(root @ c2 @ root)))
        assert found.covariance**2 == pytest.approx(bures, rel=1e-9)


def test_only_the_covariance_of_a_root_counts():
    first, second = random_roots(3)
    turned = ortho_group.rvs(4, random_state=5) @ first
    assert gaussian_w2(ZERO, turned, ZERO, first).total < 1e-14
    assert gaussian_w2(ZERO, turned, ZERO, second).total == pytest.approx(gaussian_w2(ZERO, first, ZERO, second).total)


@pytest.mark.parametrize("gap", [1e-3, 1e-7, 1e-11])
def test_near_laws_are_told_apart(gap):
    # the formula of traces cannot see gaps below sqrt(eps) = 1.5e-8; condition number 1e6
    axes = ortho_group.rvs(4, random_state=6)
    deviations = np.array([1.0, 0.1, 0.01, 0.001])
    first = deviations[:, None] * axes.T
    second = ortho_group.rvs(4, random_state=7) @ ((deviations + gap * np.array([1, -1, 1, -1]))[:, None] * axes.T)
    # rounding of the roots, eps |R|, is all that is lost
    assert gaussian_w2(ZERO, first, ZERO, second).covariance == pytest.approx(2 * gap, rel=1e-6, abs=1e-14)


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match="do not fit"):
        gaussian_w2(ZERO, np.eye(3), ZERO, np.eye(4))
    with pytest.raises(ShapeError, match="do not fit"):
        gaussian_w2(ZERO, np.eye(4), np.zeros(3), np.eye(4))
