"""Selections of centres: their laws, against the definitions, and what they must never do."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.eigensolvers.centres import (
    kmeans_plus_plus_centres,
    pivoted_cholesky_centres,
    uniform_centres,
)
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.pairwise import kernel_block
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
KERNEL = RBF(bandwidth=1.0)
SELECTIONS = {
    "uniform": lambda x, w, m, seed: uniform_centres(x, m, seed),
    "kmeans++": kmeans_plus_plus_centres,
    "pivoted_cholesky": lambda x, w, m, seed: pivoted_cholesky_centres(x, w, KERNEL, TiledGram(32), m, seed),
}


def draws(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=F64)


def equal_weights(x: torch.Tensor) -> torch.Tensor:
    return x.new_full((len(x),), 1.0 / len(x))


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize(("count", "wanted"), [(300, 1), (300, 40), (300, 150), (5000, 140)])
def test_as_many_different_indices_as_asked_for(select, count, wanted):
    x = draws(count, 5)
    chosen = select(x, equal_weights(x), wanted, 0)
    assert len(chosen) == wanted == len(chosen.unique())
    assert torch.equal(chosen, chosen.sort().values)
    assert int(chosen[0]) >= 0
    assert int(chosen[-1]) < count
    assert torch.equal(chosen, select(x, equal_weights(x), wanted, 0))
    assert not torch.equal(chosen, select(x, equal_weights(x), wanted, 1))


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("wanted", [30, 31, 10**6])
def test_all_points_in_order(select, wanted):
    x = draws(30, 2)
    assert torch.equal(select(x, equal_weights(x), wanted, 0), torch.arange(30))


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_equal_rows_are_never_chosen_twice(select):
    """Also far from the origin, where distances by GEMM are rounded most."""
    for shift in (0.0, 1e3):
        x = (4.0 * draws(25, 3) + shift).repeat(8, 1)
        chosen = select(x, equal_weights(x), 60, 0)
        assert len(chosen) == 25
        assert len(x[chosen].unique(dim=0)) == 25


def frequencies(select, runs: int, count: int) -> torch.Tensor:
    return torch.stack([torch.bincount(select(seed), minlength=count) for seed in range(runs)]).double()


def assert_law(counts: torch.Tensor, expected: torch.Tensor) -> None:
    """Hoeffding: each frequency of an event in R runs is within t of its probability but for 2 exp(-2 R t^2)."""
    bound = math.sqrt(math.log(2.0 * counts.shape[1] / 1e-6) / (2.0 * len(counts)))
    assert float((counts.mean(0) - expected).abs().max()) < bound


def exact_law(first: torch.Tensor, step) -> torch.Tensor:
    """Probability that each of n indices is among three sequential draws: first (n,), then ~ step(chosen) (n,)."""
    total = torch.zeros_like(first)
    for i, p in enumerate(first):
        second = step([i])
        for j, q in enumerate(second / second.sum()):
            if q > 0:
                third = step([i, j])
                total += p * q * third / third.sum()
                total[j] += p * q
        total[i] += p
    return total


def test_kmeans_plus_plus_draws_by_squared_distance():
    x = torch.tensor([[0.0], [0.1], [0.3], [2.0], [2.2], [5.0]], dtype=F64)
    weights = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1], dtype=F64)
    squared = (x - x.T).square()
    expected = exact_law(weights, lambda chosen: weights * squared[:, chosen].amin(1))
    assert_law(frequencies(lambda seed: kmeans_plus_plus_centres(x, weights, 3, seed), 1200, 6), expected)


def test_pivoted_cholesky_draws_by_the_residual_diagonal():
    """Residuals by solving with the chosen block, K_ii - k_i^T K_SS^-1 k_i, apart from any factorisation."""
    x = torch.tensor([[0.0], [0.2], [0.5], [1.5], [1.8], [4.0]], dtype=F64)
    weights = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1], dtype=F64)
    gram = kernel_block(KERNEL, x, x)

    def residual(chosen: list[int]) -> torch.Tensor:
        inner = torch.linalg.solve(gram[chosen][:, chosen], gram[chosen])
        rest = (gram.diagonal() - (gram[chosen] * inner).sum(0)).clamp_min(0.0)
        rest[chosen] = 0.0
        return weights * rest

    expected = exact_law(weights, residual)

    def select(seed: int) -> torch.Tensor:
        return pivoted_cholesky_centres(x, weights, KERNEL, DenseGram(), 3, seed)

    assert_law(frequencies(select, 1200, 6), expected)


def test_uniform_draws_every_row_alike():
    x = draws(8, 2)
    assert_law(frequencies(lambda seed: uniform_centres(x, 3, seed), 1200, 8), torch.full((8,), 3.0 / 8.0, dtype=F64))


def residual_trace(x: torch.Tensor, chosen: torch.Tensor) -> float:
    cross = kernel_block(KERNEL, x, x[chosen])
    inner = kernel_block(KERNEL, x[chosen], x[chosen]) + 1e-12 * torch.eye(len(chosen), dtype=F64)
    return float(len(x) - (cross * torch.linalg.solve(inner, cross.T).T).sum())


def test_pivoted_cholesky_leaves_less_of_the_kernel_than_uniform():
    """A dense cluster and a thin spread: what the method is for."""
    x = torch.cat([0.02 * draws(950, 2), 3.0 * draws(50, 2, seed=1)])
    pivots = pivoted_cholesky_centres(x, equal_weights(x), KERNEL, DenseGram(), 40, 0)
    assert residual_trace(x, pivots) < 0.2 * residual_trace(x, uniform_centres(x, 40, 0))


def test_pivoted_cholesky_stops_where_the_kernel_is_used_up():
    x = torch.linspace(-1.0, 1.0, 400, dtype=F64)[:, None]
    chosen = pivoted_cholesky_centres(x, equal_weights(x), RBF(bandwidth=2.0), DenseGram(), 300, 0)
    assert 5 <= len(chosen) <= 30
