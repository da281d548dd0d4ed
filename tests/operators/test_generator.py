"""Time segments, and the frozen generator's sample: where it is drawn, what it costs, what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.noise import NoiseStream
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze, segments
from kfpbench.operators.marginal import marginal
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.scores.mixture import MixtureScore

CPU, F64 = torch.device("cpu"), torch.float64
PROCESSES = {"ve": VarianceExploding(), "vp": VariancePreserving(), "ou": OrnsteinUhlenbeck()}
over_processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def gaussian_rows(count: int = 5000, seed: int = 0) -> Dataset:
    """Rows whose sample mean and covariance are (1, -2) and diag(4, 0.25), up to float32."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((count, 2))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / count).T)
    rows = (z * [2.0, 0.5] + [1.0, -2.0]).astype(np.float32)
    law = Mixture(np.ones(1), np.array([[1.0, -2.0]]), np.diag([4.0, 0.25])[None])
    return Dataset("gaussian", rows, rows[:1], rows[:1], law=law)


DATA = gaussian_rows()


def problem(process=None, seed: int = 0, dtype=F64, score=None) -> Problem:
    bound = (score or GaussianScore()).bind(DATA, CPU, dtype)
    return Problem(DATA, process or PROCESSES["ve"], bound, CPU, dtype, seed)


def frozen(given: Problem, draw: int = 0, eta: float = 1.0, frame: str = "whitened", points: int = 500, t=None):
    options = GeneratorOptions(eta=eta, points=points, frame=frame)
    at = marginal(given.process, t or math.sqrt(given.process.t_min * given.process.t_max))
    return freeze(given, options, FRAMES[frame](DATA, CPU, given.dtype), at, draw)


# ---- segments ----


@over_processes
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_segments_cover_the_time_in_equal_steps_of_the_log_ratio(process, count):
    spans = segments(problem(process), GeneratorOptions(segments=count))
    assert len(spans) == count
    assert spans[0].start.time == process.t_max  # to the last bit: no round trip through the logarithm
    assert spans[-1].end.time == process.t_min
    for first, second in itertools.pairwise(spans):
        assert first.end == second.start
    total = process.log_ratio(process.t_max) - process.log_ratio(process.t_min)
    for span in spans:
        assert span.length == pytest.approx(total / count, rel=1e-11)
        assert span.middle.rho == pytest.approx((span.start.rho + span.end.rho) / 2, rel=1e-11, abs=1e-11)
        assert span.start.time > span.middle.time > span.end.time
        for at in (span.start, span.middle, span.end):
            assert (at.alpha, at.sigma) == (process.alpha(at.time), process.sigma(at.time))


@over_processes
def test_frozen_time_is_one_span(process):
    (span,) = segments(problem(process), GeneratorOptions(time="frozen", segments=9))
    (same,) = segments(problem(process), GeneratorOptions(time="piecewise", segments=1))
    assert span == same
    assert (span.start.time, span.end.time) == (process.t_max, process.t_min)


# ---- freeze ----


def test_a_seed_and_a_draw_fix_the_sample():
    first, again = frozen(problem(seed=3), draw=2), frozen(problem(seed=3), draw=2)
    for name in ("points", "drift", "weights"):
        assert torch.equal(getattr(first.pencil, name), getattr(again.pencil, name))
    assert torch.equal(first.pencil.diffusion.values, again.pencil.diffusion.values)
    assert torch.equal(first.excess, again.excess)
    for other in (frozen(problem(seed=4), draw=2), frozen(problem(seed=3), draw=3)):
        assert not bool((other.pencil.points == first.pencil.points).any())


def test_more_points_keep_the_first_ones():
    few, many = frozen(problem(), points=50), frozen(problem(), points=200)
    # equal up to the rounding of matrix products of another size
    torch.testing.assert_close(many.pencil.points[:50], few.pencil.points, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frame", ["raw", "whitened"])
def test_n_evaluations_a_draw(frame):
    given = problem()
    for draw in range(3):
        frozen(given, draw, frame=frame, points=70)
        assert given.score.evaluations == 70 * (draw + 1)


@over_processes
def test_points_follow_the_marginal(process):
    """Whitened points of (empirically) Gaussian data: mean 0, covariance I, by z-scores at |z| < 5."""
    n = 4000
    for t in (process.t_min * 2.0, math.sqrt(process.t_min * process.t_max), process.t_max):
        y = frozen(problem(process), draw=5, points=n, t=t).pencil.points
        assert float(y.mean(0).abs().max()) * math.sqrt(n) < 5.0
        variance = y.square().mean(0)  # the rows are a Gaussian sample of 5,000: variance of y^2 is 2
        assert float((variance - 1.0).abs().max()) * math.sqrt(n / 2) < 5.0
        assert abs(float((y[:, 0] * y[:, 1]).mean())) * math.sqrt(n) < 5.0
        assert stats.kstest(y[:, 0].numpy(), "norm").pvalue > 1e-6


def test_draws_and_the_samplers_own_noise_are_independent():
    n = 2000
    given = problem()
    base = frozen(given, 0, points=n, t=80.0).pencil.points  # pure noise but for 1 part in 1,000
    others = [frozen(given, draw, points=n, t=80.0).pencil.points for draw in (1, 2, 3)]
    others += [frozen(problem(seed=1), 0, points=n, t=80.0).pencil.points]
    others += [NoiseStream.of_range(0, 0, n, 2, CPU, F64).normal(draw) for draw in range(4)]
    for other in others:
        correlation = torch.corrcoef(torch.cat([base.T, other.T]))[:2, 2:]
        assert float(correlation.abs().max()) * math.sqrt(n) < 5.0


def test_origins_are_drawn_with_replacement_from_all_rows():
    """At t_min the points of the raw frame are rows but for 0.002: each row is met Binomial(n, 1/N) often."""
    rows = np.arange(50, dtype=np.float32)[:, None]
    data = Dataset("line", rows, rows[:1], rows[:1])
    given = Problem(data, PROCESSES["ve"], GaussianScore().bind(data, CPU, F64), CPU, F64, 0)
    at = marginal(given.process, given.process.t_min)
    options = GeneratorOptions(points=5000, frame="raw")
    points = freeze(given, options, FRAMES["raw"](data, CPU, F64), at, 0).pencil.points
    counts = torch.bincount(points[:, 0].round().long(), minlength=50).double()
    assert stats.chi2.sf(float(((counts - 100.0) ** 2 / 100.0).sum()), 49) > 1e-6


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("frame", ["raw", "whitened"])
def test_pencil_holds_the_frames_generator(eta, frame):
    """drift = excess - kappa y, recomputed from the points decoded back to states."""
    given = problem(PROCESSES["vp"], score=MixtureScore())
    coordinates = FRAMES[frame](DATA, CPU, F64)
    at = marginal(given.process, 0.3)
    sample = frozen(given, eta=eta, frame=frame, t=0.3)
    y = sample.pencil.points
    x = coordinates.decode(y, at)
    excess = coordinates.excess_drift(x, given.score.denoise(x, at.alpha, at.sigma), at, eta)
    torch.testing.assert_close(sample.excess, excess, rtol=1e-9, atol=1e-9)
    drift = excess - coordinates.decay_rate(at, eta) * y
    torch.testing.assert_close(sample.pencil.drift, drift, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sample.pencil.diffusion.values, coordinates.diffusion(at, eta), rtol=1e-14, atol=0.0)
    torch.testing.assert_close(sample.pencil.weights, torch.full((500,), 1 / 500, dtype=F64), rtol=1e-14, atol=0.0)


def test_the_pencil_is_float64_for_float32_problems():
    sample = frozen(problem(dtype=torch.float32))
    assert {getattr(sample.pencil, name).dtype for name in ("points", "drift", "weights")} == {F64}
    assert sample.pencil.diffusion.values.dtype == F64
    assert sample.excess.dtype == F64
    exact = frozen(problem())
    torch.testing.assert_close(sample.pencil.points, exact.pencil.points, rtol=1e-4, atol=1e-4)


def test_a_score_of_nan_is_named():
    given = problem()
    given.score.mean = given.score.mean * math.nan
    with pytest.raises(NumericalError, match="drift hold NaN"):
        frozen(given)


# ---- options and pencils that are refused ----


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"eta": -0.1}, "eta"),
        ({"eta": 1.1}, "eta"),
        ({"eta": math.nan}, "eta"),
        ({"frame": "polar"}, "frame"),
        ({"time": "circular"}, "time"),
        ({"segments": 0}, "segment"),
        ({"points": 1}, "points"),
    ],
)
def test_bad_options(bad, reason):
    with pytest.raises(ParameterError, match=reason):
        GeneratorOptions(**bad)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("drift", (4, 2)), ("drift", (5, 3)), ("diffusion", (5,)), ("diffusion", (3, 3)), ("weights", (2,))],
)
def test_pencil_shapes(name, shape):
    parts = {"drift": (5, 2), "diffusion": (2,), "weights": (5,)} | {name: shape}
    arguments = {key: torch.full(size, 0.2, dtype=F64) for key, size in parts.items()}
    arguments["diffusion"] = Diffusion.constant(arguments["diffusion"])
    with pytest.raises(ShapeError, match=name):
        GalerkinPencil(torch.zeros((5, 2), dtype=F64), **arguments)


@pytest.mark.parametrize("name", ["points", "drift", "diffusion", "weights"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_pencil_values_are_finite(name, value):
    parts = {"points": (5, 2), "drift": (5, 2), "diffusion": (2,), "weights": (5,)}
    arguments = {key: torch.full(size, 0.2, dtype=F64) for key, size in parts.items()}
    arguments[name].view(-1)[0] = value
    with pytest.raises(NumericalError, match=name):
        GalerkinPencil(**arguments | {"diffusion": Diffusion.constant(arguments["diffusion"])})


@pytest.mark.parametrize("weights", [[0.5, 0.6], [0.5, 0.4], [1.5, -0.5], [1.0, 0.0]])
def test_weights_are_a_probability(weights):
    zeros = torch.zeros((2, 1), dtype=F64)
    with pytest.raises(ParameterError, match="weights"):
        GalerkinPencil(zeros, zeros, Diffusion.constant(1.0), torch.tensor(weights, dtype=F64))


def test_negative_diffusion_is_refused():
    points = torch.randn(5, 2, dtype=F64)
    with pytest.raises(ParameterError, match="diffusion"):
        GalerkinPencil.uniform(points, points, Diffusion.constant(torch.tensor([1.0, -1.0], dtype=F64)))


def test_points_come_from_the_rows_that_are_given():
    """Held-out residuals rest on it: at low noise every point lies beside the row that it was made from."""
    given = problem(VarianceExploding(1e-3, 10.0))
    at = marginal(given.process, given.process.t_min)
    options = GeneratorOptions(points=200, frame="raw")
    frame = FRAMES["raw"](DATA, CPU, F64)
    for half in (DATA.train[::2], DATA.train[1::2]):
        points = freeze(given, options, frame, at, 0, half).pencil.points
        nearest = torch.cdist(points, torch.tensor(half, dtype=F64)).min(dim=1).values
        # |eps|^2 is chi-square with 2 degrees of freedom: P(|eps| > 6) = e^-18 for each of 200 points
        assert float(nearest.max()) < 6.0 * at.sigma
