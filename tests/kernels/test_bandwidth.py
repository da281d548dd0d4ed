"""Bandwidths from data: the median distance and the maximum of the leave-one-out likelihood."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import NumericalError
from kfpbench.kernels.bandwidth import auto_length, max_likelihood_distance, median_distance

F64 = torch.float64
RULES = [median_distance, max_likelihood_distance, auto_length]


def draw(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=F64)


def log_likelihood(points: torch.Tensor, length: float) -> float:
    """sum_i log p_-i(x_i), written from the density estimate, without any of the implementation's steps."""
    density = torch.distributions.Normal(points[None, :, :], length)
    others = density.log_prob(points[:, None, :]).sum(-1).fill_diagonal_(-math.inf)
    return float((others.logsumexp(1) - math.log(len(points) - 1)).sum())


def clusters(widths: list[float], counts: list[int], seed: int = 0) -> torch.Tensor:
    """1-D clusters of these widths, 10 apart."""
    parts = [w * draw(n, 1, seed + k) + 10.0 * k for k, (w, n) in enumerate(zip(widths, counts, strict=True))]
    return torch.cat(parts)


SAMPLES = {
    "1-D": draw(60, 1),
    "2-D": draw(60, 2),
    "7-D": draw(40, 7),
    "anisotropic": draw(50, 3) * torch.tensor([1.0, 0.1, 0.01], dtype=F64),
    "far away": draw(50, 2) + 1e4,
    "two scales": clusters([1e-3, 0.5], [30, 30]),
    "grid": torch.linspace(-1.0, 1.0, 40, dtype=F64)[:, None],
    "three points": draw(3, 2),
}


@pytest.mark.parametrize("points", SAMPLES.values(), ids=SAMPLES.keys())
def test_max_likelihood_against_a_grid(points):
    """No length of a grid over 8 decades does better, and neither do close neighbours."""
    length = max_likelihood_distance(points)
    best = log_likelihood(points, length)
    spread = float(points.std())
    grid = torch.logspace(-6, 2, 200).tolist()
    assert max(log_likelihood(points, spread * share) for share in grid) <= best + 1e-8 * abs(best)
    for share in (0.99, 1.01):  # an interior maximum: strictly lower on both sides
        assert log_likelihood(points, share * length) < best


@pytest.mark.parametrize(("count", "seed", "gap"), [(6, 0, 0.05), (6, 2, 0.15), (8, 0, 0.07)])
def test_the_higher_of_two_maxima_is_taken(count, seed, gap):
    """Pairs of neighbours make two maxima, one within pairs, one across: a single search may end in the lower."""
    cloud = draw(count, 1, seed)
    points = torch.cat([cloud, cloud + gap * draw(count, 1, seed + 50).exp()])
    grid = torch.logspace(-3, 1, 400, dtype=F64).tolist()
    values = torch.tensor([log_likelihood(points, length) for length in grid])
    inner = values[1:-1]
    assert int(((inner > values[:-2]) & (inner > values[2:])).sum()) == 2
    assert max_likelihood_distance(points) == pytest.approx(grid[int(values.argmax())], rel=0.025)


def test_max_likelihood_of_two_points_is_their_distance():
    """LL = -s / (2 l^2) - d log l, twice: l^2 = s / d."""
    for dimension in (1, 4):
        points = draw(2, dimension)
        expected = float((points[0] - points[1]).norm()) / math.sqrt(dimension)
        assert max_likelihood_distance(points) == pytest.approx(expected, rel=1e-12)


def test_max_likelihood_of_a_simplex():
    """All distances are sqrt 2, so that E_i[s] = 2 whatever the weights: l^2 = 2 / d."""
    assert max_likelihood_distance(torch.eye(5, dtype=F64)) == pytest.approx(math.sqrt(2.0 / 5.0), rel=1e-12)


def test_max_likelihood_ignores_repetitions():
    points = draw(30, 2)
    assert max_likelihood_distance(points.repeat(3, 1)) == pytest.approx(max_likelihood_distance(points), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [1e-6, 0.3, 7.0, 1e6])
def test_scale_equivariance(rule, factor):
    points = draw(100, 3)
    assert rule(factor * points) == pytest.approx(factor * rule(points), rel=1e-6)
    assert rule(points + 5.0) == pytest.approx(rule(points), rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_order_does_not_matter(rule):
    points = draw(100, 3)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    assert rule(points[order]) == pytest.approx(rule(points), rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_many_rows_are_thinned_evenly(rule):
    """Rows that are not among the 1,000 evenly spaced ones are never looked at."""
    few = draw(1000, 2)
    many = torch.full((2997, 2), math.nan, dtype=F64)
    many[torch.linspace(0, 2996, 1000).long()] = few
    assert rule(many) == rule(few)


@pytest.mark.parametrize("rule", RULES)
def test_float32_points(rule):
    points = draw(50, 2).float()
    assert rule(points) == rule(points.double())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "points",
    [
        torch.ones(5, 2),
        torch.ones(1, 2),
        torch.ones(0, 2),
        torch.full((4, 2), math.nan),
        torch.tensor([[0.0], [math.inf]]),
        torch.tensor([[0.0], [math.nan], [1.0]]),
    ],
    ids=["equal", "one", "none", "nan", "infinity", "one nan"],
)
def test_degenerate_points(rule, points):
    with pytest.raises(NumericalError, match="all \\(nearly\\) equal, or not finite"):
        rule(points)


def test_pairs_that_differ_by_less_than_floats_can_square():
    points = torch.tensor([[0.0, 0.0], [1e-200, 0.0], [0.0, 1.0], [1e-200, 1.0]], dtype=F64)
    with pytest.raises(NumericalError):
        max_likelihood_distance(points)
