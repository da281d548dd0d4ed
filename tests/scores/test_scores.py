"""Every score against the gradient of its explicit log density, and what the empirical score must tend to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.data.mixtures import PlanarMixture
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores.empirical import EmpiricalScore
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.scores.mixture import MixtureScore

CPU = torch.device("cpu")
LEVELS = [(1.0, 0.05), (1.0, 1.0), (1.0, 80.0), (0.3, 0.954), (0.95, 0.3), (2.0, 0.5)]
at_levels = pytest.mark.parametrize(("alpha", "sigma"), LEVELS)


def random_law(dimension: int, components: int, seed: int) -> Mixture:
    """A mixture with unequal weights and full, anisotropic covariances."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((components, dimension, dimension)) / math.sqrt(dimension)
    covariances = factors @ factors.swapaxes(1, 2) + 0.02 * np.eye(dimension)
    return Mixture(rng.dirichlet(np.ones(components)), 2.0 * rng.standard_normal((components, dimension)), covariances)


def dataset(law: Mixture | None = None, rows: np.ndarray | None = None, count: int = 300, seed: int = 0) -> Dataset:
    if rows is None:
        assert law is not None
        rows = law.sample(count, np.random.default_rng(seed))
    rows = np.asarray(rows, np.float32)
    return Dataset("toy", rows, rows[:1], rows[:1], law=law)


def bind(plugin: ScorePlugin, data: Dataset, dtype: torch.dtype = torch.float64) -> BoundScore:
    return plugin.bind(data, CPU, dtype)


def noised(data: Dataset, alpha: float, sigma: float, count: int = 40, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    origin = torch.as_tensor(data.train[:count], dtype=torch.float64)
    return alpha * origin + sigma * torch.randn(origin.shape, generator=generator, dtype=torch.float64)


def log_density(law: Mixture, x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """log p_t of alpha x_0 + sigma eps, x_0 from the mixture, by torch.distributions: independent of our formulas."""
    weights, means, covariances = (torch.as_tensor(part) for part in (law.weights, law.means, law.covariances))
    noise = sigma**2 * torch.eye(means.shape[1], dtype=torch.float64)
    parts = MultivariateNormal(alpha * means, alpha**2 * covariances + noise).log_prob(x[:, None, :])
    return torch.logsumexp(weights.log() + parts, dim=1)


def gradient(function, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(function(x).sum(), x)[0]


def assert_close(actual: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    """Largest error relative to the largest entry."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= relative * float(expected.abs().max())


def naive_denoiser(rows: np.ndarray, x: torch.Tensor, alpha: float, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and weights over the rows by the definition, in float64 with explicit differences."""
    rows64 = torch.as_tensor(rows, dtype=torch.float64)
    squared = (x.double()[:, None, :] - alpha * rows64[None]).square().sum(-1)
    weights = torch.softmax(-squared / (2.0 * sigma**2), dim=1)
    return weights @ rows64, weights


# ---- against the explicit density ----


@at_levels
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_mixture_score_is_the_gradient_of_the_log_density(dimension, alpha, sigma):
    law = random_law(dimension, 4, seed=dimension)
    data = dataset(law)
    x = noised(data, alpha, sigma)
    expected = gradient(lambda z: log_density(law, z, alpha, sigma), x)
    # the score is (alpha D - x) / sigma^2: its rounding is that of x / sigma^2
    assert_close(bind(MixtureScore(), data).score(x, alpha, sigma), expected, 1e-10)


@at_levels
def test_gaussian_score_is_the_gradient_of_the_log_density(alpha, sigma):
    data = dataset(random_law(3, 2, seed=5))
    rows = data.train.astype(np.float64)
    law = Mixture(np.ones(1), rows.mean(0)[None], np.cov(rows.T, bias=True)[None])
    x = noised(data, alpha, sigma)
    expected = gradient(lambda z: log_density(law, z, alpha, sigma), x)
    # the covariance is added up from float32 products: eps(float32) times the sum of some hundred rows' rounding
    assert_close(bind(GaussianScore(), data).score(x, alpha, sigma), expected, 1e-5)


@at_levels
def test_gaussian_equals_the_mixture_of_one_component(alpha, sigma):
    data = dataset(random_law(4, 3, seed=2))
    moments = training_moments(data)
    covariance = moments.basis @ np.diag(moments.variances) @ moments.basis.T
    one = dataset(Mixture(np.ones(1), moments.mean[None], covariance[None]), rows=data.train)
    x = noised(data, alpha, sigma)
    expected = bind(MixtureScore(), one).score(x, alpha, sigma)
    assert_close(bind(GaussianScore(), data).score(x, alpha, sigma), expected, 1e-11)


@at_levels
def test_empirical_score_is_the_gradient_of_the_log_density(alpha, sigma):
    """The law of a training row plus noise is a mixture of equally weighted deltas, convolved."""
    data = dataset(random_law(3, 3, seed=3), count=50)
    rows = torch.as_tensor(data.train, dtype=torch.float64)

    def density(z):
        return torch.logsumexp(-(z[:, None] - alpha * rows).square().sum(-1) / (2.0 * sigma**2), dim=1)

    x = noised(data, alpha, sigma)
    assert_close(bind(EmpiricalScore(), data).score(x, alpha, sigma), gradient(density, x), 1e-10)


def test_planar_mixture_score_of_the_data_set():
    data = PlanarMixture(train=100, validation=10, test=10).load()
    assert data.law is not None
    law, x = data.law, noised(data, 1.0, 0.4)
    expected = gradient(lambda z: log_density(law, z, 1.0, 0.4), x)
    assert_close(bind(MixtureScore(), data).score(x, 1.0, 0.4), expected, 1e-10)


@at_levels
@pytest.mark.parametrize("plugin", [MixtureScore(), GaussianScore(), EmpiricalScore()], ids=lambda p: type(p).__name__)
def test_tweedie(plugin, alpha, sigma):
    """alpha E[x_0 | x] = x + sigma^2 grad log p_t(x)."""
    data = dataset(random_law(3, 3, seed=4))
    x = noised(data, alpha, sigma)
    bound = bind(plugin, data)
    tweedie = (x + sigma**2 * bound.score(x, alpha, sigma)) / alpha
    assert_close(tweedie, bound.denoise(x, alpha, sigma), 1e-12)


def test_the_posterior_mean_averages_to_the_mean():
    """E[E[x_0 | x_t]] = E[x_0], over 40,000 noised draws: z-scores of the paired differences."""
    law = random_law(2, 3, seed=6)
    data = dataset(law, count=40_000)
    x = noised(data, 0.8, 0.7, count=40_000)
    difference = bind(MixtureScore(), data).denoise(x, 0.8, 0.7) - torch.as_tensor(data.train, dtype=torch.float64)
    z = difference.mean(0) / difference.std(0) * math.sqrt(len(difference))
    assert float(z.abs().max()) < 5.0


# ---- the empirical score ----


@pytest.mark.parametrize("tile", [1, 3, 7, 1000])
@pytest.mark.parametrize("sigma", [0.02, 0.7, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empirical_tiles_agree_with_the_definition(tile, sigma, dtype):
    data = dataset(random_law(5, 3, seed=7))
    x = noised(data, 0.9, sigma, count=23).to(dtype)
    expected, _ = naive_denoiser(data.train, x, 0.9, sigma)
    bound = bind(EmpiricalScore(tile=tile), data, dtype)
    actual = bound.denoise(x, 0.9, sigma)
    assert actual.dtype == dtype
    # squared distances up to R^2 are off by some eps R^2, the exponents by that over 2 sigma^2
    radius = float(x.double().abs().max() + np.abs(data.train).max()) * math.sqrt(5)
    exponent = 8.0 * torch.finfo(dtype).eps * radius**2 * (1.0 + 0.5 / sigma**2)
    assert_close(actual.double(), expected, exponent)
    untiled = bind(EmpiricalScore(tile=10**6), data, dtype).denoise(x, 0.9, sigma)
    assert_close(actual.double(), untiled.double(), exponent)


@pytest.mark.parametrize(("sigma", "few"), [(0.03, True), (2.0, False)])
def test_empirical_with_few_and_with_many_relevant_rows(sigma, few):
    """Whatever the implementation leaves out: below 2 % of the weights matter at the small noise level, most at the
    large one, and both agree with the definition to rounding."""
    data = dataset(random_law(2, 4, seed=8), count=2000)
    x = noised(data, 1.0, sigma, count=64)
    expected, weights = naive_denoiser(data.train, x, 1.0, sigma)
    share = float((weights > torch.finfo(torch.float64).eps / 2000).double().mean())
    assert (share < 0.02) if few else (share > 0.5)
    assert_close(bind(EmpiricalScore(), data).denoise(x, 1.0, sigma), expected, 1e-11)


def test_empirical_in_a_batch_that_mixes_near_and_far_points():
    data = dataset(random_law(2, 4, seed=8), count=1500)
    near = noised(data, 1.0, 0.01, count=30)
    x = torch.cat([near, 100.0 * near, torch.zeros(3, 2, dtype=torch.float64)])
    expected, _ = naive_denoiser(data.train, x, 1.0, 0.05)
    for tile in (4, 63):
        assert_close(bind(EmpiricalScore(tile=tile), data).denoise(x, 1.0, 0.05), expected, 1e-9)


def test_empirical_far_from_the_origin():
    """Rows around 1,000: distances that are not centred would lose all digits in float32."""
    rng = np.random.default_rng(0)
    rows = (1000.0 + rng.standard_normal((200, 3))).astype(np.float32)
    data = dataset(rows=rows)
    x = noised(data, 1.0, 0.5).float()
    expected, _ = naive_denoiser(rows, x, 1.0, 0.5)
    error = (bind(EmpiricalScore(), data, torch.float32).denoise(x, 1.0, 0.5).double() - expected).abs().max()
    assert float(error) < 2e-3  # 16 ulp of 1,000 in float32


def test_empirical_tends_to_the_nearest_row():
    data = dataset(random_law(3, 3, seed=9), count=200)
    rows = torch.as_tensor(data.train, dtype=torch.float64)
    x = torch.randn((50, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nearest = rows[torch.cdist(x, rows).argmin(dim=1)]
    assert_close(bind(EmpiricalScore(), data).denoise(x, 1.0, 1e-4), nearest, 1e-12)


def test_empirical_tends_to_the_mean():
    """With c the centred rows and alpha = 1, D = mean + E[c (c . (x - mean) - |c|^2 / 2)] / sigma^2 + O(sigma^-4)."""
    data = dataset(random_law(3, 3, seed=9), count=200)
    rows = torch.as_tensor(data.train, dtype=torch.float64)
    x = torch.randn((50, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound, mean = bind(EmpiricalScore(), data), rows.mean(0)
    centred = rows - mean
    exponents = (x - mean) @ centred.T - 0.5 * centred.square().sum(1)  # (50, N), times 1 / sigma^2
    errors = []
    for sigma in (100.0, 1000.0):
        first = exponents @ centred / len(rows) / sigma**2
        assert_close(bound.denoise(x, 1.0, sigma), mean.expand_as(x), 100.0 / sigma**2)
        errors.append(float((bound.denoise(x, 1.0, sigma) - mean - first).abs().max()))
    assert errors[1] < 1e-3 * errors[0]


def test_empirical_is_a_convex_combination_and_equivariant():
    data = dataset(random_law(2, 3, seed=10), count=100)
    bound, x = bind(EmpiricalScore(), data), noised(data, 1.0, 0.5)
    denoised = bound.denoise(x, 1.0, 0.5)
    rows = torch.as_tensor(data.train, dtype=torch.float64)
    assert bool((denoised >= rows.amin(0) - 1e-12).all())
    assert bool((denoised <= rows.amax(0) + 1e-12).all())
    reordered = dataset(rows=data.train[::-1].copy())
    assert_close(bind(EmpiricalScore(), reordered).denoise(x, 1.0, 0.5), denoised, 1e-12)


def test_gaussian_limits():
    data = dataset(random_law(3, 2, seed=11))
    bound, x = bind(GaussianScore(), data), noised(data, 1.0, 1.0)
    assert_close(bound.denoise(x, 1.0, 1e-6), x, 1e-9)
    mean = torch.as_tensor(training_moments(data).mean)
    assert_close(bound.denoise(x, 1.0, 1e6), mean.expand_as(x), 1e-9)


# ---- bookkeeping ----


@pytest.mark.parametrize("plugin", [MixtureScore(), GaussianScore(), EmpiricalScore(7)], ids=lambda p: type(p).__name__)
def test_evaluations_count_rows(plugin):
    bound = bind(plugin, dataset(random_law(2, 2, seed=1)))
    assert bound.evaluations == 0
    expected = 0
    for rows in (1, 5, 0, 33):
        for call in (bound.denoise, bound.score):
            assert call(torch.zeros((rows, 2), dtype=torch.float64), 1.0, 0.5).shape == (rows, 2)
            expected += rows
            assert bound.evaluations == expected
    assert bind(plugin, dataset(random_law(2, 2, seed=1))).evaluations == 0  # a fresh count for every binding


@pytest.mark.parametrize("plugin", [MixtureScore(), GaussianScore(), EmpiricalScore()], ids=lambda p: type(p).__name__)
def test_contract(plugin):
    assert isinstance(plugin, ScorePlugin)
    data = dataset(random_law(2, 2, seed=1))
    bound = bind(plugin, data, torch.float32)
    assert isinstance(bound, BoundScore)
    x = torch.zeros((3, 2))
    assert bound.score(x, 1.0, 1.0).dtype == torch.float32
    assert torch.equal(x, torch.zeros((3, 2)))  # the input is left as it was
    small, large = (plugin.working_memory(ProblemSize(1000, 10, batch, 4)) for batch in (1, 100))
    assert 0 < small < large


def test_mixture_score_needs_a_law():
    with pytest.raises(CapabilityError, match="'toy' is not"):
        bind(MixtureScore(), dataset(rows=np.zeros((5, 2))))


def test_mixture_with_a_singular_component():
    """A covariance of rank one is a law like another once there is noise."""
    law = Mixture(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([np.diag([1.0, 0.0])] * 2))
    data = dataset(law, rows=np.zeros((5, 2)))
    x = torch.tensor([[0.3, 0.2], [2.5, -0.1], [1.5, 0.0]], dtype=torch.float64)
    expected = gradient(lambda z: log_density(law, z, 1.0, 0.3), x)
    assert_close(bind(MixtureScore(), data).score(x, 1.0, 0.3), expected, 1e-11)
