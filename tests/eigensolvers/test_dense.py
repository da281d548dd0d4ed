"""The dense solver's algebra: exact identities of the projected generator, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.errors import CapabilityError, KfpbenchError, NumericalError, ParameterError, ShapeError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.generator import FrozenGenerator
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.samplers.koopman import expand_displacement

F64 = torch.float64
KERNEL = RBF(bandwidth=1.5)
ROTATION = [[-1.0, -2.0], [2.0, -1.0]]


@pytest.fixture(params=[0.0, 1e-6, 1e-3], ids=lambda ridge: f"ridge {ridge:g}")
def ridge(request) -> float:
    return request.param


@pytest.fixture
def pairs(ridge, linear_pencil) -> Eigenpairs:
    solver = DenseEigensolver(ridge=ridge, truncation=1e-6, max_rank=None)
    return solver.solve(linear_pencil(ROTATION, 80, 0), KERNEL, DenseGram())


def ridged(pairs: Eigenpairs, solver_ridge: float) -> torch.Tensor:
    """B = I + gamma / Lam, the mass of the features with the ridge, (r,); Lam by the definition of the features.

    <F_a, F_a> in the RKHS is t_a^T K t_a with the coefficients t_a of F_a, and must be 1 / Lam_a.
    """
    basis = pairs.basis
    transform = basis.transform
    energy = (transform * (kernel_block(basis.kernel, basis.centres, basis.centres) @ transform)).sum(0)
    return torch.cat([torch.ones(1, dtype=F64), 1.0 + solver_ridge * energy])


def projected(pairs: Eigenpairs) -> np.ndarray:
    """B^-1 S, the matrix of the generator in the features, put together again from its eigenpairs: with
    right^-1 = adjoint^H B it is right diag(values) right^-1."""
    return (pairs.right @ torch.diag(pairs.values) @ torch.linalg.inv(pairs.right)).numpy()


def project(pairs: Eigenpairs, points: torch.Tensor, u: torch.Tensor, gamma: float) -> torch.Tensor:
    """Coordinates B^-1 F^T W u (r, p) in the features: ridge regression, by its normal equations."""
    values = pairs.basis.features(points)
    return (values.T @ (pairs.weights[:, None] * u)) / ridged(pairs, gamma)[:, None]


def varphi_1_of_matrix(matrix: np.ndarray) -> np.ndarray:
    """varphi_1(A) = sum_k A^k / (k + 1)! as the corner block of the exponential of [[A, I], [0, 0]]."""
    order = len(matrix)
    block = np.zeros((2 * order, 2 * order), dtype=matrix.dtype)
    block[:order, :order], block[:order, order:] = matrix, np.eye(order)
    return scipy.linalg.expm(block)[:order, order:]


def features(pairs: Eigenpairs, x: torch.Tensor) -> torch.Tensor:
    """F(x) = [1, k(x, X) transform - offset] by the definition."""
    basis = pairs.basis
    sections = kernel_block(basis.kernel, x, basis.centres) @ basis.transform - basis.offset
    return torch.cat([torch.ones((len(x), 1), dtype=F64), sections], dim=1)


def observable(count: int, columns: int = 2) -> torch.Tensor:
    return torch.randn((count, columns), generator=torch.Generator().manual_seed(9), dtype=F64)


# ---- biorthogonality, the constant, the projected matrix ----


def test_adjoint_and_right_are_biorthogonal_in_the_ridged_mass(pairs, ridge):
    """adjoint^H B right = I, with B from the definition of the features; 1e-9: Lam down to 1e-6 of its maximum."""
    identity = (pairs.adjoint.mH @ (ridged(pairs, ridge)[:, None] * pairs.right)).numpy()
    bound = 1e-12 * pairs.diagnostics["eigenvector_condition"] + 1e-9
    np.testing.assert_allclose(identity, np.eye(len(identity)), atol=bound)


def test_without_a_ridge_the_functions_are_biorthogonal_over_the_points(linear_pencil):
    """<psi_k, phi_l> = sum_i W_i conj(psi_k(x_i)) phi_l(x_i) = delta_kl, evaluated as functions."""
    pencil = linear_pencil(ROTATION, 80, 0)
    pairs = DenseEigensolver(truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    psi, phi = pairs.adjoint_functions(pencil.points), pairs.eigenfunctions(pencil.points)
    products = (psi.mH @ (pencil.weights[:, None] * phi)).numpy()
    bound = 1e-12 * pairs.diagnostics["eigenvector_condition"] + 1e-8
    np.testing.assert_allclose(products, np.eye(len(products)), atol=bound)


def test_adjoint_functions_are_eigenfunctions_of_the_adjoint(linear_pencil):
    """<psi_k, L f> = lambda_k <psi_k, f> for every f in the span, at full rank and without a ridge."""
    pencil = linear_pencil(ROTATION, 80, 0)
    pairs = DenseEigensolver(truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    images = pairs.basis.images(pencil.points, pencil.drift, pencil.diffusion).to(pairs.right.dtype)
    weighted = pairs.adjoint_functions(pencil.points).mH * pencil.weights
    left, right = weighted @ images, pairs.values[:, None] * (weighted @ pairs.on_points.to(pairs.right.dtype))
    bound = 1e-11 * pairs.diagnostics["eigenvector_condition"] * float(left.abs().max())
    np.testing.assert_allclose(left.numpy(), right.numpy(), atol=bound)


def test_the_constant_is_an_exact_eigenfunction(pairs):
    """Exact to the last bit in its value; its function is the same at every point, seen or not."""
    index = int((pairs.values == 0).nonzero()[0])
    x = torch.cat([pairs.basis.centres[:5], 10.0 * pairs.basis.centres[5:8]])
    functions = pairs.eigenfunctions(x)[:, index]
    torch.testing.assert_close(functions, functions[0].expand_as(functions), rtol=1e-12, atol=0.0)
    assert float(functions[0].abs()) > 0.1


def test_the_other_eigenfunctions_average_to_zero_in_the_features(pairs, linear_pencil):
    """The features besides the constant are centred in the weights: [1, F] is an orthogonal split."""
    values = features(pairs, linear_pencil(ROTATION, 80, 0).points)[:, 1:]
    assert float((pairs.weights @ values).abs().max()) < 1e-9


def test_features_are_orthonormal_in_the_weights_and_orthogonal_in_the_rkhs(pairs, linear_pencil):
    """F^T W F = I, and T^T K T = 1 / Lam, Lam the leading eigenvalues of the centred Gram matrix over N.

    Rounding of the Gram matrix, eps N = 1e-14, is divided by Lam >= 1e-6: 1e-8 in the products of values.
    """
    basis, points = pairs.basis, linear_pencil(ROTATION, 80, 0).points
    values = features(pairs, points)
    torch.testing.assert_close(pairs.on_points, values, rtol=0.0, atol=1e-7)
    torch.testing.assert_close(basis.features(points), values, rtol=0.0, atol=0.0)
    gram = values.T @ (pairs.weights[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=F64), rtol=0.0, atol=1e-7)
    stored = pairs.on_points.T @ (pairs.weights[:, None] * pairs.on_points)
    torch.testing.assert_close(stored, torch.eye(len(gram), dtype=F64), rtol=0.0, atol=1e-12)
    centring = torch.eye(80, dtype=F64) - 1.0 / 80
    gram_of_points = kernel_block(KERNEL, points, points)
    strengths = torch.linalg.eigvalsh(centring @ gram_of_points @ centring / 80).flip(0)[: len(gram) - 1]
    assert float(strengths[-1]) > 0.99e-6 * float(strengths[0])  # the truncation
    sections = kernel_block(KERNEL, basis.centres, basis.centres)
    energies = basis.transform.T @ sections @ basis.transform * (strengths[:, None] * strengths).sqrt()
    torch.testing.assert_close(energies, torch.eye(len(strengths), dtype=F64), rtol=0.0, atol=1e-6)


def test_the_matrix_is_the_projection_of_the_generator(pairs, linear_pencil, ridge):
    """Its columns are the ridge regressions of L F onto F."""
    pencil, basis = linear_pencil(ROTATION, 80, 0), pairs.basis
    images = generator_block(basis.kernel, pencil.points, basis.centres, pencil.drift, pencil.diffusion)
    images = torch.cat([torch.zeros((80, 1), dtype=F64), images @ basis.transform], dim=1)
    expected = project(pairs, pencil.points, images, ridge).numpy()
    bound = (1e-12 * pairs.diagnostics["eigenvector_condition"] + 1e-8) * abs(expected).max()
    np.testing.assert_allclose(projected(pairs), expected, atol=bound)


def test_eigenfunctions_and_images_by_their_definition(pairs, linear_pencil):
    pencil = linear_pencil(ROTATION, 30, 5)
    functions = features(pairs, pencil.points).to(pairs.right.dtype) @ pairs.right
    torch.testing.assert_close(pairs.eigenfunctions(pencil.points), functions, rtol=1e-9, atol=1e-9)
    # images by automatic differentiation of the eigenfunctions: b . grad + Laplacian
    for row in range(3):
        x = pencil.points[row]

        def real_imag(z):
            values = pairs.eigenfunctions(z[None])[0]
            return torch.stack([values.real, values.imag])

        jacobian = torch.func.jacfwd(real_imag)(x)
        hessian = torch.func.jacfwd(torch.func.jacfwd(real_imag))(x)
        image = jacobian @ pencil.drift[row] + torch.einsum("abii->ab", hessian)
        scale = float(pairs.values.abs().max() * pairs.eigenfunctions(x[None]).abs().max())
        actual = pairs.generator_images(pencil)[row]
        torch.testing.assert_close(actual, torch.complex(*image), rtol=1e-7, atol=1e-9 * scale)


# ---- ridge regression ----


def test_coefficients_are_inner_products_with_the_adjoint_functions(pairs, ridge, linear_pencil):
    """<psi_k, u> = sum_i W_i conj(psi_k(x_i)) u(x_i), and right adjoint^H = B^-1, from adjoint^H B right = I."""
    u = observable(80)
    weighted = (pairs.weights[:, None] * u).to(pairs.adjoint.dtype)
    found = pairs.coefficients(u)
    by_definition = pairs.adjoint_functions(linear_pencil(ROTATION, 80, 0).points).mH @ weighted
    torch.testing.assert_close(found, by_definition, rtol=0.0, atol=1e-7 * float(found.abs().max()))
    inverse_mass = (pairs.right @ pairs.adjoint.mH).numpy()
    bound = 1e-12 * pairs.diagnostics["eigenvector_condition"] + 1e-8
    np.testing.assert_allclose(inverse_mass, np.diag(1.0 / ridged(pairs, ridge).numpy()), atol=bound)


@pytest.mark.parametrize("ridge", [1e-4, 1e-2, 1.0])
def test_projection_is_centred_kernel_ridge_regression(ou_pencil, ridge):
    """sum_k phi_k(x) <psi_k, u> = mean(u) + k_c(x, X) (K_c + N gamma I)^-1 (u - mean(u)), the naive formula.

    <psi_k, u> = adjoint^H F^T W u, and right adjoint^H = B^-1 because adjoint^H B right = I: the expansion is
    F B^-1 F^T W u = sum_a F_a Lam_a / (Lam_a + gamma) <F_a, u>, the minimiser of |u - F c|_W^2 + gamma c^T Lam^-1 c.
    """
    count = 60
    pencil, u = ou_pencil(2, count), observable(count)
    pairs = DenseEigensolver(ridge=ridge, truncation=1e-14, max_rank=None).solve(pencil, KERNEL, DenseGram())
    x = ou_pencil(2, 25, seed=3).points

    gram, cross = kernel_block(KERNEL, pencil.points, pencil.points), kernel_block(KERNEL, x, pencil.points)
    centring = torch.eye(count, dtype=F64) - 1.0 / count
    centred_cross = (cross - gram.mean(0)) @ centring
    dual = torch.linalg.solve(centring @ gram @ centring + count * ridge * torch.eye(count, dtype=F64), u - u.mean(0))
    expected = u.mean(0) + centred_cross @ dual
    torch.testing.assert_close(
        features(pairs, x) @ project(pairs, pencil.points, u, ridge), expected, rtol=1e-7, atol=1e-7
    )
    # and so does the expansion in eigenfunctions, at full rank
    expanded = pairs.eigenfunctions(x) @ pairs.coefficients(u)
    condition = pairs.diagnostics["eigenvector_condition"]
    torch.testing.assert_close(expanded.real, expected, rtol=1e-8, atol=1e-8 + 1e-12 * condition)
    assert float(expanded.imag.abs().max()) < 1e-12 * condition


def test_weighted_projection_is_weighted_ridge_regression(ou_pencil):
    """The minimiser of sum_i W_i (u_i - c - f(x_i))^2 + gamma |f|^2 over c and f, by its stationarity equations."""
    pencil, gamma = ou_pencil(2, 50), 1e-3
    weights = torch.rand(50, generator=torch.Generator().manual_seed(2), dtype=F64) + 0.2
    weights = weights / weights.sum()
    weighted = GalerkinPencil(pencil.points, pencil.drift, pencil.diffusion, weights)
    pairs = DenseEigensolver(ridge=gamma, truncation=1e-14, max_rank=None).solve(weighted, KERNEL, DenseGram())
    gram, u = kernel_block(KERNEL, pencil.points, pencil.points), observable(50, 1)
    # f = sum_j a_j k(., x_j): gamma a = W (u - c - K a), sum_i W_i (u_i - c - (K a)_i) = 0
    system = torch.zeros((51, 51), dtype=F64)
    system[:50, :50] = weights[:, None] * gram + gamma * torch.eye(50, dtype=F64)
    system[:50, 50], system[50, :50], system[50, 50] = weights, weights @ gram, 1.0
    solution = torch.linalg.solve(system, torch.cat([weights[:, None] * u, (weights @ u)[None]]))
    x = ou_pencil(2, 20, seed=3).points
    # the features penalise f up to a constant of the centred kernel, the equations f itself: with a free c the
    # centred dual differs from a by nothing, because stationarity makes sum_j a_j = 0
    assert abs(float(solution[:50].sum())) < 1e-9
    expected = kernel_block(KERNEL, x, pencil.points) @ solution[:50] + solution[50]
    expanded = (pairs.eigenfunctions(x) @ pairs.coefficients(u)).real
    torch.testing.assert_close(expanded, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
def test_eigenvalues_are_those_of_the_ridge_problem(linear_pencil, ridge):
    """H Psi H v = lambda (H K H + N gamma I) v by LAPACK's generalised solver, without features."""
    count = 60
    pencil = linear_pencil(ROTATION, count, 0)
    pairs = DenseEigensolver(ridge=ridge, truncation=1e-14, max_rank=None).solve(pencil, KERNEL, DenseGram())
    centring = np.eye(count) - 1.0 / count
    gram = kernel_block(KERNEL, pencil.points, pencil.points).numpy()
    images = generator_block(KERNEL, pencil.points, pencil.points, pencil.drift, pencil.diffusion).numpy()
    right = centring @ gram @ centring + count * ridge * np.eye(count)
    direct = scipy.linalg.eigvals(centring @ images @ centring, right)
    leading = direct[np.argsort(-abs(direct))][:12]  # the large ones: well separated from the crowd at 0
    for value in leading:
        assert float((pairs.values - complex(value)).abs().min()) < 1e-6 * abs(value)


# ---- functions of the operator ----


def test_full_rank_expansion_is_the_matrix_exponential(pairs, ridge, linear_pencil):
    """sum_k e^(lambda_k D) phi_k <psi_k, u> = F expm(D B^-1 S) B^-1 F^T W u."""
    u, span = observable(80), 0.3
    expansion = pairs.right @ (torch.exp(pairs.values * span)[:, None] * pairs.coefficients(u))
    expected = (
        scipy.linalg.expm(span * projected(pairs))
        @ project(pairs, linear_pencil(ROTATION, 80, 0).points, u, ridge).numpy()
    )
    condition = pairs.diagnostics["eigenvector_condition"]
    bound = (1e-12 * condition + 1e-8) * abs(expected).max()
    np.testing.assert_allclose(expansion.numpy(), expected, atol=bound)


@pytest.mark.parametrize("span", [1e-6, 3e-4, 0.05, 0.5])
def test_full_rank_displacement_is_the_dense_matrix_function(linear_pencil, span):
    """D varphi_1(D G) b without a linear part, and D e^(-kappa D) varphi_1(D (G + kappa)) b with one for each
    coordinate; compared at new points with scipy's expm of the projected matrix."""
    pencil = linear_pencil(ROTATION, 80, 0)
    pairs = DenseEigensolver(ridge=1e-6, truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    excess, x = observable(80), linear_pencil(ROTATION, 20, 4).points
    matrix, coordinates = projected(pairs).real, project(pairs, pencil.points, excess, 1e-6).numpy()
    for kappa in (torch.zeros(2, dtype=F64), torch.tensor([0.3, 1.7], dtype=F64)):
        moved = expand_displacement(pairs, FrozenGenerator(pencil, excess), span, torch.exp(-kappa * span), F64)(x)
        expected = []
        for axis, rate in enumerate(kappa.tolist()):
            operator = span * (matrix + rate * np.eye(len(matrix)))
            function = span * math.exp(-rate * span) * varphi_1_of_matrix(operator)
            expected.append(features(pairs, x).numpy() @ function @ coordinates[:, axis])
        scale = abs(np.stack(expected, 1)).max()
        bound = 1e-12 * pairs.diagnostics["eigenvector_condition"] * scale
        np.testing.assert_allclose(moved.numpy(), np.stack(expected, axis=1), atol=max(bound, 1e-9 * scale))


def test_displacement_solves_the_linear_equation():
    """d=1 transport with B = c - k x exactly linear: over D the mean moves by (c / k - x) (1 - e^(-k D))."""
    x = torch.linspace(-2.0, 2.0, 60, dtype=F64)[:, None]
    pencil = GalerkinPencil.uniform(x, 0.5 - 1.2 * x, Diffusion.constant(0.0))
    pairs = DenseEigensolver(ridge=0.0, truncation=1e-11).solve(pencil, RBF(bandwidth=4.0), DenseGram())
    span, one = 0.7, torch.ones(1, dtype=F64)
    moved = expand_displacement(pairs, FrozenGenerator(pencil, pencil.drift), span, one, F64)(x[::7])
    torch.testing.assert_close(moved, (0.5 / 1.2 - x[::7]) * (1.0 - math.exp(-1.2 * span)), rtol=1e-4, atol=1e-4)


def test_displacement_that_overflows_is_named(linear_pencil):
    pencil = linear_pencil([[500.0, 0.0], [0.0, 500.0]], 60, 0)
    pairs = DenseEigensolver(ridge=0.0, truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    with pytest.raises(NumericalError, match="not finite"):
        expand_displacement(pairs, FrozenGenerator(pencil, pencil.drift), 100.0, torch.ones(2, dtype=F64), F64)


# ---- selection, rank, flags ----


def test_slowest_never_splits_a_pair(linear_pencil):
    pairs = DenseEigensolver(ridge=0.0, truncation=1e-6).solve(linear_pencil(ROTATION, 150, 0), KERNEL, DenseGram())
    assert int((pairs.values.imag != 0).sum()) >= 6  # there are pairs to split
    for count in range(len(pairs.values) + 2):
        kept = pairs.slowest(count)
        size = len(kept.values)
        assert min(count, len(pairs.values)) - 1 <= size <= count or size == len(pairs.values)
        assert sorted(kept.values.imag.tolist()) == sorted((-kept.values.imag).tolist())  # closed under conjugation
        assert kept.right.shape[1] == kept.adjoint.shape[1] == len(kept.flags) == size
        assert kept.values.tolist() == [value for value in pairs.values.tolist() if value in kept.values.tolist()]
        # those left out are no slower than those kept, but for the half of a pair that did not fit
        left_out = sorted(abs(v) for v in pairs.values.tolist() if v not in kept.values.tolist())
        if size and len(left_out) > 2:
            assert left_out[0] >= float(kept.values.abs().max()) * (1 - 1e-12)
    assert len(pairs.slowest(0).values) == 0


def test_slowest_keeps_the_vectors_of_its_values(pairs):
    kept = pairs.slowest(5)
    for column, value in enumerate(kept.values.tolist()):
        origin = pairs.values.tolist().index(value)
        assert torch.equal(kept.right[:, column], pairs.right[:, origin])
        assert torch.equal(kept.adjoint[:, column], pairs.adjoint[:, origin])


def test_rank_is_limited(ou_pencil):
    pencil = ou_pencil(2, 100)
    full = DenseEigensolver(ridge=0.0, truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    assert full.diagnostics["rank"] == len(full.values) == full.basis.size > 8
    limited = DenseEigensolver(ridge=0.0, truncation=1e-6, max_rank=7).solve(pencil, KERNEL, DenseGram())
    assert limited.diagnostics["rank"] == len(limited.values) == 8  # and the constant
    assert torch.equal(limited.basis.transform, full.basis.transform[:, :7])
    coarser = DenseEigensolver(ridge=0.0, truncation=1e-3).solve(pencil, KERNEL, DenseGram())
    assert 1 < len(coarser.values) < len(full.values)


def test_an_expanding_drift_has_a_growing_mode_and_that_is_no_fault(linear_pencil):
    """dx = +x dt + sqrt(2) dw expands: phi(x) = x is an exact eigenfunction with value +1, and is not flagged."""
    pairs = DenseEigensolver().solve(linear_pencil([[1.0]], 100, 0), RBF(bandwidth=5.0), DenseGram())
    assert float((pairs.values - 1.0).abs().min()) < 0.1
    assert set(pairs.flags) == {""}


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_defaults_find_the_slow_modes_of_ornstein_uhlenbeck(ou_pencil, dimension):
    """No spurious slow mode ahead of -1: what a ridge would put there."""
    values = DenseEigensolver().solve(ou_pencil(dimension, 500), RBF(), DenseGram()).values
    assert abs(complex(values[0])) < 1e-9
    for value in values[1 : 1 + dimension].tolist():
        assert abs(value + 1.0) < 0.15


# ---- smoothness ----


class Rough(RBF):
    """Claims one continuous derivative."""

    smoothness = 1


class Rougher(RBF):
    smoothness = 0


def test_a_kernel_too_rough_for_diffusion_is_refused(ou_pencil):
    pencil = ou_pencil(2, 30)
    transport = GalerkinPencil.uniform(pencil.points, pencil.drift, Diffusion.constant(0.0))
    partly = GalerkinPencil.uniform(
        pencil.points, pencil.drift, Diffusion.constant(torch.tensor([0.0, 1.0], dtype=F64))
    )
    solver = DenseEigensolver()
    for diffusive in (pencil, partly):
        with pytest.raises(CapabilityError, match="too rough") as refusal:
            solver.solve(diffusive, Rough(bandwidth=1.0), DenseGram())
        assert "at least 2" in str(refusal.value)
    assert len(solver.solve(transport, Rough(bandwidth=1.0), DenseGram()).values) > 1
    with pytest.raises(CapabilityError, match="at least 1"):
        solver.solve(transport, Rougher(bandwidth=1.0), DenseGram())


# ---- what is refused ----


@pytest.mark.parametrize("solver", [DenseEigensolver(), DenseEigensolver(ridge=0.0), DenseEigensolver(ridge=1e-3)])
@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("place", [0.0, 1.0, 0.1, 1000.3])
def test_points_that_are_all_equal(solver, count, place):
    points = torch.full((count, 2), place, dtype=F64)
    pencil = GalerkinPencil.uniform(points, -points, Diffusion.constant(1.0))
    with pytest.raises(NumericalError, match="median distance"):
        solver.solve(pencil, RBF(), DenseGram())
    with pytest.raises(NumericalError, match="constant on the points"):
        solver.solve(pencil, RBF(bandwidth=1.0), DenseGram())


def test_a_kernel_that_returns_nan(ou_pencil):
    class Broken(RBF):
        def profile(self, squared_distance):
            return tuple(part * math.nan for part in super().profile(squared_distance))

    with pytest.raises(KfpbenchError):
        DenseEigensolver().solve(ou_pencil(1, 20), Broken(bandwidth=1.0), DenseGram())


def test_nan_drift_and_wrong_shapes_never_reach_the_solver():
    points = torch.randn((10, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.raises(NumericalError, match="drift hold NaN"):
        GalerkinPencil.uniform(points, points * math.nan, Diffusion.constant(1.0))
    with pytest.raises(ShapeError, match="drift"):
        GalerkinPencil.uniform(points, points[:, :1], Diffusion.constant(1.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"ridge": -1e-9},
        {"ridge": math.nan},
        {"truncation": 0.0},
        {"truncation": 1.0},
        {"truncation": math.nan},
        {"max_rank": 0},
        {"max_rank": -2},
    ],
)
def test_bad_parameters(bad):
    with pytest.raises(ParameterError, match="DenseEigensolver"):
        DenseEigensolver(**bad)


def test_diagnostics(pairs):
    assert isinstance(DenseEigensolver(), Eigensolver)
    assert pairs.diagnostics["points"] == 80
    assert pairs.diagnostics["kernel"] == KERNEL.describe()
    assert pairs.diagnostics["rank"] == pairs.basis.size
    assert 0.0 < pairs.diagnostics["linear_share"] < 1.0
    assert pairs.status == "converged"
