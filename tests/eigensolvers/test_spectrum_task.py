"""The spectrum block end to end: data, process, score, frame, solver, held-out residuals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.eigensolvers import spectrum as spectrum_module
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.spectrum import Spectrum
from kfpbench.eigensolvers.spectrum_task import SpectrumTask
from kfpbench.errors import ParameterError, UnknownComponentError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem, ProblemSize
from kfpbench.scores.gaussian import GaussianScore

CPU, F64 = torch.device("cpu"), torch.float64
OPERATOR = GeneratorOptions(eta=1.0, time="frozen", points=600)
TRUNCATED = DenseEigensolver(ridge=0.0, truncation=1e-8)


def problem(seed: int = 0) -> Problem:
    """N(0, diag(4, 0.5)) under VE with the exact Gaussian score."""
    rows = np.random.default_rng(0).standard_normal((3000, 2)) * np.sqrt([4.0, 0.5])
    rows = rows.astype(np.float32)
    data = Dataset("gaussian", rows, rows[:1], rows[:1])
    return Problem(data, VarianceExploding(), GaussianScore().bind(data, CPU, F64), CPU, F64, seed)


def expected_values(given: Problem, sigma: float, eta: float, count: int) -> list[float]:
    """-(n_1 kappa_1 + n_2 kappa_2) for all n >= 0, kappa_i = eta^2 sigma^2 / S_i per unit of rho, S_i = lam_i +
    sigma^2: a product of Ornstein-Uhlenbeck processes, with Hermite polynomials for eigenfunctions."""
    kappa = eta**2 * sigma**2 / (training_moments(given.dataset).variances + sigma**2)
    sums = [-float(np.dot(n, kappa)) for n in itertools.product(range(12), repeat=2)]
    return sorted(sums, reverse=True)[:count]


@pytest.mark.parametrize("sigma", [0.7, 2.0, 10.0])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_gaussian_data_whitened(sigma, eta):
    """The leading non-zero values are -eta^2 sigma^2 / S_i and their sums, within 2 %."""
    given = problem()
    options = GeneratorOptions(eta=eta, time="frozen", points=600)
    task = SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=options, n_eigs=4, at=sigma)
    spectrum = task.solve(given)
    np.testing.assert_allclose(spectrum.values, expected_values(given, sigma, eta, 4), rtol=0.02, atol=1e-12)
    assert spectrum.flags == ("",) * 4
    assert spectrum.status == "ok"
    assert spectrum.residuals[0] == 0.0
    assert max(spectrum.residuals) < 0.05 * eta**2
    assert given.score.evaluations == 2 * 600  # the fit and the held-out points


def assert_equal(first: Spectrum, second: Spectrum) -> None:
    """To the last bit."""
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.residuals, second.residuals)
    assert (first.flags, first.status) == (second.flags, second.status)
    assert first.diagnostics == second.diagnostics


def test_gaussian_data_raw_frame():
    """Frames do not change the spectrum at one instant but for the motion of the map: in the raw frame the drift is
    2 (gain - 1) x with a = sigma^2, of rates 2 sigma^2 / S_i."""
    given, sigma = problem(), 2.0
    options = GeneratorOptions(eta=1.0, time="frozen", frame="raw", points=600)
    spectrum = SpectrumTask(RBF(factor=3.0), TRUNCATED, operator=options, n_eigs=2, at=sigma).solve(given)
    slowest = -2.0 * sigma**2 / (training_moments(given.dataset).variances[0] + sigma**2)
    np.testing.assert_allclose(spectrum.values, [0.0, slowest], rtol=0.02, atol=1e-12)


def test_time_defaults_to_t_min_and_includes_both_ends():
    given = problem()

    def values(at):
        task = SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=OPERATOR, n_eigs=3, at=at)
        return task.solve(given).values.tolist()

    assert values(None) == values(given.process.t_min)
    assert values(given.process.t_max) != values(None)
    # at t_max all is noise: kappa = 1 in every direction, 80^2 / (80^2 + lam)
    np.testing.assert_allclose(values(80.0), [0.0, -1.0, -1.0], rtol=0.02, atol=1e-12)


def test_time_handling_of_the_operator_does_not_apply():
    given = problem()
    both = [GeneratorOptions(eta=1.0, time=time, segments=5, points=200) for time in ("frozen", "piecewise")]
    first, second = (SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=o, at=1.0).solve(given) for o in both)
    assert_equal(first, second)


def test_a_seed_fixes_the_spectrum():
    task = SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=OPERATOR, n_eigs=4, at=2.0)
    first, again, other = (task.solve(problem(seed)) for seed in (5, 5, 6))
    assert_equal(first, again)
    assert not np.isin(first.values[1:], other.values).any()


@pytest.mark.parametrize("at", [0.0019, 80.1, 1e9, math.nan, -1.0])
def test_time_outside_the_process(at):
    given = problem()
    with pytest.raises(ParameterError, match="outside the process"):
        SpectrumTask(at=at, operator=OPERATOR).solve(given)
    assert given.score.evaluations == 0  # nothing was spent on it


class Flagging:
    """The dense solver, with a flag on chosen places of the list."""

    def __init__(self, places: tuple[int, ...]) -> None:
        self.places = places

    def solve(self, pencil, kernel, backend, n_eigs=None) -> Eigenpairs:
        pairs = TRUNCATED.solve(pencil, kernel, backend, n_eigs)
        flags = tuple("planted" if index in self.places else "" for index in range(len(pairs.values)))
        return replace(pairs, flags=flags)

    def working_memory(self, points, dimension, n_eigs, itemsize) -> int:
        return TRUNCATED.working_memory(points, dimension, n_eigs, itemsize)


@pytest.mark.parametrize(
    ("places", "length"),
    [((), 3), ((0,), 4), ((1, 2), 5), ((3,), 3), ((0, 2, 4), 6)],
    ids=["none", "first", "inside", "behind", "alternating"],
)
def test_flagged_modes_are_reported_but_not_counted(places, length):
    task = SpectrumTask(RBF(bandwidth=3.0), Flagging(places), operator=OPERATOR, n_eigs=3, at=2.0)
    spectrum = task.solve(problem())
    assert len(spectrum.values) == len(spectrum.residuals) == len(spectrum.flags) == length
    assert spectrum.flags == tuple("planted" if index in places else "" for index in range(length))
    assert spectrum.flags.count("") == 3
    plain = SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=OPERATOR, n_eigs=length, at=2.0).solve(problem())
    np.testing.assert_array_equal(spectrum.values, plain.values)  # flagged ones keep their place


def test_asking_for_more_than_there_are():
    task = SpectrumTask(RBF(bandwidth=3.0), DenseEigensolver(max_rank=4), operator=OPERATOR, n_eigs=900, at=2.0)
    spectrum = task.solve(problem())
    assert len(spectrum.values) == 5
    assert spectrum.status == "too few sound modes"


def test_residuals_are_measured_on_points_that_the_fit_has_not_seen(monkeypatch):
    seen = []
    measure = spectrum_module.residuals

    def spy(pairs, pencil):
        seen.append(pencil.points)
        return measure(pairs, pencil)

    monkeypatch.setattr(spectrum_module, "residuals", spy)
    fitted = SpectrumTask(RBF(bandwidth=3.0), TRUNCATED, operator=OPERATOR, at=2.0).solve(problem()).points
    (held_out,) = seen
    assert held_out.shape == fitted.shape == (600, 2)
    assert float(torch.cdist(fitted, held_out).min()) > 0.0
    correlation = torch.corrcoef(torch.cat([fitted.T, held_out.T]))[:2, 2:]
    assert float(correlation.abs().max()) * math.sqrt(600) < 5.0


def test_components_by_name():
    task = SpectrumTask(kernel="rbf", eigensolver="dense", backend="tiled")
    assert isinstance(task.kernel, RBF)
    assert isinstance(task.eigensolver, DenseEigensolver)
    with pytest.raises(UnknownComponentError, match="rbf"):
        SpectrumTask(kernel="rbff")
    small, large = (SpectrumTask(operator=GeneratorOptions(points=n)) for n in (100, 1000))
    size = ProblemSize(3000, 2, 1, 4)
    # at least the Gram matrix and the generator's, N x N in float64
    assert large.working_memory(size) >= 2 * 8 * 1000**2
    assert small.working_memory(size) < large.working_memory(size)
