"""Quantile functions and W2 on the line, against closed forms, samples, and the Gaussian formula."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from kfpbench.data.dataset import Mixture
from kfpbench.errors import CapabilityError
from kfpbench.exact.exact_errors import exact_errors
from kfpbench.exact.gaussian_w2 import gaussian_errors
from kfpbench.exact.mixture_w2_1d import line_errors, mixture_quantiles, monotone_map, quantile_w2, smoothed
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.pf_ode_euler import ProbabilityFlowEuler
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun

GRID = np.linspace(-10, 10, 4097)


def cdf(law, x):
    return ndtr((x[:, None] - law.means[:, 0]) / np.sqrt(law.covariances[:, 0, 0])) @ law.weights


def single(mean, deviation):
    return Mixture(np.ones(1), np.array([[mean]]), np.array([[[deviation**2]]]))


def test_quantiles_invert_the_distribution_function(line):
    z = np.linspace(-6, 6, 401)
    x = mixture_quantiles(line, z)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(cdf(line, x[z <= 0]), ndtr(z[z <= 0]), rtol=1e-12)
    mirrored = Mixture(line.weights, -line.means, line.covariances)
    np.testing.assert_allclose(cdf(mirrored, -x[z > 0]), ndtr(-z[z > 0]), rtol=1e-12)
    np.testing.assert_allclose(mixture_quantiles(mirrored, -z), -x, rtol=1e-12, atol=1e-14)


def test_quantiles_of_one_component_are_affine():
    np.testing.assert_allclose(mixture_quantiles(single(3.0, 0.2), GRID), 3.0 + 0.2 * GRID, rtol=1e-14)


def test_w2_of_gaussians_and_of_a_shift(line):
    found = quantile_w2(GRID, 1.0 + 2.0 * GRID, -2.0 + 6.0 * GRID)
    assert found == pytest.approx(5.0, rel=1e-13)
    quantiles = mixture_quantiles(line, GRID)
    assert quantile_w2(GRID, quantiles, quantiles + 0.25) == pytest.approx(0.25, rel=1e-13)


def test_w2_to_its_mean_is_the_deviation(line):
    mean = float(line.weights @ line.means[:, 0])
    variance = float(line.weights @ (line.covariances[:, 0, 0] + line.means[:, 0] ** 2)) - mean**2
    found = quantile_w2(GRID, mixture_quantiles(line, GRID), np.full_like(GRID, mean))
    assert found == pytest.approx(math.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize(
    ("function", "monotone", "order", "last"),
    [
        (lambda z: -z, lambda z: z, 2, 1e-5),  # the same law
        (np.abs, lambda z: np.where(z < 0, ndtri(0.5 + 0.5 * ndtr(z)), -ndtri(0.5 * ndtr(-z))), 1, 1e-3),  # half-normal
    ],
    ids=["decreasing", "folded"],
)
def test_maps_that_are_not_monotone_are_rearranged(function, monotone, order, last):
    errors = []
    for intervals in (1024, 2048, 4096):
        z = np.linspace(-10, 10, intervals + 1)
        errors.append(quantile_w2(z, monotone_map(z, function(z)), monotone(z)))
    assert errors[-1] < last
    assert [math.log2(coarse / fine) for coarse, fine in pairwise(errors)] == pytest.approx([order] * 2, abs=0.1)


def test_a_monotone_map_is_left_alone():
    values = GRID**3
    assert monotone_map(GRID, values) is values


@pytest.mark.parametrize("solver", [ProbabilityFlowEuler(7), ProbabilityFlowHeun(7)])
def test_agrees_with_the_gaussian_formula(make_problem, process, solver):
    problem = make_problem(single(0.7, 0.8), process)
    fitted = solver.fit(problem)
    one, other = gaussian_errors(fitted, problem), line_errors(fitted, problem)
    for name in ("total", "data", "discretisation", "initialisation"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9), name


def empirical_gap(z):
    """W2 between n sorted points and N(0, 1), exactly: the points' masses are transported to their own quantile cells.

    W2^2 = mean z^2 + 1 - 2 sum_i z_i int of the quantile function over cell i, which is phi(q_i) - phi(q_(i+1)).
    """
    ends = ndtri(np.linspace(0, 1, len(z) + 1))
    density = np.exp(-0.5 * ends**2) / math.sqrt(2 * math.pi)
    return math.sqrt(float(np.mean(z**2) + 1 - 2 * z @ -np.diff(density)))


@pytest.mark.parametrize("solver", [ProbabilityFlowEuler(2), ProbabilityFlowHeun(2)])
def test_against_sorted_samples(line, make_problem, process, solver):
    """|W2(X, p) - W2(of samples)| <= W2(samples of X, X) + W2(samples of p, p) <= L_X e + L_p e'.

    With a monotone map of Lipschitz constant L from N(0, 1), a sample is as near to its law as L times the normal
    sample behind it is to N(0, 1), and that distance is known for the sample itself: nothing is left to chance.
    """
    problem, n = make_problem(line, process), 500_000
    fitted = solver.fit(problem)
    found = line_errors(fitted, problem)
    rng = np.random.default_rng(5)
    end = smoothed(line, process.alpha(process.t_min), process.sigma(process.t_min))

    class Given:
        def normal(self, draw):
            return torch.tensor(z[:, None])

    z = np.sort(rng.standard_normal(n))
    drawn = fitted.sample(Given())[:, 0].numpy()
    reference = np.sort(end.sample(n, rng)[:, 0].astype(np.float64))
    behind = ndtri(cdf(end, reference))
    between = math.sqrt(np.mean((np.sort(drawn) - reference) ** 2))
    fine = np.linspace(-6, 6, 20_001)
    z_samples, z = z, fine  # Given sends the grid now
    maps = fitted.sample(Given())[:, 0].numpy(), mixture_quantiles(end, fine)
    steepest = [np.abs(np.diff(values)).max() / (fine[1] - fine[0]) for values in maps]
    bound = 1.01 * (steepest[0] * empirical_gap(z_samples) + steepest[1] * empirical_gap(behind))
    assert bound < 0.5 * found.total  # the comparison says something
    assert abs(between - found.total) < bound


@pytest.mark.parametrize(("solver", "order"), [(ProbabilityFlowEuler, 1), (ProbabilityFlowHeun, 2)])
def test_order_of_the_discretisation_error(line, make_problem, process, solver, order):
    problem = make_problem(line, process)
    found = [line_errors(solver(steps=n).fit(problem), problem).discretisation for n in (80, 160, 320)]
    assert [math.log2(a / b) for a, b in pairwise(found)] == pytest.approx([order] * 2, abs=0.15)


def test_the_exact_flow_errs_at_its_start_alone(line, make_problem, process, sampled):
    begin, end = (smoothed(line, process.alpha(t), process.sigma(t)) for t in (process.t_max, process.t_min))

    def flow(noise):
        x = process.sigma(process.t_max) * noise.normal(0)[:, 0].numpy()
        # through the nearer tail, so that both keep their digits
        mirrored = Mixture(begin.weights, -begin.means, begin.covariances)
        z = np.where(x < 0, ndtri(cdf(begin, x)), -ndtri(cdf(mirrored, -x)))
        return torch.tensor(mixture_quantiles(end, z)[:, None])

    found = line_errors(sampled(flow), make_problem(line, process))
    assert found.discretisation < 1e-9
    assert found.total == pytest.approx(found.initialisation, rel=1e-6)
    assert found.accuracy <= 1e-3 * max(found.total, found.data) + 1e-8


def test_a_sampler_that_is_not_affine_is_measured_on_one_gaussian(make_problem, sampled):
    problem = make_problem(single(0.0, 1.0))
    sigma = problem.process.sigma(problem.process.t_min)
    target = math.hypot(1.0, sigma)
    found = exact_errors(sampled(lambda noise: target * noise.normal(0) + 0.1 * noise.normal(0) ** 3), problem)
    # the map is monotone: W2^2 = E (0.1 z^3)^2 = 0.15
    assert found.total == pytest.approx(math.sqrt(0.15), rel=1e-9)


def test_noise_on_the_way_and_more_dimensions_are_refused(line, gaussian, make_problem):
    problem = make_problem(line)
    with pytest.raises(CapabilityError, match="adds noise on its way"):
        exact_errors(EulerMaruyama(5).fit(problem), problem)
    planar = make_problem(gaussian)
    with pytest.raises(CapabilityError, match="one dimension"):
        line_errors(ProbabilityFlowHeun(5).fit(planar), planar)


def test_the_grid_is_refined_or_the_accuracy_refused(make_problem):
    def far(distance):
        return Mixture(np.array([0.37, 0.63]), np.array([[-distance], [distance]]), np.full((2, 1, 1), 0.01))

    problem = make_problem(far(1.0))
    found = line_errors(ProbabilityFlowHeun(12).fit(problem), problem)
    assert found.accuracy <= 1e-3 * max(found.total, found.data)
    problem = make_problem(far(1.0))
    coarse = line_errors(ProbabilityFlowHeun(12).fit(problem), problem, accuracy=1e-2)
    assert coarse.total == pytest.approx(found.total, rel=1.1e-2)
