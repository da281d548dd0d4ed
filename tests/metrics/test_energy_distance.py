from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm

from kfpbench.metrics.energy_distance import EnergyDistance, energies, energy_distance
from kfpbench.metrics.intervals import half_samples
from kfpbench.metrics.pairwise_distances import TILE_ELEMENTS, row_tiles


def brute_force(x, y):
    """The definition with loops over pairs."""
    n, m = len(x), len(y)
    across = sum(np.linalg.norm(a - b) for a in x for b in y) / (n * m)
    within_x = sum(np.linalg.norm(x[i] - x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(np.linalg.norm(y[i] - y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return 2 * across - within_x - within_y


def gaussian_shift(shift):
    """N(0, 1) against N(shift, 1): |X - Y| is a folded N(-shift, 2), and E|X - X'| = 2 / sqrt(pi)."""
    unfolded = shift * (1 - 2 * norm.cdf(-shift / math.sqrt(2)))
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + unfolded
    return 2 * folded - 2 * 2 / math.sqrt(math.pi)


@pytest.mark.parametrize("d", [1, 3, 12, 13, 40])
def test_equals_the_definition(d):
    rng = np.random.default_rng(d)
    x, y = 5 + rng.standard_normal((17, d)), 5 + rng.standard_normal((23, d)) * 2
    assert energy_distance(x, y) == pytest.approx(brute_force(x, y), rel=1e-12)


@pytest.mark.parametrize("d", [2, 20])
def test_tiles_and_subsets_equal_the_statistic_on_the_rows_themselves(d):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((51, d)), rng.standard_normal((51, d)) + 1
    halves = half_samples(51, seed=3, replicates=4).with_whole()
    whole = energies(x, y, halves.samples, halves.reference)[0]
    tiled = energies(x, y, halves.samples, halves.reference, elements=130)[0]
    by_hand = [energy_distance(x[a], y[b]) for a, b in zip(halves.samples, halves.reference, strict=True)]
    np.testing.assert_allclose(tiled, whole, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(whole, by_hand, rtol=1e-11, atol=1e-13)


def test_known_value_and_unbiasedness_for_shifted_gaussians():
    # the mean of 400 estimates at n = 10, where a V-statistic's bias would be 2/sqrt(pi) * 2/10 = 0.23
    rng = np.random.default_rng(2)
    for shift in (0.0, 1.5):
        values = [
            energy_distance(rng.standard_normal((10, 1)), rng.standard_normal((10, 1)) + shift) for _ in range(400)
        ]
        z = (np.mean(values) - gaussian_shift(shift)) / (np.std(values, ddof=1) / math.sqrt(400))
        assert abs(z) < 4.4  # two-sided 1e-5


def test_known_value_at_large_n(make_input):
    rng = np.random.default_rng(3)
    data = make_input(rng.standard_normal((4000, 1)), rng.standard_normal((4000, 1)) + 1.0)
    (result,) = EnergyDistance().evaluate(data)
    assert abs(result.value - gaussian_shift(1.0)) < 4.4 * result.details["sd"]
    assert result.ci_low < result.value < result.ci_high


def test_permutation_symmetry_and_translation():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((60, 30)), rng.standard_normal((60, 30)) + 0.3
    value = energy_distance(x, y)
    assert energy_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(value, rel=1e-11)
    assert energy_distance(y, x) == pytest.approx(value, rel=1e-12)
    assert energy_distance(x + 1e4, y + 1e4) == pytest.approx(value, rel=1e-8)


def test_equal_rows_give_their_distance(make_input):
    x, y = np.zeros((20, 20)), np.zeros((20, 20))
    y[:, 0] = 3.0
    (result,) = EnergyDistance().evaluate(make_input(x, y))
    assert result.value == pytest.approx(6.0)
    assert result.ci_low == pytest.approx(6.0)
    (same,) = EnergyDistance().evaluate(make_input(x, x))
    assert same.value == 0.0


def test_memory_stays_far_below_the_matrix_of_distances():
    rng = np.random.default_rng(5)
    n = 8000  # n x n doubles would be 512 MB
    x, y = rng.standard_normal((n, 2)), rng.standard_normal((n, 2))
    tracemalloc.start()
    energy_distance(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_tile_of_50_000_rows_is_a_tile():
    rows = np.zeros((50_000, 3))
    start, tile = next(row_tiles(rows, rows))
    assert start == 0
    assert tile.shape == (TILE_ELEMENTS // 50_000, 50_000)
    assert tile.nbytes < 17e6
