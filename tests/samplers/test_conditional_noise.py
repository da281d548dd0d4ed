"""Conditional covariance of the koopman sampler: closed forms, a finite-difference operator, what is lost without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.rbf import RBF
from kfpbench.noise import NoiseStream
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import FRAMES, WithoutLinearPart
from kfpbench.operators.generator import FrozenGenerator, GeneratorOptions, freeze, segments
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import ProblemSize
from kfpbench.samplers.conditional_noise import ConditionalNoise, Solved, expand_variance, linear_variance
from kfpbench.samplers.koopman import Koopman
from kfpbench_baselines.gaussian import ClosedFormGaussian

CPU, F64 = torch.device("cpu"), torch.float64
PROCESS = VarianceExploding(0.05, 10.0)
ALL = ["none", "gaussian", "kernel", "kernel_mean"]


def stream(count: int, dimension: int, seed: int = 5) -> NoiseStream:
    return NoiseStream.of_range(seed, 0, count, dimension, CPU, F64)


@dataclass(frozen=True)
class GivenNoise:
    """Stands in for a noise stream: ``draws`` (draw, n, d) are given."""

    draws: torch.Tensor

    def normal(self, draw: int) -> torch.Tensor:
        return self.draws[draw]


def solved(drift, points, weights, diffusion, kernel, solver, excess=None) -> Solved:
    pencil = GalerkinPencil(points, drift, Diffusion.constant(diffusion), weights)
    frozen = FrozenGenerator(pencil, drift if excess is None else excess)
    return Solved(frozen, solver.solve(pencil, kernel, DenseGram()))


# ---- the expansion against what it stands for


@pytest.mark.parametrize("length", [0.2, 1.0])
def test_the_variance_of_a_double_well_is_that_of_a_finite_difference_operator(length):
    """dy = (y - y^3) d rho + sqrt(2 a) dw: the kernel's carre du champ integral against E[y^2] - E[y]^2 on a grid.

    The reference is e^(D A) of a second-order finite-difference scheme on 401 points; by halving the grid, its own
    error is below a tenth of the tolerance. The expansion: 300 quadrature points under N(0, 1.2^2), 60 functions.
    """
    a = 0.3

    def moments(cells):
        x = np.linspace(-4.0, 4.0, cells)
        h = x[1] - x[0]
        force = x - x**3
        up, down = (a / h**2 + sign * force / (2 * h) for sign in (1, -1))
        up, down = np.maximum(up, 0.0), np.maximum(down, 0.0)
        up[-1], down[0] = 0.0, 0.0
        matrix = np.diag(up[:-1], 1) + np.diag(down[1:], -1) - np.diag(up + down)
        flow = scipy.linalg.expm(length * matrix)
        mean = flow @ x
        return x, flow @ x**2 - mean**2

    x, exact = moments(401)
    y = torch.linspace(-3.5, 3.5, 300, dtype=F64)[:, None]
    weights = torch.exp(-0.5 * (y[:, 0] / 1.2).square())
    drift = y - y**3
    spread = torch.tensor([a], dtype=F64)
    kernel, solver = RBF(bandwidth=0.5), DenseEigensolver(truncation=1e-12, max_rank=60)
    parts = solved(drift, y, weights / weights.sum(), spread, kernel, solver)
    rates = torch.zeros(1, dtype=F64)
    folded = expand_variance(parts, length, rates, spread)
    inner = torch.linspace(-1.8, 1.8, 37, dtype=F64)[:, None]
    coarse = np.interp(inner[:, 0].numpy(), *moments(201))
    found = parts.pairs.basis.combine(folded)(inner)[:, 0].numpy() + 2.0 * a * length
    expected = np.interp(inner[:, 0].numpy(), x, exact)
    np.testing.assert_allclose(coarse, expected, rtol=3 * 0.001)  # of order 2: the coarse error is 4 times as large
    assert expected.max() > 1.5 * expected.min()  # it does depend on the state
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert np.abs(expected / (2.0 * a * length) - 1.0).max() > 0.1  # and is not the variance without a drift


@pytest.mark.parametrize("linear", ["gaussian", "none"])
def test_gaussian_data_have_the_closed_form(make_problem, gaussian_data, linear):
    """Whitened, kappa = a: Var = 1 - e^(-2 kappa D) in every coordinate, with the linear part exact to rounding.

    With the kernel alone u = (e^(-kappa D) - 1) y is learnt: relative error 1e-3 within two standard deviations.
    """
    options = GeneratorOptions(eta=1.0, segments=6, points=400)
    problem = make_problem(gaussian_data, PROCESS)
    inner = FRAMES["whitened"](gaussian_data, CPU, F64)
    frame = WithoutLinearPart(inner) if linear == "none" else inner
    span = segments(problem, options)[2]
    frozen = freeze(problem, options, frame, span.middle, 0)
    pairs = DenseEigensolver(truncation=1e-12).solve(frozen.pencil, RBF("median", factor=2.0), DenseGram())
    rates = -frame.decay(span.start, span.end, 1.0).log() / span.length
    spread = frame.span_diffusion(span.start, span.middle, span.end, 1.0)
    folded = expand_variance(Solved(frozen, pairs), span.length, rates, spread)
    folded[0] += linear_variance(frame, span, 1.0)
    y = stream(300, 3).normal(0)
    y = y[y.abs().amax(1) < 2.0]
    found = pairs.basis.combine(folded)(y)
    if linear == "gaussian":
        exact = inner.noise_scale(span.start, span.end, 1.0).square()
        torch.testing.assert_close(found, exact.expand_as(found), rtol=1e-9, atol=1e-12)
    else:
        kappa = inner.decay_rate(span.middle, 1.0)
        exact = 1.0 - torch.exp(-2.0 * kappa * span.length)
        assert float((linear_variance(frame, span, 1.0) / exact).max()) > 1.2  # what a kernel that does nothing says
        torch.testing.assert_close(found, exact.expand_as(found), rtol=1e-3, atol=0.0)


def test_random_directions_estimate_the_coupled_linear_variance():
    """dy = A y + sqrt(2 a) dw in d = 20: Var_j = 2 int_0^D sum_s a_s (e^(A r))_js^2 dr, by scipy's expm.

    Linear sections represent u exactly, so only the random directions err. One direction at one point has variance at
    most 2 (sum of squares)^2: over 2,000 points x 4 directions the mean errs by sqrt(2 / 8,000) = 1.6 % (one standard
    deviation, if points were independent of all else); 5 of them are allowed.
    """
    d, count, length = 20, 2000, 0.7
    rng = np.random.default_rng(3)
    matrix = 2.0 * rng.standard_normal((d, d)) / math.sqrt(d) - np.eye(d)
    spread = torch.from_numpy(rng.uniform(0.5, 2.0, d))
    points = torch.from_numpy(rng.standard_normal((count, d)))
    weights = torch.full((count,), 1.0 / count, dtype=F64)
    drift = points @ torch.from_numpy(matrix.T)
    solver = DenseEigensolver(truncation=1e-9, max_rank=None)
    parts = solved(drift, points, weights, spread, Polynomial(degree=1), solver)
    folded = expand_variance(parts, length, torch.zeros(d, dtype=F64), spread)
    found = (weights @ (parts.pairs.on_points @ folded)).numpy() + 2.0 * length * spread.numpy()
    nodes, shares = np.polynomial.legendre.leggauss(20)
    expected = np.zeros(d)
    for node, share in zip(nodes, shares, strict=True):
        flow = scipy.linalg.expm(matrix * 0.5 * (node + 1.0) * length)
        expected += length * share * (flow**2 @ spread.numpy())
    diagonal = sum(
        length * share * np.diag(scipy.linalg.expm(matrix * 0.5 * (node + 1.0) * length)) ** 2
        for node, share in zip(nodes, shares, strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=5 * math.sqrt(2.0 / (4 * count)))
    assert (diagonal * spread.numpy() / expected).mean() < 0.75  # the off-diagonal slopes matter


# ---- the law of the sampler


def affine_law(fitted, inputs: int, d: int):
    """Covariance from the start and from the noise of a sampler that is affine in its normal numbers."""
    draws = torch.zeros(inputs, inputs * d + 1, d, dtype=F64)
    for number in range(inputs * d):
        draws[number // d, number + 1, number % d] = 1.0
    rows = fitted.sample(GivenNoise(draws)).numpy()
    response = rows[1:] - rows[0]
    return response[:d].T @ response[:d], response[d:].T @ response[d:]


@pytest.mark.parametrize("count", [1, 4])
def test_what_the_covariance_restores_and_its_lack_loses(make_problem, gaussian_data, count):
    """Gaussian data at eta = 1: the kernel's covariance is the closed form; without one only m^2 of S_0 is left.

    m^2 = R_0 / R_T with R = lam + sigma^2: over the whole span the conditional means have variance lam^2 / R to a
    fraction (sigma_min / sigma_max)^2, times sigma_T^2 / R_T of the start: E[x_0 | x_T] has lost almost everything.
    """
    problem = make_problem(gaussian_data, PROCESS)
    operator = GeneratorOptions(eta=1.0, segments=count, points=100)
    laws = {
        covariance: affine_law(Koopman(RBF(), operator=operator, covariance=covariance).fit(problem), count + 1, 3)
        for covariance in ("none", "gaussian", "kernel_mean")
    }
    np.testing.assert_allclose(laws["none"][1], 0.0, atol=0.0)
    np.testing.assert_allclose(laws["kernel_mean"][1], laws["gaussian"][1], rtol=1e-9, atol=1e-12)
    frame = FRAMES["whitened"](gaussian_data, CPU, F64)
    lam, basis = frame.variances.numpy(), frame.basis.numpy()
    last, first = (lam + sigma**2 for sigma in (0.05, 10.0))
    collapsed = last * (last / first) * (100.0 / first)
    np.testing.assert_allclose(basis.T @ laws["none"][0] @ basis, np.diag(collapsed), atol=1e-9)
    assert (collapsed < 0.1 * last).all()
    total = sum(laws["kernel_mean"])
    assert np.trace(basis.T @ total @ basis) == pytest.approx(last.sum(), rel=0.05)  # 100 / (100 + lam) of the start


def test_the_state_dependent_scale_is_the_gaussian_one_for_gaussian_data(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, PROCESS)
    operator = GeneratorOptions(eta=1.0, segments=3, points=60)
    noise = stream(50, 3)
    rows = [
        Koopman(RBF(), operator=operator, covariance=covariance).fit(problem).sample(noise)
        for covariance in ("gaussian", "kernel")
    ]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-8, atol=1e-8)


def test_the_kernel_alone_leads_gaussian_data_to_their_law(make_problem, gaussian_data):
    """linear: none, covariance: kernel: no closed form takes part, yet the end has the data's covariance.

    4,000 samples: a variance has standard error sqrt(2 / 4000) = 2.2 %, 4 of them are allowed, and 4 % of the fit.
    """
    problem = make_problem(gaussian_data, PROCESS)
    operator = GeneratorOptions(eta=1.0, segments=10, points=400)
    solver = DenseEigensolver(truncation=1e-12)
    fitted = Koopman(RBF("median", factor=2.0), solver, operator=operator, linear="none", covariance="kernel")
    y = FRAMES["whitened"](gaussian_data, CPU, F64)
    found = fitted.fit(problem)
    assert all(bool((step.decay == 1.0).all()) for step in found.steps)
    end = found.steps[-1].segment.end
    rows = y.encode(found.sample(stream(4000, 3)), end)
    assert float((rows.var(0) - 1.0).abs().max()) < 4 * math.sqrt(2 / 4000) + 0.04
    bare = Koopman(rank=0, operator=operator, linear="none", covariance="kernel").fit(problem)
    wild = y.encode(bare.sample(stream(4000, 3)), end)
    assert float(wild.var(0).min()) > 3.0  # noise without the drift that holds it together


# ---- the switches


@pytest.mark.parametrize("time", ["frozen", "piecewise", "augmented"])
def test_without_stochasticity_the_switches_change_nothing(make_problem, planar, time):
    operator = GeneratorOptions(time=time, segments=3, points=60)
    noise = stream(40, 2)
    plain = Koopman(operator=operator).fit(make_problem(planar, PROCESS)).sample(noise)
    for covariance in ALL:
        for linear in ("gaussian", "none"):
            sampler = Koopman(operator=operator, covariance=covariance, linear=linear)
            rows = sampler.fit(make_problem(planar, PROCESS)).sample(noise)
            assert torch.equal(rows, plain)


def test_in_the_raw_frame_there_is_no_linear_part(make_problem, planar):
    operator = GeneratorOptions(eta=1.0, segments=3, points=60, frame="raw")
    noise = stream(40, 2)
    rows = [
        Koopman(operator=operator, linear=linear).fit(make_problem(planar, PROCESS)).sample(noise)
        for linear in ("gaussian", "none")
    ]
    assert torch.equal(*rows)


def test_without_a_linear_part_the_excess_is_the_whole_drift(make_problem, planar):
    problem = make_problem(planar, PROCESS)
    options = GeneratorOptions(eta=1.0, points=80)
    span = segments(problem, options)[4]
    inner = FRAMES["whitened"](planar, CPU, F64)
    with_linear, without = (
        freeze(problem, options, frame, span.middle, 4) for frame in (inner, WithoutLinearPart(inner))
    )
    torch.testing.assert_close(without.pencil.drift, with_linear.pencil.drift, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(without.excess, without.pencil.drift, rtol=0, atol=0)
    assert float((without.excess - with_linear.excess).abs().max()) > 0.1
    torch.testing.assert_close(without.pencil.points, with_linear.pencil.points, rtol=0, atol=0)


def test_at_rank_zero_the_kernel_has_no_part_in_the_covariance(make_problem, planar):
    problem = make_problem(planar, PROCESS)
    noise = stream(30, 2)
    operator = GeneratorOptions(eta=0.7, segments=4)
    rows = [
        Koopman(operator=operator, rank=0, covariance=covariance).fit(problem).sample(noise)
        for covariance in ("gaussian", "kernel", "kernel_mean")
    ]
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(rows[1], rows[2])
    assert problem.score.evaluations == 0


@pytest.mark.parametrize("covariance", ALL)
@pytest.mark.parametrize("rank", [None, 7])
def test_the_setup_evaluates_the_score_once_a_point(make_problem, planar, covariance, rank):
    problem = make_problem(planar, PROCESS)
    operator = GeneratorOptions(eta=1.0, segments=3, points=50)
    fitted = Koopman(operator=operator, covariance=covariance, rank=rank).fit(problem)
    assert problem.score.evaluations == 3 * 50
    fitted.sample(stream(20, 2))
    assert problem.score.evaluations == 3 * 50
    assert all(isinstance(step.noise_scale, ConditionalNoise) == (covariance == "kernel") for step in fitted.steps)
    told = fitted.describe()["segments"]
    assert all(("variance_below_zero" in part) == covariance.startswith("kernel") for part in told)


def test_a_variance_stays_within_its_bounds(make_problem, planar):
    """Far from the points the expansion is anything; the scale is between 0 and the largest at the points."""
    operator = GeneratorOptions(eta=1.0, segments=4, points=200)
    fitted = Koopman(RBF("median"), operator=operator, covariance="kernel").fit(make_problem(planar, PROCESS))
    far = 6.0 * stream(2000, 2).normal(0)
    wild = False
    for step in fitted.steps:
        scale = step.scale_at(far)
        assert bool((scale >= 0).all())
        assert bool((scale.square() <= step.noise_scale.high * (1 + 1e-12)).all())
        raw = step.noise_scale.variance(far)
        wild = wild or bool((raw < 0).any()) or bool((raw > 10 * step.noise_scale.high).any())
    assert wild  # what it would have been


def test_augmented_time_has_no_kernel_covariance(make_problem, planar):
    problem = make_problem(planar, PROCESS)
    operator = GeneratorOptions(eta=1.0, time="augmented", segments=2, points=40)
    with pytest.raises(CapabilityError, match="instant"):
        Koopman(operator=operator, covariance="kernel").fit(problem)
    assert problem.score.evaluations == 0


@pytest.mark.parametrize(
    ("keywords", "match"), [({"linear": "some"}, "linear"), ({"covariance": "full"}, "covariance")]
)
def test_unknown_switches_are_refused(keywords, match):
    with pytest.raises(ParameterError, match=match):
        Koopman(**keywords)


def test_memory_counts_the_second_expansion():
    size = ProblemSize(1000, 3072, 100, 4)
    operator = GeneratorOptions(eta=1.0)
    plain, mean, pointwise = (
        Koopman(operator=operator, covariance=covariance).working_memory(size)
        for covariance in ("gaussian", "kernel_mean", "kernel")
    )
    assert plain < mean < pointwise
    assert pointwise - mean >= 8 * 8 * 1000 * 3072  # one more table of weights a segment


def test_the_kernel_covariance_serves_a_mixture_better(make_problem):
    """Two modes on a line at eta = 1, 8 segments: Wasserstein-1 distance to the exact quantiles.

    4,000 rows of the law itself are within 0.03 of it: the share of a mode, 4 apart, has standard error 0.008.
    """
    law = Mixture(np.array([0.5, 0.5]), np.array([[-2.0], [2.0]]), np.full((2, 1, 1), 0.09))
    rows = law.sample(5000, np.random.default_rng(1))
    problem = make_problem(Dataset("line", rows, rows[:0], rows[:0], law=law), VarianceExploding(0.01, 20.0))
    exact = scipy.stats.norm.ppf((np.arange(2000) + 0.5) / 2000) * 0.3
    exact = np.concatenate([exact - 2.0, exact + 2.0])  # the modes do not overlap
    solver = DenseEigensolver(ridge=1e-9, truncation=1e-12, max_rank=60)
    operator = GeneratorOptions(eta=1.0, segments=8, points=400)
    distances = {}
    for covariance in ALL:
        sampler = Koopman(RBF("median", factor=0.2), solver, operator=operator, covariance=covariance)
        samples = sampler.fit(problem).sample(stream(4000, 1))[:, 0].numpy()
        distances[covariance] = np.abs(np.sort(samples) - exact).mean()
    # measured: none 0.46, gaussian 0.25, kernel 0.11, kernel_mean 0.13
    assert distances["kernel"] < 0.6 * distances["gaussian"] - 0.03
    assert distances["kernel_mean"] < 0.7 * distances["gaussian"] - 0.03
    assert distances["gaussian"] < distances["none"] - 0.06


def test_rank_zero_without_noise_is_the_closed_form_in_any_switch(make_problem, planar):
    problem = make_problem(planar, PROCESS)
    exact = ClosedFormGaussian().fit(problem).sample(stream(30, 2))
    for linear in ("gaussian", "none"):
        rows = Koopman(rank=0, linear=linear, covariance="kernel").fit(problem).sample(stream(30, 2))
        torch.testing.assert_close(rows, exact, rtol=1e-10, atol=1e-10)
