"""The forward process's posterior, against the published coefficients, exact cases and the limit of small steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.span import Span
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.scores.gaussian import GaussianScore
from kfpbench_baselines.ddpm_ancestral import DDPMAncestral
from kfpbench_baselines.pf_ode_euler import ProbabilityFlowEuler
from kfpbench_baselines.schedules import time_grid

PROCESSES = [
    pytest.param(VarianceExploding(0.3, 6.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.05), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0), id="ou"),
]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class GivenNoise:
    draws: torch.Tensor  # (draw, n, d)

    def normal(self, draw):
        return self.draws[draw]


def probes(draws):
    """A row of zeros, then one row for every normal number: (draws, 2 draws + 1, 2)."""
    normal = torch.zeros(draws, 2 * draws + 1, 2, dtype=torch.float64)
    for number in range(2 * draws):
        normal[number // 2, number + 1, number % 2] = 1.0
    return normal


def law(rows):
    response = rows[1:] - rows[0]
    return rows[0], response.T @ response


def point_problem(process, point):
    rows = np.tile(np.asarray(point, dtype=np.float32), (5, 1))
    data = Dataset("point", rows, rows[:0], rows[:0])
    return Problem(data, process, GaussianScore().bind(data, CPU, torch.float64), CPU, torch.float64, 0)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("process", PROCESSES)
def test_one_point_of_data_is_met_exactly_in_any_number_of_steps(process, steps, eta):
    # the whole family shares its marginals given x_0: N(alpha x_0, sigma^2) at t_max becomes the same at t_min
    point = np.array([0.5, -1.5])
    draws = probes(steps + 1)
    start = process.alpha(process.t_max) * torch.from_numpy(point) + process.sigma(process.t_max) * draws[0]
    fitted = DDPMAncestral(steps, eta=eta).fit(point_problem(process, point))
    mean, covariance = law(fitted.integrate(start, GivenNoise(draws)).numpy())
    np.testing.assert_allclose(mean, process.alpha(process.t_min) * point, rtol=1e-12)
    np.testing.assert_allclose(covariance, process.sigma(process.t_min) ** 2 * np.eye(2), rtol=1e-9, atol=1e-15)


def test_the_published_posterior():
    # Ho et al. (2020), eq. (7), in their notation: one step of a variance-preserving chain from t to s
    t, s = 0.6, 0.35
    inner = VariancePreserving()
    fitted = DDPMAncestral(1).fit(point_problem(Span(inner, s, t), [0.7, 0.7]))
    bar_t, bar_s = inner.alpha(t) ** 2, inner.alpha(s) ** 2
    beta = 1 - bar_t / bar_s
    x = torch.tensor([[0.2, -0.4]], dtype=torch.float64)
    mean = math.sqrt(bar_s) * beta / (1 - bar_t) * 0.7 + math.sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x
    deviation = math.sqrt((1 - bar_s) / (1 - bar_t) * beta)
    xi = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    found = fitted.integrate(x, GivenNoise(torch.stack([x, xi])))
    torch.testing.assert_close(found, mean + deviation * xi, rtol=1e-6, atol=1e-7)  # the data's moments are float32's


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("process", PROCESSES)
def test_weak_order(gaussian_problem, process, eta):
    # y_0 given y_T of the reverse family: normal with mean m y_T, variance 1 - m^2, m = (R_0 / R_T)^(eta^2 / 2)
    problem = gaussian_problem(process)
    moments = training_moments(problem.dataset)
    first, last = process.t_max, process.t_min
    level = {t: moments.variances + (process.sigma(t) / process.alpha(t)) ** 2 for t in (first, last)}
    spread = {t: process.alpha(t) ** 2 * level[t] for t in (first, last)}
    m = (level[last] / level[first]) ** (eta**2 / 2)
    exact = spread[last] * (m**2 * process.sigma(first) ** 2 / spread[first] + 1 - m**2)
    errors = []
    for steps in (80, 160, 320):
        rows = DDPMAncestral(steps, eta=eta).fit(problem).sample(GivenNoise(probes(steps + 1))).numpy()
        errors.append(np.abs(np.diag(law(rows @ moments.basis)[1]) - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([1.0, 1.0], abs=0.15)


@pytest.mark.parametrize("process", PROCESSES)
def test_without_noise_it_is_ddim(gaussian_problem, process):
    # DDIM in y = x / alpha and q = sigma / alpha: y' = D + (q' / q) (y - D)
    problem, noise = gaussian_problem(process), NoiseStream.of_range(1, 0, 30, 2, CPU, torch.float64)
    grid = time_grid(process, 9, "edm")
    y = process.sigma(grid[0]) * noise.normal(0) / process.alpha(grid[0])
    for t, s in pairwise(grid):
        denoised = problem.score.denoise(process.alpha(t) * y, process.alpha(t), process.sigma(t))
        y = denoised + math.exp(process.log_ratio(s) - process.log_ratio(t)) * (y - denoised)
    found = DDPMAncestral(9, eta=0.0).fit(problem).sample(noise)
    torch.testing.assert_close(found, process.alpha(grid[-1]) * y, rtol=1e-10, atol=1e-10)


def test_without_noise_under_variance_explosion_it_is_eulers_method(gaussian_problem):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    noise = NoiseStream.of_range(1, 0, 30, 2, CPU, torch.float64)
    euler = ProbabilityFlowEuler(9).fit(problem).sample(noise)
    torch.testing.assert_close(DDPMAncestral(9, eta=0.0).fit(problem).sample(noise), euler, rtol=1e-10, atol=1e-10)


def test_evaluations_are_those_that_the_score_counts(gaussian_problem):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    DDPMAncestral(7).fit(problem).sample(NoiseStream.of_range(1, 0, 5, 2, CPU, torch.float64))
    assert problem.score.evaluations == 5 * 7


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_impossible_stochasticity_is_refused(eta):
    with pytest.raises(ParameterError, match="eta"):
        DDPMAncestral(eta=eta)
