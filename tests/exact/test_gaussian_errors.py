"""Exact errors of solvers on Gaussian data: closed forms, convergence orders, planted defects."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Mixture
from kfpbench.errors import CapabilityError
from kfpbench.exact.exact_errors import exact_errors
from kfpbench.exact.gaussian_w2 import gaussian_errors
from kfpbench.registry import find
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.gaussian import FittedGaussian
from kfpbench_baselines.pf_ode_euler import ProbabilityFlowEuler
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun


def exact_flow(law, process):
    """The probability flow of the law itself: the closed-form sampler with the true moments."""
    variances, axes = np.linalg.eigh(law.covariances[0])
    start, end = (process.alpha(t) ** 2 * variances + process.sigma(t) ** 2 for t in (process.t_max, process.t_min))
    transport = (axes * np.sqrt(end / start)) @ axes.T
    return FittedGaussian(process, torch.tensor(law.means[0]), torch.tensor(transport))


def moments(law, process, t):
    """Mean (axes), deviations of p at t."""
    variances, axes = np.linalg.eigh(law.covariances[0])
    return process.alpha(t) * law.means[0] @ axes, np.sqrt(process.alpha(t) ** 2 * variances + process.sigma(t) ** 2)


def initialisation(law, process, eta):
    """W2 at t_min of the exact reverse dynamics begun at N(0, sigma_T^2 I) instead of p_T, in closed form.

    The standardised state is an Ornstein-Uhlenbeck process: y_0 = m y_T + (1 - m^2)^(1/2) xi, m = (R_0 / R_T)^(eta^2/2)
    with R_t = S_t / alpha_t^2.
    """
    last, first = process.t_min, process.t_max
    (_, end), (mean, begin) = moments(law, process, last), moments(law, process, first)
    ratio = (end / process.alpha(last)) ** 2 / (begin / process.alpha(first)) ** 2
    m = ratio ** (eta**2 / 2)
    mean_gap = end * m * mean / begin
    deviation = end * np.sqrt(m**2 * (process.sigma(first) / begin) ** 2 + 1 - m**2)
    return math.hypot(np.linalg.norm(mean_gap), np.linalg.norm(end - deviation))


def test_the_exact_flow_errs_at_its_start_alone(gaussian, make_problem, process):
    found = gaussian_errors(exact_flow(gaussian, process), make_problem(gaussian, process))
    assert found.discretisation < 1e-14 * 10  # from the true marginal to the true marginal
    assert found.initialisation == pytest.approx(initialisation(gaussian, process, 0.0), rel=1e-12)
    assert found.total == pytest.approx(found.initialisation, rel=1e-12)
    # the data: N(mu, C), against N(alpha mu, ...) begun wrongly
    mean, spread = moments(gaussian, process, process.t_min)
    first_mean, first = moments(gaussian, process, process.t_max)
    sigma = process.sigma(process.t_max)
    true_mean, true = gaussian.means[0], np.sqrt(np.linalg.eigvalsh(gaussian.covariances[0]))
    axes = np.linalg.eigh(gaussian.covariances[0])[1]
    drawn = mean - spread / first * first_mean
    expected = math.hypot(np.linalg.norm(drawn - true_mean @ axes), np.linalg.norm(spread / first * sigma - true))
    assert found.data == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_initialisation_error_of_the_reverse_sde(gaussian, make_problem, process, eta):
    # order 1 towards the closed form; Richardson's extrapolation leaves the second order
    problem = make_problem(gaussian, process)
    coarse, fine = (gaussian_errors(EulerMaruyama(n, eta=eta).fit(problem), problem).initialisation for n in (100, 200))
    exact = initialisation(gaussian, process, eta)
    assert abs(fine - exact) < 0.7 * abs(coarse - exact)
    assert 2 * fine - coarse == pytest.approx(exact, rel=2e-3)


def orders(values):
    return [math.log2(a / b) for a, b in pairwise(values)]


SOLVERS = [
    pytest.param(ProbabilityFlowEuler, {}, 1, (80, 160, 320), id="pf_ode_euler"),
    pytest.param(ProbabilityFlowHeun, {}, 2, (80, 160, 320), id="pf_ode_heun"),
    pytest.param(EulerMaruyama, {"eta": 1.0}, 1, (50, 100, 200), id="euler_maruyama"),
    pytest.param(EulerMaruyama, {"eta": 0.6}, 1, (50, 100, 200), id="euler_maruyama eta 0.6"),
]


@pytest.mark.parametrize(("solver", "keywords", "order", "grid"), SOLVERS)
def test_order_of_the_discretisation_error(gaussian, make_problem, process, solver, keywords, order, grid):
    problem = make_problem(gaussian, process)
    found = [gaussian_errors(solver(steps=n, **keywords).fit(problem), problem).discretisation for n in grid]
    assert orders(found) == pytest.approx([order] * 2, abs=0.1)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_registered_solvers(gaussian, make_problem, name, order):
    problem = make_problem(gaussian)
    solver = find("samplers", name).load()
    found = [gaussian_errors(solver(steps=n).fit(problem), problem).discretisation for n in (40, 80, 160)]
    assert orders(found) == pytest.approx([order] * 2, abs=0.2)


@pytest.mark.parametrize("steps", [2, 7, 30])
@pytest.mark.parametrize("solver", [ProbabilityFlowHeun, EulerMaruyama])
def test_parts_bound_the_total(gaussian, make_problem, process, solver, steps):
    problem = make_problem(gaussian, process)
    found = gaussian_errors(solver(steps=steps).fit(problem), problem)
    assert found.total <= found.discretisation + found.initialisation
    assert found.total >= abs(found.discretisation - found.initialisation)
    assert found.total == pytest.approx(math.hypot(found.details["mean_part"], found.details["covariance_part"]))


def test_a_wrong_last_step_is_found(gaussian, make_problem, process):
    """A grid that ends one step early leaves noise behind: the excess is that of p at the wrong time."""
    problem = make_problem(gaussian, process)
    fitted = ProbabilityFlowHeun(200).fit(problem)
    short = replace(fitted, times=fitted.times[:-1])
    sound, found = (gaussian_errors(each, problem).discretisation for each in (fitted, short))
    (mean, spread), (late_mean, late) = (moments(gaussian, process, t) for t in (process.t_min, short.times[-1]))
    expected = math.hypot(np.linalg.norm(mean - late_mean), np.linalg.norm(spread - late))
    assert found == pytest.approx(expected, abs=2 * sound)
    assert found > 20 * sound


def test_noise_at_the_wrong_size_is_found(gaussian, make_problem, process, sampled):
    # 1 % more noise in the last step of Euler-Maruyama, sd g h^(1/2): variances s^2 -> s^2 + 0.0201 g^2 h
    problem, steps = make_problem(gaussian, process), 100
    sound = EulerMaruyama(steps).fit(problem)

    def loud(noise):
        class Louder:
            def normal(self, draw):
                return noise.normal(draw) * (1.01 if draw == steps else 1.0)

        return sound.sample(Louder())

    right, wrong = (gaussian_errors(each, problem) for each in (sound, sampled(loud)))
    assert wrong.total != pytest.approx(right.total, rel=1e-7)
    t, following = sound.times[-2:]
    extra = 0.0201 * process.squared_diffusion(t) * (t - following)
    _, spread = moments(gaussian, process, process.t_min)
    # to the first order the change of the deviations, projected on the error that was there
    bound = np.linalg.norm(extra / (2 * spread)) * 1.1
    assert abs(wrong.total - right.total) < bound


def test_mixtures_and_unknown_laws_are_refused(gaussian, line, make_problem):
    law = Mixture(np.full(2, 0.5), np.eye(3)[:2], np.stack([np.eye(3)] * 2))
    problem = make_problem(law)
    with pytest.raises(CapabilityError, match="mixture of 2 in 3 dimensions"):
        exact_errors(ProbabilityFlowHeun(5).fit(problem), problem)
    problem = make_problem(gaussian)
    unknown = replace(problem, dataset=replace(problem.dataset, law=None))
    with pytest.raises(CapabilityError, match="law of the data is not known"):
        exact_errors(ProbabilityFlowHeun(5).fit(problem), unknown)


def test_a_sampler_without_the_start_has_no_parts(gaussian, make_problem, sampled):
    problem = make_problem(gaussian)
    found = gaussian_errors(sampled(lambda noise: noise.normal(3)), problem)
    assert found.discretisation is None
    assert found.initialisation is None
    assert found.total > 0
