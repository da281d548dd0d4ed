"""Orders of convergence on linear problems, whose solution is known.

For Gaussian data N(mu, U diag(lam) U^T), with S_t = alpha_t^2 lam + sigma_t^2 and R_t = lam + (sigma_t / alpha_t)^2,
the standardised state y = S_t^(-1/2) U^T (x - alpha_t mu) of the reverse family with stochasticity eta is an
Ornstein-Uhlenbeck process: y_0 given y_T is normal with mean m y_T and variance 1 - m^2, m = (R_0 / R_T)^(eta^2 / 2).

A scheme is an affine function of its normal numbers: fed with 0 and the basis vectors it shows its law exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.data.moments import training_moments
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.pf_ode_euler import ProbabilityFlowEuler
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun
from kfpbench_baselines.schedules import time_grid

PROCESSES = [
    pytest.param(VarianceExploding(0.3, 6.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.05), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0), id="ou"),
]
SCHEDULES = ["edm", "log_snr", "time"]
DIMENSION = 2


@dataclass(frozen=True)
class GivenNoise:
    """Stands in for a noise stream: ``draws`` (draw, n, d) are given."""

    draws: torch.Tensor

    def normal(self, draw: int) -> torch.Tensor:
        return self.draws[draw]


class Law:
    """The exact marginals and the exact reverse dynamics in the data's principal axes."""

    def __init__(self, dataset, process):
        moments = training_moments(dataset)
        self.mean, self.basis, self.variances = moments.mean, moments.basis, moments.variances
        self.process = process

    def alpha(self, t):
        return self.process.alpha(t)

    def spread(self, t):
        return self.alpha(t) ** 2 * self.variances + self.process.sigma(t) ** 2

    def linear_part(self, eta):
        ratio = [self.variances + (self.process.sigma(t) / self.alpha(t)) ** 2 for t in self.ends]
        return (ratio[0] / ratio[1]) ** (eta**2 / 2)

    @property
    def ends(self):
        return self.process.t_min, self.process.t_max

    def terminal(self, eta, mean, variances):
        """Mean and covariance at t_min from N(mean, U diag(variances) U^T) at t_max."""
        last, first = self.ends
        m = self.linear_part(eta)
        y_mean = m * ((mean - self.alpha(first) * self.mean) @ self.basis) / np.sqrt(self.spread(first))
        y_variance = m**2 * variances / self.spread(first) + 1 - m**2
        end_mean = self.alpha(last) * self.mean + (y_mean * np.sqrt(self.spread(last))) @ self.basis.T
        return end_mean, (self.basis * (y_variance * self.spread(last))) @ self.basis.T

    def flow(self, x):
        """The probability flow from t_max to t_min of rows x."""
        last, first = self.ends
        y = ((x - self.alpha(first) * self.mean) @ self.basis) * np.sqrt(self.spread(last) / self.spread(first))
        return self.alpha(last) * self.mean + y @ self.basis.T


def slopes(errors):
    """Observed orders between successive doublings of the number of steps."""
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))


def starts(count=20):
    return torch.from_numpy(np.random.default_rng(3).standard_normal((1, count, DIMENSION)))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("solver", "order"), [(ProbabilityFlowEuler, 1), (ProbabilityFlowHeun, 2)])
def test_order_of_the_ode_solvers(gaussian_data, gaussian_problem, solver, order, process, schedule):
    noise = starts()
    exact = Law(gaussian_data, process).flow(process.sigma(process.t_max) * noise[0].numpy())
    errors = []
    for steps in (160, 320, 640):
        fitted = solver(steps=steps, schedule=schedule).fit(gaussian_problem(process))
        errors.append(np.abs(fitted.sample(GivenNoise(noise)).numpy() - exact).max())
    assert slopes(errors) == pytest.approx([order, order], abs=0.15)
    assert errors[-1] < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("process", PROCESSES)
def test_solvers_differ_from_each_other_by_the_worse_one(gaussian_data, gaussian_problem, process):
    # at equal NFE Heun is the better of the two on a smooth problem
    noise = starts()
    exact = Law(gaussian_data, process).flow(process.sigma(process.t_max) * noise[0].numpy())
    problem = gaussian_problem(process)
    euler, heun = (
        np.abs(solver.fit(problem).sample(GivenNoise(noise)).numpy() - exact).max()
        for solver in (ProbabilityFlowEuler(steps=80), ProbabilityFlowHeun(steps=40))
    )
    assert heun < 0.25 * euler


def scheme_law(sampler, problem, steps):
    """Mean (d,) and covariance (d, d) of the sampler's law, from its response to every normal number."""
    inputs = (steps + 1) * DIMENSION
    draws = torch.zeros(steps + 1, inputs + 1, DIMENSION, dtype=torch.float64)
    for number in range(inputs):
        draws[number // DIMENSION, number + 1, number % DIMENSION] = 1.0
    rows = sampler.fit(problem).sample(GivenNoise(draws)).numpy()
    response = rows[1:] - rows[0]
    return rows[0], response.T @ response


def recursion(law, process, steps, schedule, eta):
    """Mean and covariance of Euler-Maruyama in the principal axes: x <- (1 + h a) x + h c + noise, axis by axis."""
    grid = time_grid(process, steps, schedule)
    mean, variance = np.zeros(DIMENSION), np.full(DIMENSION, process.sigma(process.t_max) ** 2)
    for t, following in pairwise(grid):
        h, g2, weight = t - following, process.squared_diffusion(t), (1 + eta**2) / 2
        factor = 1 + h * (-process.drift_rate(t) - weight * g2 / law.spread(t))
        mean = factor * mean + h * weight * g2 / law.spread(t) * process.alpha(t) * (law.mean @ law.basis)
        variance = factor**2 * variance + eta**2 * g2 * h
    return mean @ law.basis.T, (law.basis * variance) @ law.basis.T


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_euler_maruyama_has_the_law_of_its_recursion(gaussian_data, gaussian_problem, process, schedule, eta):
    steps = 25
    mean, covariance = scheme_law(EulerMaruyama(steps, schedule, eta), gaussian_problem(process), steps)
    expected_mean, expected = recursion(Law(gaussian_data, process), process, steps, schedule, eta)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-11)
    np.testing.assert_allclose(covariance, expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("eta", [0.6, 1.0])
def test_weak_order_of_euler_maruyama(gaussian_data, gaussian_problem, process, schedule, eta):
    law, problem = Law(gaussian_data, process), gaussian_problem(process)
    exact = law.terminal(eta, np.zeros(DIMENSION), np.full(DIMENSION, process.sigma(process.t_max) ** 2))
    laws = [scheme_law(EulerMaruyama(steps, schedule, eta), problem, steps) for steps in (100, 200, 400)]
    for moment in (0, 1):
        errors = [np.linalg.norm(found[moment] - exact[moment]) for found in laws]
        assert slopes(errors) == pytest.approx([1.0, 1.0], abs=0.15)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_true_marginal_becomes_the_data(gaussian_data, gaussian_problem, process, eta):
    # the family with stochasticity eta shares its marginals: p_T at the start gives p_0 at the end
    law, (last, first) = Law(gaussian_data, process), (process.t_min, process.t_max)
    mean, covariance = law.terminal(eta, law.alpha(first) * law.mean, law.spread(first))
    np.testing.assert_allclose(mean, law.alpha(last) * law.mean, rtol=1e-12)
    np.testing.assert_allclose(covariance, (law.basis * law.spread(last)) @ law.basis.T, rtol=1e-9, atol=1e-12)
    # and so does the sampler, in the limit: Richardson's extrapolation of an order-1 law leaves order 2
    problem = gaussian_problem(process)
    exact = law.terminal(eta, np.zeros(2), np.full(2, process.sigma(first) ** 2))[1]
    coarse, fine = (scheme_law(EulerMaruyama(steps, "edm", eta), problem, steps)[1] for steps in (300, 600))
    assert np.abs(2 * fine - coarse - exact).max() < 1e-2 * np.abs(fine - exact).max() + 1e-4 * np.abs(exact).max()


def test_variance_of_drawn_samples_in_one_dimension_each(gaussian_data, gaussian_problem):
    # n draws of a normal variable: (n - 1) s^2 / variance is chi^2, so that z below is standard normal for large n
    process, steps, n = VarianceExploding(0.3, 6.0), 50, 20_000
    noise = NoiseStream.of_range(8, 0, n, DIMENSION, torch.device("cpu"), torch.float64)
    rows = EulerMaruyama(steps).fit(gaussian_problem(process)).sample(noise).numpy()
    mean, covariance = recursion(Law(gaussian_data, process), process, steps, "edm", 1.0)
    for axis in range(DIMENSION):
        variance = covariance[axis, axis]
        assert abs(rows[:, axis].mean() - mean[axis]) < 4.4 * math.sqrt(variance / n)  # two-sided 1e-5
        assert abs(rows[:, axis].var(ddof=1) / variance - 1) < 4.4 * math.sqrt(2 / (n - 1))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("process", PROCESSES)
def test_strong_order_of_euler_maruyama(gaussian_problem, process, schedule):
    """Coarse and fine paths share one Brownian motion: a coarse increment is the sum of the fine ones.

    Additive noise: strong order 1, not 1/2. Against a reference with h_ref = h_min / 16 the error of an order-1 scheme
    is C (h - h_ref): the observed order is log2((2 - 1/16) / (1 - 1/16)) = 1.047 at the finest doubling.
    """
    finest, paths = 3200, 300
    problem = gaussian_problem(process)
    rng = np.random.default_rng(4)
    normal = torch.from_numpy(rng.standard_normal((finest + 1, paths, DIMENSION)))
    lengths = -torch.from_numpy(np.diff(time_grid(process, finest, schedule)))

    def path(steps):
        share = finest // steps
        increments = (normal[1:] * lengths.sqrt()[:, None, None]).reshape(steps, share, paths, DIMENSION).sum(1)
        coarse = increments / lengths.reshape(steps, share).sum(1).sqrt()[:, None, None]
        draws = torch.cat([normal[:1], coarse])
        return EulerMaruyama(steps, schedule).fit(problem).sample(GivenNoise(draws))

    reference = path(finest)
    errors = [float((path(steps) - reference).square().sum(1).mean().sqrt()) for steps in (50, 100, 200)]
    assert slopes(errors) == pytest.approx([1.0, 1.047], abs=0.15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("process", PROCESSES)
def test_euler_maruyama_without_noise_is_euler(gaussian_problem, process, dtype, schedule):
    noise = NoiseStream.of_range(1, 0, 30, DIMENSION, torch.device("cpu"), dtype)
    problem = gaussian_problem(process, dtype)
    stochastic = EulerMaruyama(9, schedule, eta=0.0).fit(problem).sample(noise)
    assert stochastic.dtype == dtype
    assert torch.equal(stochastic, ProbabilityFlowEuler(9, schedule).fit(problem).sample(noise))


def test_euler_under_variance_explosion_is_ddim(gaussian_problem):
    # DDIM (Song, Meng, Ermon 2021) in the variable x / alpha: x' = D + (sigma' / sigma) (x - D)
    process = VarianceExploding(0.01, 20.0)
    problem = gaussian_problem(process)
    noise = NoiseStream.of_range(1, 0, 30, DIMENSION, torch.device("cpu"), torch.float64)
    x = 20.0 * noise.normal(0)
    grid = time_grid(process, 9, "edm")
    for t, following in pairwise(grid):
        denoised = problem.score.denoise(x, 1.0, t)
        x = denoised + following / t * (x - denoised)
    found = ProbabilityFlowEuler(9).fit(problem).sample(noise)
    torch.testing.assert_close(found, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("sampler", "nfe"),
    [
        (EulerMaruyama(13), 13),
        (EulerMaruyama(13, eta=0.0), 13),
        (ProbabilityFlowEuler(13), 13),
        (ProbabilityFlowHeun(13), 26),
    ],
    ids=["euler_maruyama", "euler_maruyama eta 0", "pf_ode_euler", "pf_ode_heun"],
)
def test_evaluations_are_those_that_the_score_counts(gaussian_problem, sampler, nfe):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    fitted = sampler.fit(problem)
    assert problem.score.evaluations == 0
    fitted.sample(NoiseStream.of_range(1, 0, 5, DIMENSION, torch.device("cpu"), torch.float64))
    assert problem.score.evaluations == 5 * nfe
    assert fitted.describe() == {"steps": 13}
