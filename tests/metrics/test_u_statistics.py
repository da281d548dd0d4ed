"""Means of a kernel over pairs, and the variance of a two-sample U-statistic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.metrics.intervals import discrepancy_interval
from kfpbench.metrics.u_statistics import distance_block, kernel_means, two_sample_statistic


def product(a, b):
    return a @ b.T


def every(rows):
    return np.ones((1, len(rows)), bool)


@pytest.mark.parametrize("elements", [7, 10**6])
def test_means_are_those_of_the_matrix(elements):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 3)), rng.standard_normal((11, 3))
    half_x, half_y = np.arange(9) < 4, np.arange(11) < 5
    parts_x, parts_y = np.stack([every(x)[0], half_x]), np.stack([every(y)[0], half_y])
    full = x @ y.T
    means = kernel_means(product, x, y, parts_x, parts_y, elements)
    np.testing.assert_allclose(means.of_subsets, [full.mean(), full[np.ix_(half_x, half_y)].mean()], rtol=1e-12)
    np.testing.assert_allclose(means.of_rows, full.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(means.of_columns, full.mean(axis=0), rtol=1e-12)
    assert means.of_squares == pytest.approx((full**2).mean(), rel=1e-12)
    own, off = kernel_means(product, x, x, parts_x, parts_x, elements), ~np.eye(9, dtype=bool)
    matrix = x @ x.T
    np.testing.assert_allclose(own.of_rows, (matrix * off).sum(axis=1) / 8, rtol=1e-12)
    part = matrix[np.ix_(half_x, half_x)]
    np.testing.assert_allclose(own.of_subsets, [matrix[off].mean(), (part.sum() - np.trace(part)) / 12], rtol=1e-12)
    assert own.of_squares == pytest.approx((matrix[off] ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_variance_of_the_linear_kernel_is_the_known_one(shift):
    """k = x.y: the statistic estimates |mu|^2, and its variance follows from that of a mean.

    In d dimensions of variance 1: first = 8 |mu|^2 / n, second = 2 d (2 / (n (n - 1)) + 2 / n^2) by independence.
    """
    rng = np.random.default_rng(1)
    n, d, runs = 60, 4, 400
    firsts, seconds, values = [], [], []
    for _ in range(runs):
        x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d))
        x[:, 0] += shift
        (value,), (first, second) = two_sample_statistic(product, x, y, every(x), every(y))
        values.append(value)
        firsts.append(first)
        seconds.append(second)
    second = 2 * d * (2 / (n * (n - 1)) + 2 / n**2)
    assert np.mean(values) == pytest.approx(shift**2, abs=4.4 * np.std(values) / math.sqrt(runs))
    assert np.mean(seconds) == pytest.approx(second, abs=4.4 * np.std(seconds) / math.sqrt(runs) + 0.01 * second)
    if shift:
        exact = 8 * shift**2 / n
        assert np.mean(firsts) == pytest.approx(exact, abs=4.4 * np.std(firsts) / math.sqrt(runs))
    # without a first part the estimate of it is noise cut at 0; half-samples would give three times the variance
    assert 0.75 < (np.mean(firsts) + np.mean(seconds)) / np.var(values) < (1.35 if shift else 1.75)


def test_distances_and_few_rows():
    x = np.array([[0.0], [3.0], [4.0]])
    values, variances = two_sample_statistic(distance_block, x, x + 1.0, every(x), every(x))
    within, across = (3 + 4 + 1) / 3, (1 + 4 + 5 + 2 + 1 + 2 + 3 + 0 + 1) / 9
    assert values[0] == pytest.approx(2 * within - 2 * across)
    assert np.isnan(variances).all()


def test_score_interval_holds_what_the_value_does_not_reject():
    t = 1.9623  # quantile of Student's t with 999 degrees of freedom
    found = discrepancy_interval(2.0, 0.08, 0.02, np.zeros(20), 1000)
    for end in (found.low, found.high):  # the variance at D, by definition, is second + first D / value
        assert (2.0 - end) ** 2 == pytest.approx(t**2 * (0.02 + 0.04 * end), rel=1e-3)
    assert found.high - 2.0 > 2.0 - found.low
    symmetric = discrepancy_interval(-0.1, 0.08, 0.02, np.zeros(20), 1000)
    assert symmetric.high + 0.1 == pytest.approx(-0.1 - symmetric.low)
    assert discrepancy_interval(0.0, 0.0, 0.0, np.zeros(20), 9).high == 0.0
    assert discrepancy_interval(1.0, 0.1, 0.1, np.array([]), 5).low is None
