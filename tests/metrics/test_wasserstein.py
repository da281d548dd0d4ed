from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from kfpbench.errors import CapabilityError, ParameterError, ShapeError
from kfpbench.features.pca import PCA
from kfpbench.metrics.frechet import frechet_gaussian
from kfpbench.metrics.wasserstein import Wasserstein, wasserstein


@pytest.mark.parametrize("d", [1, 2, 14])
@pytest.mark.parametrize("order", [1, 2])
def test_is_the_least_over_all_permutations(d, order):
    rng = np.random.default_rng(d)
    x, y = rng.standard_normal((6, d)) + 3, rng.standard_normal((6, d))
    gaps = np.linalg.norm(x[:, None] - y[None], axis=2) ** order
    least = min(gaps[np.arange(6), list(order_)].mean() for order_ in permutations(range(6))) ** (1 / order)
    assert wasserstein(x, y, order) == pytest.approx(least, rel=1e-10)


def test_one_dimension_against_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.exponential(size=(200, 1)), rng.standard_normal((200, 1))
    assert wasserstein(x, y, 1) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)


def test_a_shift_is_its_length(make_input):
    # the optimal map of a cloud to its own shift is that shift, for both orders
    rng = np.random.default_rng(1)
    y = rng.standard_normal((60, 3)).astype(np.float32)
    results = Wasserstein().evaluate(make_input(rng.permutation(y) + np.float32([2.0, 0.0, 0.0]), y))
    for result in results:
        assert result.value == pytest.approx(2.0, rel=1e-6)


def test_equals_the_distance_of_gaussians_in_one_dimension(make_input):
    # W_2 of N(1, 4) and N(0, 1) is sqrt(1 + 1); in one dimension the bias at n = 2000 is far below the interval
    rng = np.random.default_rng(2)
    (_, second) = Wasserstein().evaluate(
        make_input(1 + 2 * rng.standard_normal((2000, 1)), rng.standard_normal((2000, 1)))
    )
    truth = frechet_gaussian(np.ones(1), np.full((1, 1), 4.0), np.zeros(1), np.eye(1)) ** 0.5
    assert second.ci_low <= truth <= second.ci_high


def test_sizes_that_it_leaves_to_others(make_input):
    rng = np.random.default_rng(3)
    wide = make_input(rng.standard_normal((30, 40)), rng.standard_normal((30, 40)), rng.standard_normal((99, 40)))
    with pytest.raises(CapabilityError, match="40 features"):
        Wasserstein().evaluate(wide)
    assert Wasserstein(features=PCA(4)).evaluate(wide)[0].details["feature_dimension"] == 4
    many = make_input(rng.standard_normal((50, 2)), rng.standard_normal((50, 2)))
    with pytest.raises(CapabilityError, match="n = 50"):
        Wasserstein(max_rows=40).evaluate(many)
    line = make_input(rng.standard_normal((50, 1)), rng.standard_normal((50, 1)))
    assert len(Wasserstein(max_rows=40).evaluate(line)) == 2
    with pytest.raises(ParameterError):
        Wasserstein(max_rows=0)
    with pytest.raises(ShapeError):
        wasserstein(np.zeros((3, 1)), np.zeros((4, 1)), 1)
