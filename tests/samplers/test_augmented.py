"""Augmented time: one operator on (y, s) carries a sample over the whole span; there is no spectrum to compare with."""

from __future__ import annotations

import pytest
import torch

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.noise import NoiseStream
from kfpbench.operators.augmented import TimeCoordinate, augment
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, segments
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.samplers.koopman import Koopman
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun

CPU, F64 = torch.device("cpu"), torch.float64


def stream(count: int, dimension: int) -> NoiseStream:
    return NoiseStream.of_range(5, 0, count, dimension, CPU, F64)


def sampled(problem, options: GeneratorOptions, eta: float):
    frame = FRAMES[options.frame](problem.dataset, CPU, F64)
    spans = segments(problem, options)
    time = TimeCoordinate.spanning(spans, options.time_width)
    return augment(problem, options, frame, spans, time), spans, time, frame


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_operator_at_its_points(make_problem, gaussian_data, eta):
    """At every point time moves at its speed and does not diffuse; b and a are those of the frozen operator."""
    problem = make_problem(gaussian_data, VariancePreserving())
    options = GeneratorOptions(eta=eta, time="augmented", segments=4, frame="whitened", points=200, time_width=1.5)
    generator, spans, time, _ = sampled(problem, options, eta)
    pencil = generator.pencil
    s = pencil.points[:, -1]
    assert float(s.min()) >= -1.5
    assert float(s.max()) <= 1.5
    assert time.of(spans[0].start.rho) == pytest.approx(-1.5)
    assert time.of(spans[-1].end.rho) == pytest.approx(1.5)
    torch.testing.assert_close(pencil.drift[:, -1], torch.full_like(s, 3.0 / sum(span.length for span in spans)))
    # Gaussian data: no excess, b_y = -kappa(s) y and a = kappa(s), with kappa = eta^2 sigma^2 / S at the point's time
    assert float(generator.excess.abs().max()) < 1e-9
    if eta == 0.0:
        assert pencil.diffusion.is_zero
        return
    kappa = pencil.diffusion.values[:, :-1]
    torch.testing.assert_close(pencil.drift[:, :-1], -kappa * pencil.points[:, :-1], rtol=1e-9, atol=1e-9)
    assert float(pencil.diffusion.values[:, -1].abs().max()) == 0.0
    assert float(kappa.min()) < 0.5 * float(kappa.max())  # it does change with time


def test_points_follow_the_marginals(make_problem, ring):
    """In the whitened frame the points of every instant have mean 0 and variance 1, to four standard errors."""
    problem = make_problem(ring, VarianceExploding(0.01, 20.0))
    options = GeneratorOptions(time="augmented", points=6400)
    pencil = sampled(problem, options, 0.0)[0].pencil
    y = pencil.points[:, :-1]
    assert float(y.mean(0).abs().max()) < 4.0 / 6400**0.5
    fourth = float((y.square() - 1.0).square().mean())  # the variance of y^2
    assert float((y.square().mean(0) - 1.0).abs().max()) < 4.0 * (fourth / 6400) ** 0.5


def test_the_exact_flow_of_gaussian_data(make_problem, gaussian_data):
    """In the raw frame the whole drift is excess, and time-dependent: x_0 = A x_T in closed form.

    The error falls with the number of points; one frozen operator on as many points cannot follow the flow.
    """
    problem = make_problem(gaussian_data, OrnsteinUhlenbeck(rate=0.5, stationary_std=1.0, t_max=1.5))
    exact = ClosedFormGaussian().fit(problem).sample(stream(300, 3))
    errors = {}
    for time, points, hops in (("frozen", 1200, 1), ("augmented", 300, 6), ("augmented", 1200, 6)):
        options = GeneratorOptions(eta=0.0, time=time, segments=hops, frame="raw", points=points)
        rows = Koopman(RBF(bandwidth="median", factor=2.0), operator=options).fit(problem).sample(stream(300, 3))
        errors[time, points] = float((rows - exact).norm(dim=1).median())
    assert errors["augmented", 1200] < errors["augmented", 300]
    assert errors["augmented", 1200] < 0.1 * errors["frozen", 1200]


def test_paths_of_the_ring_follow_heun(make_problem, ring):
    """Median distance of final states to those of Heun with 100 steps from the same noise; NFE counted once a point."""
    problem = make_problem(ring, VarianceExploding(0.05, 10.0))
    heun = ProbabilityFlowHeun(steps=100).fit(problem).sample(stream(300, 2))
    gaussian = ClosedFormGaussian().fit(problem).sample(stream(300, 2))
    before = problem.score.evaluations
    options = GeneratorOptions(eta=0.0, time="augmented", segments=16, points=1200)
    fitted = Koopman(RBF(bandwidth="median", factor=0.2), operator=options).fit(problem)
    assert problem.score.evaluations - before == 1200  # one operator: not 1,200 for each hop
    rows = fitted.sample(stream(300, 2))
    assert problem.score.evaluations - before == 1200
    median = float((rows - heun).norm(dim=1).median())
    assert median < 0.1 * float((gaussian - heun).norm(dim=1).median())


def test_all_hops_share_one_eigenproblem(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, VariancePreserving())
    options = GeneratorOptions(eta=1.0, time="augmented", segments=3, points=150)
    fitted = Koopman("rbf", operator=options).fit(problem)
    described = fitted.describe()["segments"]
    assert len(described) == 3
    assert len({part["eigenvector_condition"] for part in described}) == 1


def test_rank_zero_needs_no_operator(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, VariancePreserving())
    before = problem.score.evaluations
    rows = Koopman("rbf", operator=GeneratorOptions(time="augmented"), rank=0).fit(problem).sample(stream(50, 3))
    assert problem.score.evaluations == before
    torch.testing.assert_close(rows, ClosedFormGaussian().fit(problem).sample(stream(50, 3)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_width_of_time(width):
    with pytest.raises(ParameterError, match="time_width"):
        GeneratorOptions(time="augmented", time_width=width)


@pytest.mark.parametrize("parameters", [{"rank": 5}, {"eigensolver": "krylov"}])
def test_a_few_pairs_are_no_approximation_of_the_augmented_operator(make_problem, gaussian_data, parameters):
    """It is far from normal: refused before a score is evaluated."""
    problem = make_problem(gaussian_data, VariancePreserving())
    before = problem.score.evaluations
    with pytest.raises(CapabilityError, match="augmented time needs all eigenpairs"):
        Koopman("rbf", operator=GeneratorOptions(time="augmented"), **parameters).fit(problem)
    assert problem.score.evaluations == before
