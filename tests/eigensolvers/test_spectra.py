"""The dense solver against spectra that are known: Ornstein-Uhlenbeck, rotation, and wells on a weighted grid.

Plain spectral truncation (ridge 0) is used where true eigenvalues are compared: a ridge adds slow modes of its own.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.residuals import residuals
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
TRUNCATED = DenseEigensolver(ridge=0.0, truncation=1e-8)


def solve(pencil, length=3.0, solver=TRUNCATED, backend=None):
    return solver.solve(pencil, RBF(bandwidth=length), backend or DenseGram())


def sorted_as_documented(values) -> bool:
    """Descending real part; complex values in adjacent exact conjugate pairs, the positive imaginary part first."""
    real = values.real.tolist()
    if real != sorted(real, reverse=True):
        return False
    index = 0
    while index < len(values):
        value = complex(values[index])
        if value.imag == 0.0:
            index += 1
            continue
        if value.imag < 0 or index + 1 == len(values) or complex(values[index + 1]) != value.conjugate():
            return False
        index += 2
    return True


# ---- sampled points ----


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("length", [3.0, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_ornstein_uhlenbeck(ou_pencil, dimension, length, seed):
    """0 once, -1 d times, -2 d (d + 1) / 2 times, within 2 %. The bias is that of approximating Hermite polynomials
    by kernel sections of a bandwidth of 3 to 5, not Monte Carlo error: polynomials of degree 2 are all but in the
    span, on which the generator acts exactly whatever the points."""
    pairs = solve(ou_pencil(dimension, seed=seed), length)
    expected = [0.0] + [-1.0] * dimension + [-2.0] * (dimension * (dimension + 1) // 2)
    leading = pairs.values[: len(expected)]
    np.testing.assert_allclose(leading.numpy(), expected, rtol=0.02, atol=1e-12)
    assert pairs.values[len(expected)].real < -2.5  # and none besides
    assert set(pairs.flags) == {""}
    assert sorted_as_documented(pairs.values)


def test_ornstein_uhlenbeck_residuals_on_held_out_points(ou_pencil):
    """In truth L phi = lambda phi everywhere: the leading modes keep it on points that the fit has not seen."""
    pairs, held_out = solve(ou_pencil(2)), ou_pencil(2, seed=7)
    measured = residuals(pairs, held_out).full
    assert float(measured[0]) == 0.0  # the constant, exactly
    assert float(measured[1:6].max()) < 0.05
    # phi_1, phi_2 are linear: orthonormal functions of x, up to what 500 points know of their covariance
    functions = pairs.eigenfunctions(held_out.points)[:, 1:3].real
    design = torch.cat([torch.ones((500, 1), dtype=F64), held_out.points], dim=1)
    fitted = design @ torch.linalg.lstsq(design, functions).solution
    assert float((functions - fitted).norm() / functions.norm()) < 0.02


def test_a_planted_wrong_eigenvalue_has_a_large_residual(ou_pencil):
    """||L phi - (lambda + c) phi|| / ||phi|| is c but for the true residual."""
    pairs, held_out = solve(ou_pencil(2)), ou_pencil(2, seed=7)
    truth = residuals(pairs, held_out).full
    pairs.values[1] -= 0.7
    planted = residuals(pairs, held_out).full
    assert abs(float(planted[1]) - 0.7) <= float(truth[1]) + 1e-9
    torch.testing.assert_close(planted[2:], truth[2:], rtol=0.0, atol=0.0)


def test_slow_modes_that_the_ridge_invents_show_in_the_residuals(ou_pencil):
    """A ridge of 1e-6 puts values between 0 and -1 that L does not have. True modes are beside them."""
    pairs = solve(ou_pencil(1), solver=DenseEigensolver(ridge=1e-6))
    relative = residuals(pairs, ou_pencil(1, seed=7)).full / pairs.values.abs().clamp_min(1e-12)
    invented = (pairs.values.real < -1e-9) & (pairs.values.real > -0.9)
    assert int(invented.sum()) >= 1
    assert float(relative[invented].min()) > 1.0
    true = int((pairs.values + 1.0).abs().argmin())
    assert float((pairs.values[true] + 1.0).abs()) < 0.01
    assert float(relative[true]) < 0.05


@pytest.mark.parametrize("omega", [0.5, 2.0])
def test_rotation_gives_conjugate_pairs(linear_pencil, omega):
    """dx = (-I + omega J) x dt + sqrt(2) dw: -1 +- i omega, then -2 and -2 +- 2 i omega (in that order), in 5 %."""
    pairs = solve(linear_pencil([[-1.0, -omega], [omega, -1.0]], 500, 0))
    values = pairs.values.numpy()
    assert sorted_as_documented(pairs.values)
    assert values[0] == 0.0
    np.testing.assert_allclose(values[1:3], [-1 + 1j * omega, -1 - 1j * omega], rtol=0.05)
    second = sorted(values[3:6], key=lambda value: value.imag)
    np.testing.assert_allclose(second, [-2 - 2j * omega, -2, -2 + 2j * omega], rtol=0.05)
    assert float(residuals(pairs, linear_pencil([[-1.0, -omega], [omega, -1.0]], 500, 1)).full[:6].max()) < 0.1
    # conjugate values belong to conjugate functions
    functions = pairs.eigenfunctions(torch.tensor([[0.3, -1.0], [1.2, 0.4]], dtype=F64))
    torch.testing.assert_close(functions[:, 1], functions[:, 2].conj(), rtol=1e-9, atol=1e-9)


def test_anisotropic_diffusion(ou_pencil):
    """b = -a x with a = (0.5, 2) keeps N(0, I): eigenvalues are sums of -0.5 and -2."""
    points = ou_pencil(2).points
    diffusion = torch.tensor([0.5, 2.0], dtype=F64)
    pairs = solve(GalerkinPencil.uniform(points, -diffusion * points, Diffusion.constant(diffusion)))
    np.testing.assert_allclose(pairs.values[:4].numpy(), [0.0, -0.5, -1.0, -1.5], rtol=0.02, atol=1e-12)
    np.testing.assert_allclose(pairs.values[4:7].numpy(), [-2.0, -2.0, -2.5], rtol=0.06)


# ---- weighted grids ----


def grid_pencil(half_width: float, count: int, potential, force) -> GalerkinPencil:
    """Quadrature weights of exp(-V) on a grid: no Monte Carlo error. L = force d/dx + d^2/dx^2, beta = 1."""
    x = torch.linspace(-half_width, half_width, count, dtype=F64)
    weights = torch.exp(-potential(x))
    return GalerkinPencil(x[:, None], force(x)[:, None], Diffusion.constant(1.0), weights / weights.sum())


def schroedinger_reference(count: int, half_width: float) -> np.ndarray:
    """Eigenvalues of L for V = (x^2 - 1)^2 by sinc collocation of the unitarily equivalent Schroedinger operator
    -d^2/dx^2 + V'^2 / 4 - V'' / 2: another formula, another basis, symmetric and well conditioned."""
    h = 2 * half_width / count
    index = np.arange(count)
    x = (index - (count - 1) / 2) * h
    apart = index[:, None] - index[None, :]
    kinetic = 2.0 * (-1.0) ** apart / (np.where(apart == 0, 1, apart) * h) ** 2
    kinetic[apart == 0] = np.pi**2 / (3 * h**2)
    slope, curvature = 4 * x * (x**2 - 1), 12 * x**2 - 4
    return -np.linalg.eigvalsh(kinetic + np.diag(slope**2 / 4 - curvature / 2))


@pytest.mark.parametrize("length", [2.0, 3.0])
def test_ornstein_uhlenbeck_on_a_grid(length):
    pencil = grid_pencil(7.0, 300, lambda x: x**2 / 2, lambda x: -x)
    pairs = solve(pencil, length, DenseEigensolver(ridge=0.0, truncation=1e-12))
    np.testing.assert_allclose(pairs.values[:5].numpy(), [0.0, -1.0, -2.0, -3.0, -4.0], atol=1e-6)


def test_ornstein_uhlenbeck_eigenfunctions_are_hermite_polynomials():
    pencil = grid_pencil(7.0, 300, lambda x: x**2 / 2, lambda x: -x)
    pairs = solve(pencil, 2.0, DenseEigensolver(ridge=0.0, truncation=1e-12))
    x = torch.linspace(-2.5, 2.5, 40, dtype=F64)
    functions = pairs.eigenfunctions(x[:, None]).real
    for degree, hermite in ((0, x**0), (1, x), (2, x**2 - 1), (3, x**3 - 3 * x)):
        shape = functions[:, degree] * (hermite[-1] / functions[-1, degree])
        torch.testing.assert_close(shape, hermite, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [0.3, 0.5])
def test_double_well_on_a_grid(length):
    reference = schroedinger_reference(160, 4.0)
    assert reference[:3] == pytest.approx(schroedinger_reference(110, 3.6)[:3], rel=1e-7, abs=1e-7)  # converged
    pencil = grid_pencil(3.0, 400, lambda x: (x**2 - 1) ** 2, lambda x: -4 * x * (x**2 - 1))
    pairs = solve(pencil, length, DenseEigensolver(ridge=0.0, truncation=1e-12))
    np.testing.assert_allclose(pairs.values[1:5].numpy(), reference[1:5], rtol=1e-4)
    assert pairs.values[0] == 0.0


def test_weights_are_repeated_points(ou_pencil):
    """A point of weight 2 / N is that point twice."""
    pencil = ou_pencil(1, 60)
    counts = torch.tensor([1, 2, 3] * 20)
    weighted = GalerkinPencil(pencil.points, pencil.drift, pencil.diffusion, counts / counts.sum(dtype=F64))
    twice = GalerkinPencil.uniform(
        pencil.points.repeat_interleave(counts, 0), pencil.drift.repeat_interleave(counts, 0), pencil.diffusion
    )
    first, second = (solve(each).values[:4].numpy() for each in (weighted, twice))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-12)


def test_tiled_and_dense_backends_give_one_spectrum(linear_pencil):
    pencil = linear_pencil([[-1.0, -2.0], [2.0, -1.0]], 200, 0)
    solver = DenseEigensolver(ridge=0.0, truncation=1e-6)
    dense, tiled = (solve(pencil, solver=solver, backend=each) for each in (DenseGram(), TiledGram(17)))
    np.testing.assert_allclose(tiled.values[:6].numpy(), dense.values[:6].numpy(), rtol=1e-7, atol=1e-12)
