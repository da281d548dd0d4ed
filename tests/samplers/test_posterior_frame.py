"""The posterior frame in samplers: the closed form at rank 0, Gaussian laws, what kernels see through noise, smoothing.

Its coordinates are W times whitened ones and grow over a span: kappa < 0 for eta < 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.kernels.rbf import RBF
from kfpbench.noise import NoiseStream
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze, segments
from kfpbench.operators.marginal import marginal
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.samplers.conditional_noise import Solved, kernel_noise, linear_variance, mean_kernel_noise
from kfpbench.samplers.density import Density
from kfpbench.samplers.koopman import Koopman
from kfpbench.samplers.smoothing import Isotropic
from kfpbench_baselines.gaussian import ClosedFormGaussian

CPU, F64 = torch.device("cpu"), torch.float64
PROCESSES = {
    "ve": VarianceExploding(0.05, 20.0),
    "vp": VariancePreserving(),
    "ou": OrnsteinUhlenbeck(rate=0.7, stationary_std=1.5, t_max=4.0),
}
over_processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
Z = 4.4  # standard errors: a two-sided probability of 1e-5


def stream(count: int, dimension: int, seed: int = 5) -> NoiseStream:
    return NoiseStream.of_range(seed, 0, count, dimension, CPU, F64)


@dataclass(frozen=True)
class GivenNoise:
    """Stands in for a noise stream: ``draws`` (draw, n, d) are given."""

    draws: torch.Tensor

    def normal(self, draw: int) -> torch.Tensor:
        return self.draws[draw]


# ---- Gaussian data


@over_processes
@pytest.mark.parametrize("count", [1, 4])
def test_rank_zero_is_the_closed_form(make_problem, gaussian_data, process, count):
    problem = make_problem(gaussian_data, process)
    operator = GeneratorOptions(frame="posterior", segments=count)
    rows = Koopman(operator=operator, rank=0).fit(problem).sample(stream(200, 3))
    exact = ClosedFormGaussian().fit(problem).sample(stream(200, 3))
    assert float((rows - exact).abs().max()) <= 1e-11 * float(exact.abs().max())
    assert problem.score.evaluations == 0


@over_processes
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_without_excess_it_is_the_whitened_sampler(make_problem, gaussian_data, process, eta):
    """Gaussian data leave nothing to the kernel: both frames' samplers are the same map of start and noise."""
    problem = make_problem(gaussian_data, process)
    rows = [
        Koopman(RBF(), operator=GeneratorOptions(eta=eta, frame=frame, segments=3, points=40))
        .fit(problem)
        .sample(stream(100, 3))
        for frame in ("whitened", "posterior")
    ]
    assert float((rows[0] - rows[1]).abs().max()) <= 1e-9 * float(rows[0].abs().max())


@over_processes
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(("count", "rank"), [(1, 0), (1, None), (3, None)])
def test_every_covariance_is_the_gaussian_one(make_problem, gaussian_data, process, eta, count, rank):
    """Where coordinates grow, kappa < 0, and so does noise: 2 a (e^(2 |kappa| D) - 1) / (2 |kappa|), not 2 a D.

    With one span over everything they grow by a factor of 100 and more between the points, which are those of the
    middle, and the end: no bound taken from the points as they are may cut the noise.
    """
    problem = make_problem(gaussian_data, process)
    operator = GeneratorOptions(eta=eta, frame="posterior", segments=count, points=40)
    rows = {
        covariance: Koopman(RBF(), operator=operator, covariance=covariance, rank=rank)
        .fit(problem)
        .sample(stream(100, 3))
        for covariance in ("gaussian", "kernel", "kernel_mean", "none")
    }
    scale = float(rows["gaussian"].abs().max())
    assert float((rows["none"] - rows["gaussian"]).abs().max()) > 0.01 * scale
    for covariance in ("kernel", "kernel_mean"):
        assert float((rows[covariance] - rows["gaussian"]).abs().max()) <= 1e-7 * scale


def test_the_bound_of_the_variance_grows_with_the_coordinates(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, PROCESSES["ve"])
    options = GeneratorOptions(eta=1.0, frame="posterior", segments=1, points=60)
    (span,) = segments(problem, options)
    frame = FRAMES["posterior"](gaussian_data, CPU, F64)
    frozen = freeze(problem, options, frame, span.middle, 0)
    parts = Solved(frozen, DenseEigensolver().solve(frozen.pencil, RBF(), DenseGram()))
    points = frozen.pencil.points
    ungrown = (0.5 * (points.amax(0) - points.amin(0))).square()
    exact = linear_variance(frame, span, 1.0)
    assert bool((exact > ungrown).any())  # what would have been cut
    for make in (kernel_noise, mean_kernel_noise):
        assert make(frame, span, 1.0, parts, F64)[1]["variance_above_bound"] == 0.0


# ---- what kernels see


@pytest.fixture(scope="module")
def hidden_signal() -> Dataset:
    """200 dimensions: four modes at (+-3, +-3) with standard deviation 0.3 in two of them, 0.01 in all others."""
    corners = np.array([[3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [-3.0, -3.0]])
    means = np.concatenate([corners, np.zeros((4, 198))], axis=1)
    covariance = np.diag(np.r_[np.full(2, 0.09), np.full(198, 1e-4)])
    law = Mixture(np.full(4, 0.25), means, np.broadcast_to(covariance, (4, 200, 200)).copy())
    rows = law.sample(2000, np.random.default_rng(2))
    return Dataset("hidden signal", rows, rows[:0], rows[:0], law=law)


@pytest.mark.parametrize("process", [VarianceExploding(0.05, 20.0), VariancePreserving()], ids=["ve", "vp"])
def test_an_rbf_sees_the_signal_through_the_noise(make_problem, hidden_signal, process):
    """Ridge regression of the excess drift on 500 points at sigma / alpha = 2, R^2 on 500 others, signal axes.

    The excess is tanh-like less its linear part: odd, of degree 3 and more. Whitened, all 200 axes have unit scale, so
    that r^2 = 400 (1 +- 0.1) for any two points: the kernel is all but linear in 200 variables, and 500 points
    determine no cubic among some d^3 / 6 = 10^6. Posterior, the other axes have W = 1e-4 / 2 beside W = 4 of the
    signal: a smooth function of two variables, on 500 points.
    """
    problem = make_problem(hidden_signal, process)
    at = marginal(process, process.time_of(math.log(2.0)))
    explained = {}
    for kind in ("whitened", "posterior"):
        frame = FRAMES[kind](hidden_signal, CPU, F64)
        options = GeneratorOptions(frame=kind, points=500)
        seen, fresh = (freeze(problem, options, frame, at, draw) for draw in range(2))
        kernel = RBF("median").fit(seen.pencil.points)
        gram, across = (
            DenseGram().gram(kernel, x, seen.pencil.points).matmul(torch.eye(500, dtype=F64))
            for x in (seen.pencil.points, fresh.pencil.points)
        )
        best = -math.inf
        for ridge in (1e-6, 1e-4, 1e-2):  # each frame at its best
            found = across @ torch.linalg.solve(gram + 500 * ridge * torch.eye(500, dtype=F64), seen.excess[:, :2])
            rest = (found - fresh.excess[:, :2]).square().sum() / fresh.excess[:, :2].square().sum()
            best = max(best, 1.0 - float(rest))
        explained[kind] = best
    assert explained["posterior"] > 0.9
    assert explained["whitened"] < 0.3


# ---- the density sampler


def test_isotropic_smoothing_is_that_of_the_whitened_frame(gaussian_data):
    """Lengths are read in units of the frame's scale: the same particles give the same law in either frame.

    Without that, one width for all axes would be decoded by 1 / W: along an axis that the noise hides, to anything.
    """
    rows = np.concatenate([gaussian_data.train, np.full((500, 1), 2.0, np.float32)], axis=1)
    flat = Dataset("flat", rows, rows[:0], rows[:0])
    at = marginal(PROCESSES["ve"], 5.0)
    x = torch.from_numpy(rows[:50]).double() + 5.0 * stream(50, 4).normal(0)
    weights = torch.full((50,), 0.02, dtype=F64)
    drawn = []
    for kind in ("whitened", "posterior"):
        frame = FRAMES[kind](flat, CPU, F64)
        law = Isotropic.fit(frame, at, frame.encode(x, at), weights, "silverman", F64)
        drawn.append(law.sample(stream(400, 4, seed=6)))
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-9, atol=1e-9)


def test_the_density_sampler_keeps_a_flat_direction(make_problem, gaussian_data):
    """From noise to sigma = 2 along an axis without variance: the end has standard deviation 2 there.

    1,000 rows around 300 particles: 4.4 standard errors of a standard deviation from 300, and 20 % for what signed
    weights of 300 particles and their shrinkage do.
    """
    rows = np.concatenate([gaussian_data.train, np.full((500, 1), 2.0, np.float32)], axis=1)
    flat = Dataset("flat", rows, rows[:0], rows[:0])
    problem = make_problem(flat, VarianceExploding(2.0, 20.0))
    operator = GeneratorOptions(eta=1.0, frame="posterior", segments=8, points=300)
    x = Density(operator=operator).fit(problem).sample(stream(1000, 4))
    assert float(x[:, 3].std()) == pytest.approx(2.0, rel=Z / math.sqrt(600) + 0.2)
    assert float(x.abs().max()) < 40.0
