"""Reference problems: drift, density, samples, quadrature and spectrum fit together, and the spectrum is true.

Statistical thresholds hold a correct sampler up to a chance of 1e-8: |z| < 5.7 for means, and sqrt(n) D < 3.1 for the
Kolmogorov-Smirnov distance D by the inequality P(sqrt(n) D > t) <= 2 exp(-2 t^2) (Massart, Ann. Probab. 18:1269, 1990).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import reference_spectra
from pydantic import ValidationError
from scipy import integrate, stats
from scipy.spatial.distance import cdist

from kfpbench.data.potentials import (
    AnisotropicOU,
    DoubleWell,
    LinearSDE,
    MultiWell,
    OrnsteinUhlenbeck,
    QuadrupleWell,
    ReferenceProblem,
    RotatingOU,
    TiltedWell,
)
from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.protocols import DatasetPlugin
from kfpbench.suite.signature import parameters

Z, KS = 5.7, 3.1

LINES = {
    "double, beta 1": DoubleWell(),
    "double, beta 4": DoubleWell(beta=4.0),
    "double, beta 12": DoubleWell(beta=12.0),
    "double, flat": DoubleWell(beta=0.05),
    "tilted": TiltedWell(),
    "tilted, beta 4": TiltedWell(beta=4.0, tilt=-0.5),
    "tilted to one well": TiltedWell(beta=2.0, tilt=3.0),
    "multi": MultiWell(),
    "multi, beta 2": MultiWell(beta=2.0),
}
PLANES = {"quadruple": QuadrupleWell(), "quadruple, beta 3": QuadrupleWell(beta=3.0)}
GAUSSIAN = {
    "OU 1": OrnsteinUhlenbeck(rate=0.5, diffusion=3.0),
    "OU 2": OrnsteinUhlenbeck(dimension=2),
    "anisotropic": AnisotropicOU(),
    "rotating": RotatingOU(diffusion=0.3),
    "linear": LinearSDE(),
    "reversible linear": LinearSDE(
        drift_matrix=[[-1.2, 0.1], [-1.0, -1.1]],
        diffusion_matrix=[[1.0, 0.5], [0.5, 2.0]],
    ),
}
ALL = {**LINES, **PLANES, **GAUSSIAN}
LINES_ONLY = pytest.mark.parametrize("problem", LINES.values(), ids=LINES)
WELLS = pytest.mark.parametrize("problem", [*LINES.values(), *PLANES.values()], ids=[*LINES, *PLANES])
GAUSSIANS = pytest.mark.parametrize("problem", GAUSSIAN.values(), ids=GAUSSIAN)
EVERY = pytest.mark.parametrize("problem", ALL.values(), ids=ALL)


def matrix(problem) -> np.ndarray:
    """The diffusion as a matrix (d, d)."""
    return problem.diffusion * np.eye(problem.dimension) if np.isscalar(problem.diffusion) else problem.diffusion


def typical(problem, count=40) -> np.ndarray:
    """Points of the support, (count, d)."""
    return problem.sample(count, seed=11)


def gradient(function, x, step=1e-3) -> np.ndarray:
    """Central differences of fourth order, (n, d)."""
    columns = []
    for unit in np.eye(x.shape[1]):
        f = {k: function(x + k * step * unit) for k in (-2, -1, 1, 2)}
        columns.append((8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * step))
    return np.stack(columns, axis=1)


def kronecker_covariance(problem) -> np.ndarray:
    """The stationary covariance: A S + S A^T = -2 a as d^2 linear equations, A read off the drift."""
    d = problem.dimension
    drift = problem.drift(np.eye(d)).T
    system = np.kron(drift, np.eye(d)) + np.kron(np.eye(d), drift)
    return np.linalg.solve(system, -2 * matrix(problem).ravel()).reshape(d, d)


def integral(function) -> float:
    """The integral over [-8, 8] by Gauss-Legendre quadrature with 10 nodes on each of 400 panels."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    centres = np.linspace(-8, 8, 801)[1::2]
    x = (centres[:, None] + 0.02 * nodes).ravel()
    return float(function(x) @ np.tile(0.02 * weights, 400))


def line_distribution(problem):
    """The distribution function of a one-dimensional well, from the potential alone."""
    grid = np.linspace(-8, 8, 160_001)
    height = problem.potential(grid[:, None])
    density = np.exp(-(height - height.min()) / problem.diffusion)
    cumulated = integrate.cumulative_simpson(density, x=grid, initial=0.0)
    return lambda x: np.interp(x, grid, cumulated / cumulated[-1])


# ---- drift, potential, density ----


@EVERY
def test_interfaces(problem):
    assert isinstance(problem, ReferenceProblem)
    assert isinstance(problem, DatasetPlugin)
    x = typical(problem, 7)
    assert x.shape == problem.drift(x).shape == (7, problem.dimension)
    assert problem.log_density(x).shape == (7,)
    assert x.dtype == problem.drift(x).dtype == problem.log_density(x).dtype == np.float64
    np.testing.assert_array_equal(matrix(problem), matrix(problem).T)
    assert np.linalg.eigvalsh(matrix(problem)).min() > 0
    for wrong in (x[0], np.zeros((7, problem.dimension + 1))):
        with pytest.raises(ShapeError, match="shape of points"):
            problem.drift(wrong)


@pytest.mark.parametrize("problem", [p for p in ALL.values() if hasattr(p, "potential")], ids=repr)
def test_drift_is_minus_the_gradient_of_the_potential(problem):
    """Fourth-order differences: the fifth derivative of the steepest potential is 1e7, so its error is below 1e-5."""
    x = typical(problem)
    np.testing.assert_allclose(problem.drift(x), -gradient(problem.potential, x), rtol=1e-6, atol=1e-5)


@EVERY
def test_detailed_balance_is_a_gradient_of_the_log_density(problem):
    """Detailed balance: b = a grad log q everywhere. What calls itself not reversible breaks it by far."""
    x = typical(problem)
    current = problem.drift(x) - gradient(problem.log_density, x) @ matrix(problem)
    assert problem.reversible is bool(np.abs(current).max() < 1e-4)
    assert problem.reversible or np.abs(current).max() > 0.1


@EVERY
def test_the_invariant_density_is_stationary(problem):
    """E_q[L phi] = 0 for phi = sin(k . x + c); a drift that is 1 % too strong shows."""
    x, weights = problem.quadrature({1: 600, 2: 160, 3: 60}[problem.dimension])
    rng = np.random.default_rng(3)
    drift, diffusion = problem.drift(x), matrix(problem)
    too_strong = 0.0
    for k, c in zip(rng.normal(0, 1.5, (8, problem.dimension)), rng.uniform(0, np.pi, 8), strict=True):
        phase = x @ k + c
        first_order, second_order = np.cos(phase) * (drift @ k), -np.sin(phase) * (k @ diffusion @ k)
        size = weights @ np.abs(first_order) + weights @ np.abs(second_order)
        assert abs(weights @ (first_order + second_order)) < 1e-11 * size
        too_strong = max(too_strong, abs(weights @ (1.01 * first_order + second_order)) / size)
    assert too_strong > 1e-4


@LINES_ONLY
def test_log_density_is_normalised(problem):
    mass = integral(lambda x: np.exp(problem.log_density(x[:, None])))
    assert mass == pytest.approx(1, abs=1e-10)


@GAUSSIANS
def test_gaussian_density(problem):
    covariance = kronecker_covariance(problem)
    np.testing.assert_allclose(problem.covariance(), covariance, rtol=1e-12, atol=1e-13)
    x = typical(problem)
    truth = stats.multivariate_normal(np.zeros(problem.dimension), covariance).logpdf(x)
    np.testing.assert_allclose(problem.log_density(x), truth, rtol=1e-10, atol=1e-10)


# ---- quadrature ----


@EVERY
def test_quadrature_weights(problem):
    count = 30
    x, weights = problem.quadrature(count)
    assert x.shape == (count**problem.dimension, problem.dimension)
    assert weights.shape == (len(x),)
    assert weights.min() > 0
    assert weights.sum() == pytest.approx(1, abs=1e-13)
    ends = problem.log_density(x)[[0, -1]]
    assert ends.max() < problem.log_density(x).max() - 34  # e^-34: the grid spans the support
    with pytest.raises(ParameterError, match="at least 2 points"):
        problem.quadrature(1)


@LINES_ONLY
def test_quadrature_of_wells_gives_their_moments(problem):
    x, weights = problem.quadrature(240)
    for power in (1, 2, 4):
        truth = integral(lambda at, n=power: at**n * np.exp(problem.log_density(at[:, None])))
        assert weights @ x[:, 0] ** power == pytest.approx(truth, rel=1e-9, abs=1e-10)


@GAUSSIANS
def test_quadrature_of_gaussians_gives_their_moments(problem):
    """24 points an axis: the trapezoidal rule's error is exp(-2 pi^2 / h^2) = 4e-16 for h = 0.75."""
    x, weights = problem.quadrature(24)
    covariance = kronecker_covariance(problem)
    np.testing.assert_allclose(weights @ x, 0, atol=1e-12)
    np.testing.assert_allclose(x.T @ (weights[:, None] * x), covariance, atol=1e-12)
    fourth = np.einsum("n,n,n->", weights, x[:, 0] ** 2, x[:, -1] ** 2)  # Isserlis
    expected = covariance[0, 0] * covariance[-1, -1] + 2 * covariance[0, -1] ** 2
    assert fourth == pytest.approx(expected, rel=1e-11)


def test_a_tensor_grid_that_is_too_large_is_refused():
    with pytest.raises(ParameterError, match="too many points"):
        OrnsteinUhlenbeck(dimension=8).quadrature(24)


# ---- samples ----


@WELLS
def test_samples_of_wells_follow_the_density(problem):
    count = 40_000
    x = problem.sample(count, seed=5)
    line = DoubleWell(beta=problem.beta) if problem.dimension == 2 else problem
    for axis in x.T:
        assert stats.kstest(axis, line_distribution(line)).statistic * math.sqrt(count) < KS
    if problem.dimension == 2:  # the axes are independent
        products = x[:, 0] * x[:, 1]
        assert abs(products.mean()) < Z * products.std() / math.sqrt(count)


@LINES_ONLY
def test_samples_are_exact_quantiles(problem):
    """F(x) of the drawn rows is the uniform numbers themselves, by another integration rule."""
    x = np.sort(problem.sample(60, seed=2)[:, 0])
    uniform = np.sort(np.random.Generator(np.random.Philox(np.random.SeedSequence(2))).random(60))
    at = np.linspace(0, 1, 20_001)
    low = problem.quadrature(2)[0][0, 0] - 0.5
    for end, level in zip(x, uniform, strict=True):
        grid = low + (end - low) * at
        assert integrate.simpson(np.exp(problem.log_density(grid[:, None])), x=grid) == pytest.approx(level, abs=1e-11)


@GAUSSIANS
def test_samples_of_gaussians_follow_the_density(problem):
    count = 40_000
    white = np.linalg.solve(np.linalg.cholesky(kronecker_covariance(problem)), problem.sample(count, seed=5).T)
    for axis in white:
        assert stats.kstest(axis, "norm").statistic * math.sqrt(count) < KS
    products = white @ white.T / count - np.eye(problem.dimension)
    assert np.abs(products).max() < Z * math.sqrt(2 / count)  # the variance of z^2 is 2, of z z' 1


@EVERY
def test_a_seed_fixes_the_rows(problem):
    first = problem.sample(50, seed=1)
    np.testing.assert_array_equal(first, problem.sample(50, seed=1))
    np.testing.assert_allclose(first, problem.sample(80, seed=1)[:50], rtol=1e-9, atol=1e-12)
    assert not np.isin(first, problem.sample(50, seed=2)).any()
    for count, seed in ((0, 0), (5, -1)):
        with pytest.raises(ParameterError, match="count must be at least 1"):
            problem.sample(count, seed)


@EVERY
def test_as_a_data_set(problem):
    plugin = replace(problem, train=100, validation=20, test=30)
    data = plugin.load()
    for rows, count in ((data.train, 100), (data.validation, 20), (data.test, 30)):
        assert rows.shape == (count, problem.dimension)
        assert rows.dtype == np.float32
    assert plugin.size() == data.train.shape
    assert plugin.size("test") == data.for_reference("test").train.shape
    assert data.name == problem.label
    more = replace(plugin, train=300).load()
    np.testing.assert_array_equal(more.test, data.test)
    assert data.fingerprint == plugin.load().fingerprint != more.fingerprint
    assert not np.array_equal(data.train, replace(plugin, seed=1).load().train)
    if data.law is not None:
        np.testing.assert_allclose(data.law.covariances[0], kronecker_covariance(problem), rtol=1e-12, atol=1e-13)
    assert (data.law is None) is hasattr(problem, "beta")


# ---- spectra ----


@LINES_ONLY
def test_wells_against_finite_volumes(problem):
    truth, error = reference_spectra.finite_volume_line(problem, 7)
    assert (error[1:] / np.abs(truth[1:])).max() < 1e-11
    values = problem.exact_eigenvalues(7)
    assert values.dtype == np.float64
    assert values[0] == 0.0
    np.testing.assert_allclose(values[1:], truth[1:], rtol=1e-10)


def test_a_very_slow_rate():
    """beta = 20: the wells exchange at a rate of 4e-9, and still to six digits, the documented bound."""
    problem = DoubleWell(beta=20.0)
    truth, _ = reference_spectra.finite_volume_line(problem, 3)
    assert -1e-8 < truth[1] < -1e-9
    np.testing.assert_allclose(problem.exact_eigenvalues(3)[1:], truth[1:], rtol=2e-6)
    with pytest.raises(NumericalError, match="too slow"):
        DoubleWell(beta=40.0).exact_eigenvalues(3)
    with pytest.raises(NumericalError, match="do not converge"):
        DoubleWell().exact_eigenvalues(1000)


def test_the_exchange_of_two_deep_wells_obeys_kramers_law():
    """lambda = -2 sqrt(V''(1) |V''(0)|) / (2 pi) exp(-beta), with V'' = 8 and -4."""
    values = DoubleWell(beta=18.0).exact_eigenvalues(2)
    kramers = -2 * math.sqrt(8 * 4) / (2 * math.pi) * math.exp(-18.0)
    assert values[1] == pytest.approx(kramers, rel=0.1)  # corrections of order 1 / beta


def test_many_modes_of_a_well():
    truth, error = reference_spectra.finite_volume_line(DoubleWell(), 25)
    assert error.max() < 1e-7
    np.testing.assert_allclose(DoubleWell().exact_eigenvalues(25), truth, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(DoubleWell().exact_eigenvalues(1), [0.0])


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_quadruple_well_against_finite_volumes_in_the_plane(beta):
    """No use of the product: sums and multiplicities come out of the plane."""
    problem = QuadrupleWell(beta=beta)
    truth, error = reference_spectra.finite_volume_plane(problem, 8, cells=32)
    assert error.max() < 1e-3
    values = problem.exact_eigenvalues(8)
    np.testing.assert_allclose(values, truth, atol=10 * error.max())
    single = DoubleWell(beta=beta).exact_eigenvalues(3)
    np.testing.assert_array_equal(values[:4], [0, single[1], single[1], 2 * single[1]])
    assert values[4] == values[5] == single[2]


@pytest.mark.parametrize("dimension", [1, 2, 4, 50])
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_ornstein_uhlenbeck_multiplicities(dimension, rate):
    multiplicities = [math.comb(n + dimension - 1, n) for n in range(4 if dimension < 50 else 3)]
    values = OrnsteinUhlenbeck(dimension=dimension, rate=rate).exact_eigenvalues(sum(multiplicities) + 1)
    expected = [-rate * n for n, times in enumerate(multiplicities) for _ in range(times)]
    np.testing.assert_allclose(values[:-1], expected, rtol=1e-15)
    assert values[-1] == pytest.approx(-rate * len(multiplicities))
    assert multiplicities[:3] == [1, dimension, dimension * (dimension + 1) // 2]
    assert len(set(values.tolist())) == len(multiplicities) + 1  # equal ones are equal to the last bit


@GAUSSIANS
def test_linear_processes_against_polynomials(problem):
    """All sums of up to three rates are the eigenvalues on polynomials of degree 3; none comes before the rest."""
    truth = reference_spectra.polynomial_eigenvalues(problem, 3)
    slowest = np.abs(problem.exact_eigenvalues(2)[1].real)
    certain = truth[truth.real > -4 * slowest + 1e-6]  # sums of four rates or more come later
    values = problem.exact_eigenvalues(len(certain))
    distance = cdist(np.c_[certain.real, certain.imag], np.c_[values.real, values.imag])
    assert distance.min(axis=0).max() < 1e-4  # multiple eigenvalues of defective blocks: a cube root of rounding
    assert distance.min(axis=1).max() < 1e-4
    assert values.sum() == pytest.approx(certain.sum(), abs=1e-8)  # the mean of a cluster is well conditioned
    assert np.all(np.diff(values.real) <= 0)
    assert np.iscomplexobj(values) is (not problem.reversible)


def test_anisotropic_rates_are_summed():
    values = AnisotropicOU(rates=[1.0, 2.5, 4.0], diffusions=[1.0, 3.0, 0.2]).exact_eigenvalues(9)
    # -4 twice: four times the first rate, or the third once
    np.testing.assert_allclose(values, [0, -1, -2, -2.5, -3, -3.5, -4, -4, -4.5], rtol=1e-15)


def test_rotation_gives_conjugates_side_by_side():
    values = RotatingOU(rate=0.5, omega=3.0).exact_eigenvalues(10)
    expected = [0, -0.5 + 3j, -0.5 - 3j, -1, -1 + 6j, -1 - 6j, -1.5 + 3j, -1.5 - 3j, -1.5 + 9j, -1.5 - 9j]
    np.testing.assert_allclose(values, expected, rtol=1e-15)
    twice = np.kron(np.eye(2), [[-0.5, -3.0], [3.0, -0.5]])  # every pair of the first degree occurs twice
    doubled = LinearSDE(drift_matrix=twice.tolist(), diffusion_matrix=np.eye(4).tolist()).exact_eigenvalues(5)
    np.testing.assert_allclose(doubled, [0, -0.5 + 3j, -0.5 - 3j, -0.5 + 3j, -0.5 - 3j], rtol=1e-13)
    assert RotatingOU(omega=0.0).reversible
    np.testing.assert_array_equal(RotatingOU(omega=0.0).exact_eigenvalues(4), [0, -1, -1, -2])


@EVERY
def test_at_least_one_eigenvalue(problem):
    with pytest.raises(ParameterError, match="at least one"):
        problem.exact_eigenvalues(0)


# ---- parameters ----


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (DoubleWell, {"beta": 0.0}, "beta"),
        (DoubleWell, {"beta": float("nan")}, "beta"),
        (DoubleWell, {"beta": 1e4}, "beta"),
        (QuadrupleWell, {"train": 0}, "train"),
        (MultiWell, {"seed": -1}, "seed"),
        (TiltedWell, {"tilt": 1e3}, "tilt"),
        (OrnsteinUhlenbeck, {"dimension": 0}, "dimension"),
        (OrnsteinUhlenbeck, {"rate": -1.0}, "rate"),
        (RotatingOU, {"diffusion": 0.0}, "diffusion"),
        (RotatingOU, {"omega": float("inf")}, "omega"),
        (AnisotropicOU, {"rates": [1.0, -2.0]}, "rates"),
        (AnisotropicOU, {"rates": [], "diffusions": []}, "rates"),
        (LinearSDE, {"drift_matrix": []}, "drift_matrix"),
    ],
)
def test_impossible_parameters_are_refused(kind, wrong, message):
    with pytest.raises(ParameterError, match=message):
        kind(**wrong)
    with pytest.raises(ValidationError, match=message):  # and by the schema of a suite
        parameters(kind).model_validate(wrong)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (AnisotropicOU, {"rates": [1.0]}, "one number an axis"),
        (LinearSDE, {"drift_matrix": [[-1.0, 0.0]]}, "square"),
        (LinearSDE, {"drift_matrix": [[-1.0]]}, "differ in order"),
        (LinearSDE, {"drift_matrix": [[0.1]], "diffusion_matrix": [[1.0]]}, "not stable"),
        (
            LinearSDE,
            {"drift_matrix": [[-1, 0], [0, -1]], "diffusion_matrix": [[1, 2], [2, 1]]},
            "not symmetric positive definite",
        ),
        (
            LinearSDE,
            {"drift_matrix": [[-1, 0], [0, -1]], "diffusion_matrix": [[1, 0], [0.1, 1]]},
            "not symmetric positive definite",
        ),
    ],
)
def test_matrices_that_no_diffusion_has_are_refused(kind, wrong, message):
    with pytest.raises(ParameterError, match=message):
        kind(**wrong)


def test_a_suite_can_write_lists():
    given = parameters(AnisotropicOU).model_validate({"rates": [1, 2.0], "diffusions": [0.5, 0.5]})
    problem = AnisotropicOU(**given.model_dump())
    np.testing.assert_array_equal(problem.exact_eigenvalues(4), [0, -1, -2, -2])
    matrices = {"drift_matrix": [[-1, 0], [0, -3]], "diffusion_matrix": [[1, 0], [0, 1]]}
    linear = LinearSDE(**parameters(LinearSDE).model_validate(matrices).model_dump())
    np.testing.assert_allclose(linear.exact_eigenvalues(4), [0, -1, -2, -3], rtol=1e-14)
