"""EDM's stochastic sampler on Gaussian data, where each axis of y - mean is multiplied by a number in every stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.data.moments import training_moments
from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench_baselines.edm_stochastic import EDMStochastic
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


def law_from(fitted, moments, mean, deviations):
    """Mean and covariance in the principal axes at the end, from N(mean, diag(deviations^2)) in them at the start."""
    draws = len(fitted.times)
    normal = torch.zeros(draws, 2 * draws + 1, 2, dtype=torch.float64)
    for number in range(2 * draws):
        normal[number // 2, number + 1, number % 2] = 1.0
    basis = torch.tensor(moments.basis)  # rotated probes: a rotation of the noise leaves the law as it is
    start = (torch.tensor(mean) + normal[0] * torch.tensor(deviations)) @ basis.T
    rows = fitted.integrate(start, GivenNoise(normal)).numpy() @ moments.basis
    return rows[0], (rows[1:] - rows[0]).T @ (rows[1:] - rows[0])


@pytest.mark.parametrize("process", PROCESSES)
def test_the_law_is_the_published_algorithms(gaussian_problem, process):
    """Stages as numbers: y - m is multiplied by 1 + h q / (lam + q^2) in Euler's stage, D(y; q) being affine."""
    problem, steps = gaussian_problem(process), 9
    moments = training_moments(problem.dataset)
    lam, alpha = moments.variances, process.alpha
    levels = [process.sigma(t) / alpha(t) for t in time_grid(process, steps, "edm")]
    low, high, s_noise = 0.99 * levels[-3], 1.01 * levels[2], 1.05
    sampler = EDMStochastic(steps, s_churn=2.0, s_min=low, s_max=high, s_noise=s_noise)
    variance = np.full(2, levels[0] ** 2)
    for i, (q, following) in enumerate(pairwise(levels)):
        churn = 2.0 / steps if low <= q <= high else 0.0
        p = q + churn * q
        variance = variance + s_noise**2 * (p**2 - q**2)
        h = following - p
        slope = p / (lam + p**2)
        gain = 1 + h * slope
        if i < steps - 1:
            gain = 1 + h / 2 * (slope + gain * following / (lam + following**2))
        variance = gain**2 * variance
    fitted = sampler.fit(problem)
    first = process.t_max
    start = alpha(first) * moments.mean @ moments.basis
    mean, covariance = law_from(fitted, moments, start, np.full(2, process.sigma(first)))
    np.testing.assert_allclose(mean, alpha(process.t_min) * moments.mean @ moments.basis, rtol=1e-9)
    np.testing.assert_allclose(covariance, alpha(process.t_min) ** 2 * np.diag(variance), rtol=1e-9, atol=1e-12)
    assert sum(churn > 0 for churn in fitted.churns) == steps - 3  # the levels 2 to steps - 2


@pytest.mark.parametrize("churn", [0.0, 5.0])
@pytest.mark.parametrize("process", PROCESSES)
def test_weak_order_from_the_true_marginal(gaussian_problem, process, churn):
    # noise of the right size keeps the marginals, so the law errs by Heun's method alone
    problem = gaussian_problem(process)
    moments = training_moments(problem.dataset)

    def spread(t):
        return process.alpha(t) ** 2 * moments.variances + process.sigma(t) ** 2

    errors = []
    for steps in (80, 160, 320):
        fitted = EDMStochastic(steps, s_churn=churn, s_min=0.0, s_max=1e9, s_noise=1.0).fit(problem)
        start = process.alpha(process.t_max) * moments.mean @ moments.basis
        covariance = law_from(fitted, moments, start, np.sqrt(spread(process.t_max)))[1]
        errors.append(np.abs(np.diag(covariance) - spread(process.t_min)).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([2.0, 2.0], abs=0.25)


def test_without_churn_it_is_heun_with_a_last_step_of_euler(gaussian_problem):
    process = VarianceExploding(0.01, 20.0)
    problem, noise = gaussian_problem(process), NoiseStream.of_range(1, 0, 30, 2, CPU, torch.float64)
    x = 20.0 * noise.normal(0)
    for q, following in pairwise(time_grid(process, 9, "edm")):
        slope = (x - problem.score.denoise(x, 1.0, q)) / q
        end = x + (following - q) * slope
        if following != process.t_min:
            end = x + (following - q) / 2 * (slope + (end - problem.score.denoise(end, 1.0, following)) / following)
        x = end
    found = EDMStochastic(9, s_churn=0.0).fit(problem).sample(noise)
    torch.testing.assert_close(found, x, rtol=1e-11, atol=1e-11)


def test_evaluations_are_those_that_the_score_counts(gaussian_problem):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    fitted = EDMStochastic(7, s_churn=1e3, s_min=0.0, s_max=100.0).fit(problem)
    assert fitted.churns == pytest.approx([math.sqrt(2) - 1] * 7)  # capped; the first one leads above t_max
    rows = fitted.sample(NoiseStream.of_range(1, 0, 5, 2, CPU, torch.float64))
    assert problem.score.evaluations == 5 * 13
    assert torch.isfinite(rows).all()


@pytest.mark.parametrize("level", [3.0, 5.0, 10.0, 20.0, 50.0, 80.0])
def test_bounds_that_are_levels_of_the_grid_are_inside(gaussian_problem, level):
    # s_min <= q <= s_max (Algorithm 2) holds with equality, whatever rounding made of q = exp(log(sigma / alpha))
    problem = gaussian_problem(VarianceExploding(0.01, level))
    assert EDMStochastic(4, s_max=level).fit(problem).churns[0] > 0
    assert EDMStochastic(4, s_min=level, s_max=level).fit(problem).churns[0] > 0


@pytest.mark.parametrize("parameters", [{"s_churn": -1.0}, {"s_min": 2.0}, {"s_noise": 0.0}, {"s_noise": math.nan}])
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        EDMStochastic(**parameters)
