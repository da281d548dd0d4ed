from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.linalg
import torch

from kfpbench.data.moments import training_moments
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.errors import NumericalError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.metrics.energy_distance import energy_distance
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze, segments
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.samplers.koopman import Koopman, expand_displacement
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun

VE = VarianceExploding(0.01, 20.0)


def stream(count, dimension=2, dtype=torch.float64, seed=5):
    return NoiseStream.of_range(seed, 0, count, dimension, torch.device("cpu"), dtype)


@dataclass(frozen=True)
class GivenNoise:
    """Stands in for a noise stream: ``draws`` (draw, n, d) are given."""

    draws: torch.Tensor

    def normal(self, draw: int) -> torch.Tensor:
        return self.draws[draw]


# ---- the expansion against the matrix function that it stands for


def generator_of_sections(kernel, points, drift, diffusion):
    """(L k(., c_j))(x_i) by automatic differentiation of the kernel, one centre at a time."""
    columns = []
    for centre in points:
        x = points.clone().requires_grad_(True)
        value = kernel.profile((x - centre).square().sum(1))[0]
        (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        column = (drift * gradient).sum(1)
        for axis in range(points.shape[1]):
            (second,) = torch.autograd.grad(gradient[:, axis].sum(), x, retain_graph=True)
            column = column + diffusion[axis] * second[:, axis]
        columns.append(column.detach())
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("frame", ["raw", "whitened"])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_full_rank_equals_the_matrix_function(make_problem, planar, frame, eta):
    """The eigen-expansion is int_0^D e^(-kappa (D - s)) e^(s A) B ds, A the projected generator.

    By Van Loan's identity that integral is a block of exp(D [[A, B], [0, -kappa]]); eigenvectors play no part in it.
    """
    options = GeneratorOptions(eta=eta, segments=12, frame=frame, points=60)
    problem = make_problem(planar, VarianceExploding(0.05, 10.0))
    placed = FRAMES[frame](problem.dataset, problem.device, problem.dtype)
    segment = segments(problem, options)[5]
    frozen = freeze(problem, options, placed, segment.middle, 5)
    solver = DenseEigensolver(ridge=1e-6)
    kernel = RBF(factor=0.7)
    pairs = solver.solve(frozen.pencil, kernel, Koopman().backend)
    decay = placed.decay(segment.start, segment.end, eta)
    y = placed.encode(problem.score.denoise(stream(30).normal(0), 1.0, 1.0), segment.start)
    found = expand_displacement(pairs, frozen, segment.length, decay, torch.float64)(y)

    pencil, transform = frozen.pencil, pairs.basis.transform
    rank = transform.shape[1]
    kernel = kernel.fit(pencil.points)
    diffusion = pencil.diffusion.values.expand(2)
    gram = kernel.profile(torch.cdist(pencil.points, pencil.points).square())[0]
    images = generator_of_sections(kernel, pencil.points, pencil.drift, diffusion) @ transform
    # features on the points, and what of them is left by the ridge: (F^T W F + gamma T^T K T)^-1, both diagonal
    fitted = torch.cat([torch.ones(len(gram), 1), (gram - gram.mean(0)) @ transform], dim=1)
    mass = fitted.square().mean(0)
    mass[1:] += solver.ridge * (transform * (gram @ transform)).sum(0)
    matrix = torch.zeros(rank + 1, rank + 1, dtype=torch.float64)
    matrix[:, 1:] = fitted.T @ images / len(gram) / mass[:, None]
    observable = fitted.T @ frozen.excess / len(gram) / mass[:, None]
    features = kernel.profile(torch.cdist(y, pencil.points).square())[0] @ transform - gram.mean(0) @ transform
    features = torch.cat([torch.ones(len(y), 1), features], dim=1).numpy()
    for axis in range(2):
        kappa = -float(decay[axis].log()) / segment.length
        block = np.zeros((rank + 2, rank + 2))
        block[:-1, :-1], block[:-1, -1], block[-1, -1] = matrix.numpy(), observable[:, axis].numpy(), -kappa
        integral = scipy.linalg.expm(segment.length * block)[:-1, -1]
        expected = features @ integral
        np.testing.assert_allclose(found[:, axis].numpy(), expected, atol=1e-6 * np.abs(expected).max())


def test_one_step_is_flow_plus_displacement_plus_noise(make_problem, planar):
    problem = make_problem(planar, VarianceExploding(0.05, 10.0))
    fitted = Koopman(operator=GeneratorOptions(eta=1.0, segments=1, points=50)).fit(problem)
    (step,) = fitted.steps
    noise = stream(20)
    y = fitted.frame.encode(10.0 * noise.normal(0), step.segment.start)
    end = step.decay * y + step.displacement(y) + step.noise_scale * noise.normal(1)
    expected = fitted.frame.decode(end, step.segment.end)
    torch.testing.assert_close(fitted.sample(noise), expected, rtol=1e-12, atol=1e-12)


# ---- rank, evaluations, time


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_rank_beyond_the_available_keeps_all(make_problem, planar, eta):
    operator = GeneratorOptions(eta=eta, segments=3, points=50)
    process = VarianceExploding(0.05, 10.0)
    noise = stream(40)
    full = Koopman(operator=operator).fit(make_problem(planar, process))
    available = max(segment["kept"] for segment in full.describe()["segments"])
    assert available <= 51
    for rank in (available, 10_000):
        kept = Koopman(operator=operator, rank=rank).fit(make_problem(planar, process)).sample(noise)
        assert torch.equal(kept, full.sample(noise))
    few = Koopman(operator=operator, rank=5).fit(make_problem(planar, process))
    assert all(4 <= segment["kept"] <= 5 for segment in few.describe()["segments"])  # a conjugate pair is not split
    assert not torch.allclose(few.sample(noise), full.sample(noise), atol=1e-3)


@pytest.mark.parametrize(
    ("time", "rank", "expected"),
    [("piecewise", None, 6 * 30), ("piecewise", 3, 6 * 30), ("frozen", None, 30), ("piecewise", 0, 0)],
)
def test_evaluations_of_the_setup_and_none_in_sampling(make_problem, planar, time, rank, expected):
    problem = make_problem(planar, VE)
    fitted = Koopman(operator=GeneratorOptions(time=time, segments=6, points=30), rank=rank).fit(problem)
    assert problem.score.evaluations == expected
    assert torch.isfinite(fitted.sample(stream(10))).all()
    assert problem.score.evaluations == expected
    assert len(fitted.describe()["segments"]) == (1 if time == "frozen" else 6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_frozen_is_piecewise_with_one_segment(make_problem, planar, eta):
    one = GeneratorOptions(eta=eta, segments=1, points=60)
    frozen = replace(one, time="frozen", segments=8)
    noise = stream(50)
    samples = [Koopman(operator=operator).fit(make_problem(planar, VE)).sample(noise) for operator in (one, frozen)]
    assert torch.equal(*samples)


# ---- refinement: the piecewise operator approaches the flow


def pathwise_error(samples, exact):
    """Median distance to the exact flow's end: a few paths change basin at its edge, whatever the method."""
    return float((samples.double() - exact.double()).norm(dim=1).median())


@pytest.fixture(scope="module")
def exact_flow(make_problem, planar):
    return ProbabilityFlowHeun(400).fit(make_problem(planar, VE)).sample(stream(1000))


@pytest.mark.parametrize("frame", ["whitened", "raw"])
def test_more_segments_come_closer_to_the_flow(make_problem, planar, exact_flow, frame):
    # midpoint freezing: the error of a segment falls with its length, until the expansion's own error shows
    errors = []
    for count in (8, 16, 32):
        operator = GeneratorOptions(segments=count, frame=frame, points=600)
        sampler = Koopman(RBF(factor=0.2), DenseEigensolver(max_rank=150), operator=operator)
        errors.append(pathwise_error(sampler.fit(make_problem(planar, VE)).sample(stream(1000)), exact_flow))
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] < 0.75 * errors[1]
    gaussian = ClosedFormGaussian().fit(make_problem(planar, VE)).sample(stream(1000))
    assert errors[2] < 0.1 * pathwise_error(gaussian, exact_flow)


# ---- stochasticity


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("process", [VE, VariancePreserving(), OrnsteinUhlenbeck()], ids=["ve", "vp", "ou"])
def test_gaussian_data_keep_their_law_with_noise(make_problem, gaussian_data, process, eta, count):
    """The sampler is affine in its normal numbers then: fed with 0 and the basis vectors it shows its law exactly.

    Standardised by S_T, the start has mean -S_T^(-1/2) alpha_T mu and covariance sigma_T^2 / S_T; each m + (1 - m^2)
    leaves a standard normal state alone, so N(alpha_T mu, S_T) would become N(alpha_0 mu, S_0).
    """
    d = 3
    problem = make_problem(gaussian_data, process)
    fitted = Koopman(RBF(), operator=GeneratorOptions(eta=eta, segments=count, points=40)).fit(problem)
    inputs = (count + 1) * d
    draws = torch.zeros(count + 1, inputs + 1, d, dtype=torch.float64)
    for number in range(inputs):
        draws[number // d, number + 1, number % d] = 1.0
    rows = fitted.sample(GivenNoise(draws)).numpy()
    response = rows[1:] - rows[0]

    moments = training_moments(gaussian_data)
    covariance = (moments.basis * moments.variances) @ moments.basis.T
    first, last = (
        process.alpha(t) ** 2 * covariance + process.sigma(t) ** 2 * np.eye(d) for t in (process.t_max, process.t_min)
    )
    # the response to the start, which has covariance I sigma_T^2, is put in front of a start with covariance S_T
    from_start = response[:d].T / process.sigma(process.t_max)
    total = from_start @ first @ from_start.T + response[d:].T @ response[d:]
    np.testing.assert_allclose(total, last, atol=1e-9 * np.abs(last).max())
    mean = rows[0] + from_start @ (process.alpha(process.t_max) * moments.mean)
    np.testing.assert_allclose(mean, process.alpha(process.t_min) * moments.mean, atol=1e-9)
    assert np.linalg.norm(response[d:]) > 0.1 * np.linalg.norm(response)  # the noise does its part


def test_with_noise_a_mixture_keeps_its_spread(make_problem, ring):
    """eta = 1: without the covariance carried along, conditional means contract onto the modes."""
    operator = GeneratorOptions(eta=1.0, segments=32, points=400)
    fitted = Koopman(RBF(factor=0.2), DenseEigensolver(max_rank=150), operator=operator).fit(make_problem(ring, VE))
    noise = stream(2000)
    means = np.asarray(ring.law.means)

    def spreads(samples):
        """Variance over the plane, and variance about the nearest mode, as shares of the exact ones."""
        rows = samples.numpy()
        offset = rows - means[((rows[:, None] - means) ** 2).sum(2).argmin(1)]
        return rows.var(0).sum() / (16.0 + 2 * 0.09), np.median((offset**2).sum(1)) / (2 * np.log(2) * 0.09)

    overall, within = spreads(fitted.sample(noise))
    # a factor 1.25 over the plane; within the modes 0.5 to 2.5: 32 segments leave them some 40 % too wide in variance
    assert 0.8 < overall < 1.25
    assert 0.5 < within < 2.5
    without = replace(fitted, steps=[replace(step, noise_scale=None) for step in fitted.steps])
    assert spreads(without.sample(noise))[1] < 0.5  # the planted defect, measured at 0.24


# ---- processes and precision


@pytest.mark.parametrize("process", [VE, VariancePreserving(t_min=1e-3), OrnsteinUhlenbeck()], ids=["ve", "vp", "ou"])
def test_every_process_leads_to_the_ring(make_problem, ring, process):
    operator = GeneratorOptions(segments=24, points=500)
    sampler = Koopman(RBF(factor=0.2), DenseEigensolver(max_rank=200), operator=operator)
    problem = make_problem(ring, process)
    n = 3000
    reference = ring.law.sample(n, np.random.default_rng(1))
    spectral, gaussian = (
        energy_distance(each.fit(problem).sample(stream(n)).numpy(), reference)
        for each in (sampler, ClosedFormGaussian())
    )
    assert spectral < 0.1 * gaussian


def test_single_precision_agrees_with_double(make_problem, planar):
    """Points, drift and noise are rounded to float32: relative 6e-8, amplified by the fit's conditioning."""
    operator = GeneratorOptions(segments=16, points=400)
    sampler = Koopman(RBF(factor=0.3), operator=operator)
    single, double = (
        sampler.fit(make_problem(planar, VE, dtype)).sample(stream(500, dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert single.dtype == torch.float32
    difference = (single.double() - double).norm(dim=1)
    assert float(difference.median()) < 1e-3  # the modes' standard deviations are 0.15 to 1
    assert float(difference.quantile(0.9)) < 2e-2


def test_a_row_that_left_the_points_is_not_thrown_farther(make_problem, planar):
    """Beyond the points the kernels extrapolate by any amount; the displacement stays near what the points show."""
    fitted = Koopman(RBF("median"), operator=GeneratorOptions(segments=6, points=200)).fit(make_problem(planar, VE))
    far = 6.0 * stream(2000).normal(0)  # whitened states have unit scale
    wildest = 0.0
    for step in fitted.steps:
        part = step.displacement
        moved = part(far)
        assert bool((moved >= part.low).all())
        assert bool((moved <= part.high).all())
        wildest = max(wildest, float((part.expansion(far).abs().amax(0) / part.high).max()))
    assert wildest > 10.0  # what it would have been


def test_the_precision_is_that_of_the_most_delicate_axis(make_problem, planar):
    """One axis a million times as wide as the other hides nothing of the other's rounding."""
    problem = make_problem(planar, VE, torch.float32)
    options = GeneratorOptions(segments=6, points=200)
    span = segments(problem, options)[2]
    frame = FRAMES["whitened"](planar, problem.device, torch.float32)
    frozen = freeze(problem, options, frame, span.middle, 2)
    pairs = DenseEigensolver().solve(frozen.pencil, RBF(factor=1.0), Koopman().backend)
    stretch = torch.tensor([1e6, 1.0], dtype=torch.float64)
    wide = replace(frozen, pencil=replace(frozen.pencil, points=frozen.pencil.points * stretch))
    for given in (frozen, wide):
        found = expand_displacement(pairs, given, span.length, torch.ones(2, dtype=torch.float64), torch.float32)
        assert found.diagnostics["evaluated_in"] == "float64"


def test_ill_conditioned_segments_are_evaluated_in_double(make_problem, planar):
    """Weights of 1e6 with both signs cancel: in float32 a row would be rounding, and depend on its batch."""
    operator = GeneratorOptions(segments=6, points=200)
    fitted = Koopman(RBF(factor=1.0), operator=operator).fit(make_problem(planar, VE, torch.float32))
    precisions = {segment["evaluated_in"] for segment in fitted.describe()["segments"]}
    assert precisions == {"float32", "float64"}  # the noisiest segments need no more than float32
    y = stream(300, dtype=torch.float32).normal(0)
    for step in fitted.steps:
        part = step.displacement
        found = part(y)
        assert found.dtype == torch.float32
        sections = part.expansion
        gram = sections.backend.gram(sections.kernel, y.double(), sections.centres.double())
        exact = gram.matmul(sections.weights.double()) + sections.constant.double()
        exact = exact.clamp(part.low.double(), part.high.double())
        # eps |w| <= 1e-4 bounds the rounding of one entry of the kernel by some eps each, added as independent terms
        assert (found - exact).abs().max() < 10 * 1e-4 + 1e-6 * exact.abs().max()


# ---- what is refused


class Exploding(DenseEigensolver):
    """An eigensolver with a spurious growth rate: every value is shifted by ``growth``."""

    def __init__(self, growth: float) -> None:
        super().__init__(ridge=1e-6)
        self.growth = growth

    def solve(self, pencil, kernel, backend, n_eigs=None):
        pairs = super().solve(pencil, kernel, backend, n_eigs)
        return replace(pairs, values=pairs.values + self.growth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_expansion_that_overflows_says_so(make_problem, planar, eta, dtype):
    # e^(lambda D) with lambda = 300 and D = log(2000) / 2 = 3.8: e^1140 leaves the range of float64
    sampler = Koopman(eigensolver=Exploding(300.0), operator=GeneratorOptions(eta=eta, segments=2, points=40))
    with pytest.raises(NumericalError, match="not finite"):
        sampler.fit(make_problem(planar, VE, dtype))


def test_samples_that_overflow_stay_visible(make_problem, planar):
    # e^(40 x 3.8) = 1e66: the weights are finite in float64, a sample in float32 is not. No check in the sampler, which
    # would wait for the device at every batch: the runner refuses such rows
    sampler = Koopman(eigensolver=Exploding(40.0), operator=GeneratorOptions(segments=2, points=40))
    fitted = sampler.fit(make_problem(planar, VE, torch.float32))
    assert max(segment["largest_growth"] for segment in fitted.describe()["segments"]) > 1e60
    assert not torch.isfinite(fitted.sample(stream(5, dtype=torch.float32))).any()


def test_a_score_that_fails_is_named(make_problem, planar):
    problem = make_problem(planar, VE)

    class Broken:
        evaluations = 0

        def denoise(self, x, alpha, sigma):
            return x * float("nan")

    with pytest.raises(NumericalError, match="drift"):
        Koopman(operator=GeneratorOptions(segments=2, points=20)).fit(replace(problem, score=Broken()))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"eta": 1.5}, "eta"),
        ({"eta": -0.1}, "eta"),
        ({"eta": float("nan")}, "eta"),
        ({"frame": "polar"}, "frame"),
        ({"time": "backwards"}, "time"),
        ({"segments": 0}, "segment"),
        ({"points": 1}, "points"),
    ],
)
def test_impossible_operators_are_refused(parameters, match):
    with pytest.raises(ParameterError, match=match):
        GeneratorOptions(**parameters)


def test_an_impossible_rank_is_refused():
    with pytest.raises(ParameterError, match="rank"):
        Koopman(rank=-1)
