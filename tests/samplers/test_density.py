"""Density mode: weights against matrix exponentials and Gaussian laws, kernels against their moments, the ring's floor.

A polynomial kernel of degree 2 spans {1, y_a, y_a y_b}, which a generator with linear drift and constant diffusion maps
to itself: on Gaussian data the Galerkin projection is exact for any points, so that means and second moments of the
weights are those of a linear SDE in closed form, without sampling error.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.rbf import RBF
from kfpbench.metrics.energy_distance import energy_distance
from kfpbench.noise import NoiseStream
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze, noised_rows, segments
from kfpbench.operators.marginal import marginal
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import ProblemSize
from kfpbench.samplers.density import Density
from kfpbench.samplers.fokker_planck_weights import WeightedPoints, carry, transfer

CPU = torch.device("cpu")
VE = VarianceExploding(0.05, 20.0)
Z = 4.4  # standard errors: a two-sided probability of 1e-5


def stream(count, dimension=2, seed=5):
    return NoiseStream.of_range(seed, 0, count, dimension, CPU, torch.float64)


def eigenpairs(pencil, kernel, rank=None, **solver):
    pairs = DenseEigensolver(**solver).solve(pencil, kernel, DenseGram())
    return pairs if rank is None else pairs.slowest(rank)


def moments_of(law):
    """Mean (d,) and second moments (d, d) of a signed measure."""
    weighted = law.weights[:, None] * law.points
    return weighted.sum(0), weighted.T @ law.points


# ---- the weights against the matrix exponential of the adjoint


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("frame", ["raw", "whitened"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_full_rank_weights_are_the_dense_exponential(make_problem, planar, eta, frame, ridge):
    problem = make_problem(planar, VE)
    options = GeneratorOptions(eta=eta, frame=frame, segments=6, points=80)
    span = segments(problem, options)[2]
    coordinates = FRAMES[frame](planar, CPU, torch.float64)
    pencil = freeze(problem, options, coordinates, span.middle, 0).pencil
    pairs = eigenpairs(pencil, RBF(), max_rank=20, ridge=ridge)
    before = WeightedPoints.uniform(coordinates.encode(span.start.sigma * stream(50).normal(0), span.start))
    found = carry(pairs, pencil.points, before, span.length)

    features = pairs.basis.features(pencil.points).numpy()
    images = pairs.basis.images(pencil.points, pencil.drift, pencil.diffusion).numpy()
    weights = np.diag(pencil.weights.numpy())
    mass = np.eye(features.shape[1]) if pairs.mass is None else np.diag(pairs.mass.numpy())
    # L F = F B^-1 S in the projection, so E_end[u] = m exp(D B^-1 S) B^-1 F^T W u: the weights are its transpose
    generator = np.linalg.solve(mass, features.T @ weights @ images)
    moments = pairs.basis.features(before.points).numpy().mean(0)
    density = np.linalg.solve(mass, scipy.linalg.expm(span.length * generator).T @ moments)
    expected = weights @ features @ density
    # eps times the condition of the eigenvectors, and sums over 21 functions
    tolerance = 1e-15 * pairs.diagnostics["eigenvector_condition"] * 21 * np.abs(expected).max()
    np.testing.assert_allclose(found.weights, expected, atol=max(tolerance, 1e-12))
    assert float(found.weights.sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("rank", [None, 1, 4])
def test_the_total_stays_one_when_the_constant_is_kept(make_problem, planar, rank):
    fitted = Density(operator=GeneratorOptions(segments=3, points=80, eta=1.0), rank=rank).fit(make_problem(planar, VE))
    record = fitted.describe()
    assert [segment["total"] for segment in record["segments"]] == pytest.approx([1.0] * 3, abs=1e-8)
    assert float(fitted.weights.sum()) == pytest.approx(1.0, abs=1e-8)


# ---- an exact Ornstein-Uhlenbeck process, by quadrature: no sampling error


@pytest.fixture(scope="module")
def ou_pencil():
    """dx = -x dt + sqrt(2) dw on a grid with the weights of its invariant density N(0, 1)."""
    grid = torch.linspace(-7.0, 7.0, 200, dtype=torch.float64)[:, None]
    weights = torch.exp(-0.5 * grid[:, 0].square())
    return GalerkinPencil(grid, -grid, Diffusion.constant(1.0), weights / weights.sum())


def gaussian_law(pencil, mean, variance):
    x = pencil.points[:, 0]
    weights = torch.exp(-0.5 * (x - mean).square() / variance)
    return WeightedPoints(pencil.points, weights / weights.sum())


@pytest.mark.parametrize("length", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.8, 0.6), (-1.0, 0.9)])
def test_gaussian_laws_relax_in_closed_form(ou_pencil, length, mean, variance):
    pairs = eigenpairs(ou_pencil, RBF(1.5), max_rank=25)
    law = carry(pairs, ou_pencil.points, gaussian_law(ou_pencil, mean, variance), length)
    x, decay = ou_pencil.points[:, 0], np.exp(-length)
    end_mean, end_variance = mean * decay, 1.0 + (variance - 1.0) * decay**2
    # the density relative to N(0, 1) is expanded in Hermite functions, whose coefficients fall as |1 - variance|^(n/2)
    assert float(law.weights @ x) == pytest.approx(end_mean, abs=1e-4)
    assert float(law.weights @ x.square()) == pytest.approx(end_mean**2 + end_variance, abs=1e-4)
    expected = np.cos(end_mean) * np.exp(-0.5 * end_variance)
    assert float(law.weights @ torch.cos(x)) == pytest.approx(expected, abs=1e-4)


def test_a_rank_carries_as_many_hermite_moments(ou_pencil):
    """Eigenfunctions are 1, x, x^2 - 1, ...: rank r gives the first r - 1 moments, the others those of N(0, 1)."""
    mean, variance, length = 0.8, 0.6, 0.3
    x, decay = ou_pencil.points[:, 0], np.exp(-0.3)
    first, second = mean * decay, mean**2 * decay**2 + 1.0 + (variance - 1.0) * decay**2
    for rank, expected in ((1, (0.0, 1.0)), (2, (first, 1.0)), (3, (first, second))):
        pairs = eigenpairs(ou_pencil, RBF(1.5), rank, max_rank=25)
        law = carry(pairs, ou_pencil.points, gaussian_law(ou_pencil, mean, variance), length)
        found = float(law.weights @ x), float(law.weights @ x.square())
        assert found == pytest.approx(expected, abs=1e-4)
    one = carry(eigenpairs(ou_pencil, RBF(1.5), 1, max_rank=25), ou_pencil.points, law, length)
    torch.testing.assert_close(one.weights, ou_pencil.weights, atol=1e-6, rtol=0)  # the invariant density itself


# ---- Gaussian data: every moment of degree 2 in closed form


def linear_sde(problem, options, start_mean, start_second):
    """Mean and second moments after the spans, dy = (A y + c) d rho + sqrt(2 a) dw frozen at each midpoint."""
    frame = FRAMES[options.frame](problem.dataset, CPU, torch.float64)
    d = problem.dataset.dimension
    mean, second = start_mean, start_second
    for span in segments(problem, options):
        at = span.middle
        probe = torch.cat([torch.zeros(1, d), torch.eye(d)]).double()
        x = frame.decode(probe, at)
        denoised = problem.score.denoise(x, at.alpha, at.sigma)
        drift = frame.excess_drift(x, denoised, at, options.eta) - frame.decay_rate(at, options.eta) * probe
        shift, matrix = drift[0].numpy(), (drift[1:] - drift[0]).numpy().T
        a = np.diag(frame.diffusion(at, options.eta).numpy())
        block = np.block([[matrix, shift[:, None]], [np.zeros((1, d + 1))]])
        flow = scipy.linalg.expm(span.length * block)
        forced = np.zeros((2 * d, 2 * d))  # Van Loan: the covariance that the noise adds
        forced[:d, :d], forced[:d, d:], forced[d:, d:] = -matrix, 2.0 * a, matrix.T
        exponential = scipy.linalg.expm(span.length * forced)
        added = exponential[d:, d:].T @ exponential[:d, d:]
        new = flow[:d, :d] @ mean + flow[:d, d]
        covariance = flow[:d, :d] @ (second - np.outer(mean, mean)) @ flow[:d, :d].T + added
        mean, second = new, covariance + np.outer(new, new)
    return mean, second


PROCESSES = [
    pytest.param(VarianceExploding(0.5, 20.0), id="ve"),
    pytest.param(VariancePreserving(), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.7, stationary_std=1.5, t_min=0.05, t_max=3.0), id="ou"),
]


def quadratic(**parameters):
    return Density(kernel=Polynomial(2), eigensolver=DenseEigensolver(max_rank=None), **parameters)


@pytest.mark.parametrize(
    ("frame", "eta"),
    # posterior, eta = 1: the drift is 0, L y^2 = 2 a and L 1 = 0, a Jordan block that eigenpairs cannot represent
    [(frame, eta) for frame in FRAMES for eta in (0.0, 0.6, 1.0) if (frame, eta) != ("posterior", 1.0)],
)
@pytest.mark.parametrize("process", PROCESSES)
def test_moments_follow_the_linear_sde(make_problem, gaussian_data, process, eta, frame):
    problem = make_problem(gaussian_data, process)
    options = GeneratorOptions(eta=eta, frame=frame, segments=5, points=60)
    fitted = quadratic(operator=options, draws="independent").fit(problem)
    coordinates, end = FRAMES[frame](gaussian_data, CPU, torch.float64), segments(problem, options)[-1].end
    _, _, x = noised_rows(problem, problem.dataset.train, end, 60, 5)
    found = moments_of(WeightedPoints(coordinates.encode(x, end), fitted.weights))
    draws = NoiseStream.of_range(problem.seed, 0, 4096, 3, CPU, torch.float64, stream=1).normal(13)
    start = segments(problem, options)[0].start
    y = coordinates.encode(start.sigma * draws, start)
    expected = linear_sde(problem, options, y.mean(0).numpy(), (y.T @ y / 4096).numpy())
    for mine, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-6 * np.abs(expected[1]).max())


def test_the_excess_drift_alone_would_be_found(make_problem, gaussian_data):
    """The planted defect: the koopman sampler's observable, zero for Gaussian data, in place of the whole drift."""
    problem = make_problem(gaussian_data, VarianceExploding(0.5, 20.0))
    options = GeneratorOptions(eta=1.0, segments=1, points=60)
    frame, span = FRAMES["whitened"](gaussian_data, CPU, torch.float64), segments(problem, options)[0]
    frozen = freeze(problem, options, frame, span.middle, 0)
    y = frame.encode(span.start.sigma * stream(400, 3).normal(0), span.start)
    expected = linear_sde(problem, options, y.mean(0).numpy(), (y.T @ y / 400).numpy())[1]
    gaps = []
    for drift in (frozen.pencil.drift, frozen.excess):
        pairs = eigenpairs(replace(frozen.pencil, drift=drift), Polynomial(2), max_rank=None)
        law = carry(pairs, frozen.pencil.points, WeightedPoints.uniform(y), span.length)
        gaps.append(float(np.abs(moments_of(law)[1].numpy() - expected).max()))
    assert gaps[0] < 1e-8
    assert gaps[1] > 0.5


def test_the_law_at_the_end_is_exact_within_the_starts_sampling_error(make_problem, gaussian_data):
    """Whitened, eta = 1: y decays by (R_end / R_start)^(1/2) and is refilled to variance 1, in closed form."""
    problem = make_problem(gaussian_data, VarianceExploding(0.5, 20.0))
    options = GeneratorOptions(eta=1.0, segments=40, points=60)
    fitted = quadratic(operator=options, draws="independent").fit(problem)
    spans, frame = segments(problem, options), FRAMES["whitened"](gaussian_data, CPU, torch.float64)
    start, end = spans[0].start, spans[-1].end
    _, _, x = noised_rows(problem, problem.dataset.train, end, 60, 40)
    mean, second = moments_of(WeightedPoints(frame.encode(x, end), fitted.weights))
    decay = frame.decay(start, end, 1.0)
    y_mean = frame.encode(torch.zeros(1, 3).double(), start)[0]
    variance = frame.encode(start.sigma * stream(20_000, 3).normal(0), start).var(0)  # below 1, to 1 %
    exact = decay * y_mean
    # start: sd of y over 64, damped; freezing: order 2, below 1e-3 at 40 segments (see the order's test)
    assert ((mean - exact).abs() <= Z * decay * variance.sqrt() / 64 + 1e-3).all()
    spread = 1.0 - decay.square() * (1.0 - variance)
    error = Z * decay.square() * np.sqrt(2.0 / 4096) + 0.02 * decay.square() + 1e-3
    assert ((second.diagonal() - mean.square() - spread).abs() <= error).all()


@pytest.mark.parametrize("frame", ["raw", "whitened"])
def test_freezing_at_midpoints_is_of_order_two(make_problem, gaussian_data, frame):
    problem = make_problem(gaussian_data, VarianceExploding(0.5, 20.0))
    coordinates = FRAMES[frame](gaussian_data, CPU, torch.float64)
    start, end = (marginal(problem.process, t) for t in (problem.process.t_max, problem.process.t_min))
    _, _, x = noised_rows(problem, problem.dataset.train, end, 40, 0)
    y0 = coordinates.encode(start.sigma * _first_normal(problem, 40), start).mean(0)
    whitened = FRAMES["whitened"](gaussian_data, CPU, torch.float64)
    # the exact mean flow: linear in the whitened frame, whatever the frame of the solution
    flow = whitened.decay(start, end, 1.0) * whitened.encode(coordinates.decode(y0[None], start), start)[0]
    exact = coordinates.encode(whitened.decode(flow[None], end), end)[0]
    errors = []
    for count in (8, 16, 32):
        options = GeneratorOptions(eta=1.0, frame=frame, segments=count, points=40)
        law = quadratic(operator=options).fit(problem)
        mean, _ = moments_of(WeightedPoints(coordinates.encode(x, end), law.weights))
        errors.append(float((mean - exact).norm()))
    ratios = [errors[0] / errors[1], errors[1] / errors[2]]
    assert all(3.5 < ratio < 4.5 for ratio in ratios), (errors, ratios)


def _first_normal(problem, count):
    return NoiseStream.of_range(problem.seed, 0, count, 3, CPU, torch.float64, stream=1).normal(1)


# ---- the points at t_min


def test_particles_are_the_rows_that_freeze_draws(make_problem, planar):
    problem, options = make_problem(planar, VE), GeneratorOptions(segments=2, points=30)
    frame, at = FRAMES["whitened"](planar, CPU, torch.float64), segments(problem, options)[1].middle
    for draw in (0, 3):
        _, origin, x = noised_rows(problem, problem.dataset.train, at, 50, draw)
        frozen = freeze(problem, options, frame, at, draw).pencil.points
        torch.testing.assert_close(frame.encode(x[:30], at), frozen, rtol=0, atol=1e-12)
        residual = (x - at.alpha * origin) / at.sigma
        assert abs(float(residual.mean())) < Z / 10
        assert len(torch.unique(origin, dim=0)) > 45
    assert problem.score.evaluations == 60  # those of freeze


def test_transfer_keeps_the_moments_and_on_its_own_points_the_weights(make_problem, planar):
    problem = make_problem(planar, VE)
    options = GeneratorOptions(eta=1.0, segments=6, points=100, frame="raw")
    frame, span = FRAMES["raw"](planar, CPU, torch.float64), segments(problem, options)[4]
    pencil = freeze(problem, options, frame, span.middle, 0).pencil
    pairs = eigenpairs(pencil, RBF(), max_rank=12)
    law = carry(pairs, pencil.points, WeightedPoints.uniform(span.start.sigma * stream(100).normal(0)), span.length)
    torch.testing.assert_close(transfer(law, pairs.basis, pencil.points).weights, law.weights, rtol=0, atol=1e-10)
    particles = noised_rows(problem, problem.dataset.train, span.end, 300, 1)[2]
    moved = transfer(law, pairs.basis, particles)
    torch.testing.assert_close(moved.moments(pairs.basis), law.moments(pairs.basis), rtol=0, atol=1e-10)
    same = transfer(WeightedPoints.uniform(particles), pairs.basis, particles)
    torch.testing.assert_close(same.weights, torch.full((300,), 1 / 300, dtype=torch.float64))
    # the planted defect: the density relative to the midpoint's p, used as one relative to p at the end
    density = torch.linalg.lstsq(pairs.on_points, len(pencil.points) * law.weights[:, None]).solution[:, 0]
    naive = pairs.basis.features(particles) @ density / 300
    gap = (WeightedPoints(particles, naive).moments(pairs.basis) - law.moments(pairs.basis)).abs().max()
    assert gap > 0.05


# ---- counts, controls, refusals


def test_memory_counts_the_start_draws_of_its_own():
    """4,096 start draws and their sections on 500 points, whatever the number of points."""
    size, operator = ProblemSize(1000, 64, 10, 4), GeneratorOptions(points=500)
    common, independent = (
        Density(operator=operator, draws=draws).working_memory(size) for draws in ("common", "independent")
    )
    assert independent - common >= 8 * (4096 - 500) * (500 + 64)


def test_setup_counts_points_times_segments_and_sampling_none(make_problem, planar):
    problem = make_problem(planar, VE)
    fitted = Density(operator=GeneratorOptions(segments=3, points=40), particles=90).fit(problem)
    assert problem.score.evaluations == 120
    assert fitted.sample(stream(10)).shape == (10, 2)
    assert problem.score.evaluations == 120
    record = fitted.describe()
    assert record["particles"]["count"] == 90
    assert len(record["segments"]) == 3
    for segment in record["segments"]:
        assert 0 <= segment["negative_mass"] < 0.5
        assert 1 <= segment["effective_size"] <= 40


def test_a_frozen_operator_is_one_segment(make_problem, planar):
    problem = make_problem(planar, VE)
    fitted = Density(operator=GeneratorOptions(time="frozen", points=40, eta=1.0)).fit(problem)
    assert problem.score.evaluations == 40
    assert len(fitted.describe()["segments"]) == 1


def test_common_draws_keep_uniform_weights_where_nothing_moves(make_problem):
    """Pure noise: with alpha x_0 = 0 the whitened points are the same eps in every segment, and so is the start."""
    rows = np.zeros((50, 2), dtype=np.float32)
    problem = make_problem(Dataset("nothing", rows, rows[:0], rows[:0]), VE)
    weights = {}
    for draws in ("common", "independent"):
        fitted = Density(operator=GeneratorOptions(segments=4, points=60), draws=draws).fit(problem)
        weights[draws] = 60 * fitted.weights
    torch.testing.assert_close(weights["common"], torch.ones(60).double(), rtol=0, atol=1e-8)
    assert (weights["independent"] - 1).abs().max() > 0.05


class Exploding(DenseEigensolver):
    """An eigensolver with a spurious growth rate of 300."""

    def solve(self, pencil, kernel, backend, n_eigs=None):
        pairs = super().solve(pencil, kernel, backend, n_eigs)
        return replace(pairs, values=pairs.values + 300.0)


def test_weights_that_overflow_say_so(make_problem, planar):
    sampler = Density(eigensolver=Exploding(), operator=GeneratorOptions(segments=2, points=40))
    with pytest.raises(NumericalError, match="not finite"):
        sampler.fit(make_problem(planar, VE))


def test_a_rough_kernel_is_refused_before_any_evaluation(make_problem, planar):
    problem = make_problem(planar, VE)
    with pytest.raises(CapabilityError, match="rough"):
        Density(kernel="matern32", operator=GeneratorOptions(eta=1.0)).fit(problem)
    assert problem.score.evaluations == 0
    Density(kernel="matern32", operator=GeneratorOptions(eta=0.0, segments=1, points=40)).fit(problem)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"rank": -1}, ParameterError),
        ({"draws": "some"}, ParameterError),
        ({"smoothing": "none"}, ParameterError),
        ({"bandwidth": 0.0}, ParameterError),
        ({"clusters": 0}, ParameterError),
        ({"components": 0}, ParameterError),
        ({"particles": 1}, ParameterError),
        ({"operator": GeneratorOptions(time="augmented")}, CapabilityError),
    ],
)
def test_impossible_parameters_are_refused(parameters, error):
    with pytest.raises(error):
        Density(**parameters)


def test_more_clusters_than_particles_are_refused(make_problem, planar):
    sampler = Density(rank=0, smoothing="local_low_rank", clusters=50, operator=GeneratorOptions(points=40))
    with pytest.raises(ParameterError, match="clusters"):
        sampler.fit(make_problem(planar, VE))


# ---- the ring, from noise to data


@pytest.mark.slow
def test_the_ring_is_as_near_as_exact_points_would_be(make_problem, ring):
    """No sampler that draws from N points can beat N exact ones: the 95 % quantile of these is the floor.

    N = 300, smoothed by 0.05 standard deviations, n = 2,000, unbiased energy distance. Then the rows lie: one in four
    of those on the left are kept, while the score is still that of the whole ring. The control without an operator
    repeats the lie, which the floor finds; the weights must undo most of it, and a rank too small must not.
    """
    n, points, segment_count = 2000, 300, 12

    def exact(count, *seed):
        return ring.law.sample(count, np.random.default_rng([20_26, *seed]))

    rng = np.random.default_rng(8)
    floor = [
        energy_distance(exact(points, seed, 0)[rng.integers(0, points, n)], exact(n, seed, 1)) for seed in range(40)
    ]
    quantile = float(np.quantile(floor, 0.95))
    honest = make_problem(ring, VarianceExploding(0.002, 80.0))
    kept = (ring.train[:, 0] > 0.5) | (np.arange(len(ring.train)) % 4 == 0)
    biased = replace(honest, dataset=replace(ring, train=ring.train[kept], fingerprint=""))

    def distance(problem, **parameters):
        sampler = Density(
            kernel=RBF("median", factor=0.3),
            eigensolver=DenseEigensolver(ridge=1e-9, truncation=1e-12, max_rank=60),
            operator=GeneratorOptions(eta=1.0, frame="raw", segments=segment_count, points=points),
            bandwidth=0.05,
            draws="independent",
            **parameters,
        )
        return energy_distance(sampler.fit(problem).sample(stream(n)).numpy(), exact(n, 99))

    assert distance(honest) < quantile
    lie = distance(biased, rank=0)
    assert lie > quantile
    assert distance(biased) < 0.5 * lie
    assert distance(biased, rank=5) > lie
