"""On Gaussian data every step is affine: the sampler's law is a recursion for a mean and a variance an axis."""

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
from kfpbench_baselines.predictor_corrector import PredictorCorrector
from kfpbench_baselines.schedules import time_grid

PROCESSES = [
    pytest.param(VarianceExploding(0.3, 6.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.05), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0), id="ou"),
]


@dataclass(frozen=True)
class GivenNoise:
    draws: torch.Tensor  # (draw, n, d)

    def normal(self, draw):
        return self.draws[draw]


def scheme_law(sampler, problem, draws):
    """Mean and covariance in the principal axes, from the response to every normal number."""
    moments = training_moments(problem.dataset)
    normal = torch.zeros(draws, 2 * draws + 1, 2, dtype=torch.float64)
    for number in range(2 * draws):
        normal[number // 2, number + 1, number % 2] = 1.0
    rows = sampler.fit(problem).sample(GivenNoise(normal)).numpy() @ moments.basis
    return rows[0], (rows[1:] - rows[0]).T @ (rows[1:] - rows[0])


def recursion(problem, steps, corrections, snr):
    """Mean and variances in the principal axes, written down independently."""
    process, moments = problem.process, training_moments(problem.dataset)
    centre = moments.mean @ moments.basis
    grid = time_grid(process, steps, "edm")
    mean, variance = np.zeros(2), np.full(2, process.sigma(grid[0]) ** 2)
    for t, s in pairwise(grid):
        spread_t = process.alpha(t) ** 2 * moments.variances + process.sigma(t) ** 2
        spread_s = process.alpha(s) ** 2 * moments.variances + process.sigma(s) ** 2
        growth = process.alpha(t) / process.alpha(s)
        added = process.sigma(t) ** 2 - growth**2 * process.sigma(s) ** 2
        gain = 2 - growth - added / spread_t
        mean, variance = gain * mean + added / spread_t * process.alpha(t) * centre, gain**2 * variance + added
        e = 2 * snr**2 * process.sigma(s) ** 2
        for _ in range(corrections):
            gain = 1 - e / spread_s
            mean, variance = gain * mean + e / spread_s * process.alpha(s) * centre, gain**2 * variance + 2 * e
    return mean, variance


@pytest.mark.parametrize("corrections", [0, 1, 3])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_law_is_that_of_the_two_kernels(gaussian_problem, process, corrections):
    problem, steps = gaussian_problem(process), 12
    sampler = PredictorCorrector(steps, corrections=corrections, snr=0.3)
    mean, covariance = scheme_law(sampler, problem, steps * (1 + corrections) + 1)
    expected, variance = recursion(problem, steps, corrections, 0.3)
    np.testing.assert_allclose(mean, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(covariance, np.diag(variance), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES)
def test_weak_order_of_the_predictor(gaussian_problem, process):
    # the standardised state of the reverse SDE is an Ornstein-Uhlenbeck process with m = (R_0 / R_T)^(1/2)
    problem = gaussian_problem(process)
    moments = training_moments(problem.dataset)
    first, last = process.t_max, process.t_min
    level = {t: moments.variances + (process.sigma(t) / process.alpha(t)) ** 2 for t in (first, last)}
    spread = {t: process.alpha(t) ** 2 * level[t] for t in (first, last)}
    m = np.sqrt(level[last] / level[first])
    exact = spread[last] * (m**2 * process.sigma(first) ** 2 / spread[first] + 1 - m**2)
    errors = []
    for steps in (100, 200, 400):
        covariance = scheme_law(PredictorCorrector(steps, corrections=0), problem, steps + 1)[1]
        errors.append(np.abs(np.diag(covariance) - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([1.0, 1.0], abs=0.15)


def test_many_corrections_forget_the_start_and_end_in_the_langevin_law(gaussian_problem):
    # the fixed point of v -> (1 - e / S)^2 v + 2 e is S / (1 - e / (2 S)): p_s up to the discretisation's own bias
    process, snr, corrections = VarianceExploding(0.3, 6.0), 0.5, 500
    problem = gaussian_problem(process)
    moments = training_moments(problem.dataset)
    spread, e = moments.variances + 0.3**2, 2 * snr**2 * 0.3**2
    mean, covariance = scheme_law(PredictorCorrector(1, corrections=corrections, snr=snr), problem, corrections + 2)
    left = float(((1 - e / spread) ** corrections).max())  # of the start
    np.testing.assert_allclose(mean, moments.mean @ moments.basis, atol=10 * left)
    np.testing.assert_allclose(np.diag(covariance), spread / (1 - e / (2 * spread)), atol=100 * left**2 + 1e-9)


def test_corrections_mend_a_coarse_predictor(gaussian_problem):
    # five predictor steps are too few; Langevin steps at the same levels bring the law nearer to p_s
    problem = gaussian_problem(VarianceExploding(0.3, 6.0))
    spread = training_moments(problem.dataset).variances + 0.3**2
    coarse, mended = (
        np.abs(
            np.diag(scheme_law(PredictorCorrector(5, corrections=number, snr=0.4), problem, 5 * (1 + number) + 1)[1])
            / spread
            - 1
        ).max()
        for number in (0, 10)
    )
    assert mended < coarse


def test_evaluations_are_those_that_the_score_counts(gaussian_problem):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    fitted = PredictorCorrector(7, corrections=2).fit(problem)
    fitted.sample(NoiseStream.of_range(1, 0, 5, 2, torch.device("cpu"), torch.float64))
    assert problem.score.evaluations == 5 * 7 * 3
    assert fitted.describe() == {"steps": 7, "corrections": 2}


@pytest.mark.parametrize("parameters", [{"corrections": -1}, {"snr": 0.0}, {"snr": 1.0}, {"snr": math.nan}])
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        PredictorCorrector(**parameters)
