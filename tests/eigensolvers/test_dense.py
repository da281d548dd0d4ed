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
from kfpbench.operators.generator import FrozenGenerator
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.samplers.koopman import expand_displacement

F64 = torch.float64
KERNEL = RBF(bandwidth=1.5)
ROTATION = [[-1.0, -2.0], [2.0, -1.0]]


@pytest.fixture(params=[0.0, 1e-6, 1e-3], ids=lambda ridge: f"ridge {ridge:g}")
def pairs(request, linear_pencil) -> Eigenpairs:
    solver = DenseEigensolver(ridge=request.param, truncation=1e-6)
    return solver.solve(linear_pencil(ROTATION, 80, 0), KERNEL, DenseGram())


def projected(pairs: Eigenpairs) -> np.ndarray:
    """The matrix of the generator in the features, put together again from its eigenpairs."""
    return (pairs.right @ torch.diag(pairs.values) @ pairs.left).numpy()


def varphi_1_of_matrix(matrix: np.ndarray) -> np.ndarray:
    """varphi_1(A) = sum_k A^k / (k + 1)! as the corner block of the exponential of [[A, I], [0, 0]]."""
    order = len(matrix)
    block = np.zeros((2 * order, 2 * order), dtype=matrix.dtype)
    block[:order, :order], block[:order, order:] = matrix, np.eye(order)
    return scipy.linalg.expm(block)[:order, order:]


def features(pairs: Eigenpairs, x: torch.Tensor) -> torch.Tensor:
    """F(x) = [1, k(x, X) transform - offset] by the definition."""
    sections = kernel_block(pairs.kernel, x, pairs.centres) @ pairs.transform - pairs.offset
    return torch.cat([torch.ones((len(x), 1), dtype=F64), sections], dim=1)


def observable(count: int, columns: int = 2) -> torch.Tensor:
    return torch.randn((count, columns), generator=torch.Generator().manual_seed(9), dtype=F64)


# ---- biorthogonality, the constant, the projected matrix ----


def test_left_is_the_inverse_of_right(pairs):
    identity = (pairs.left @ pairs.right).numpy()
    np.testing.assert_allclose(identity, np.eye(len(identity)), atol=1e-12 * pairs.diagnostics["eigenvector_condition"])


def test_the_constant_is_an_exact_eigenfunction(pairs):
    """Exact to the last bit in its value; its function is the same at every point, seen or not."""
    index = int((pairs.values == 0).nonzero()[0])
    x = torch.cat([pairs.centres[:5], 10.0 * pairs.centres[5:8]])
    functions = pairs.eigenfunctions(x)[:, index]
    torch.testing.assert_close(functions, functions[0].expand_as(functions), rtol=1e-12, atol=0.0)
    assert float(functions[0].abs()) > 0.1


def test_the_other_eigenfunctions_average_to_zero_in_the_features(pairs):
    """The features besides the constant are centred in the weights: [1, F] is an orthogonal split."""
    values = features(pairs, pairs.centres)[:, 1:]
    assert float((pairs.weights @ values).abs().max()) < 1e-9


def test_features_are_orthogonal(pairs):
    """F^T W F = diag(1, Lam^2 / (Lam + gamma)), Lam the leading eigenvalues of the centred Gram matrix over N."""
    values = features(pairs, pairs.centres)
    gram = values.T @ (pairs.weights[:, None] * values)
    centring = torch.eye(80, dtype=F64) - 1.0 / 80
    strengths = torch.linalg.eigvalsh(centring @ kernel_block(KERNEL, pairs.centres, pairs.centres) @ centring / 80)
    strengths = strengths.flip(0)[: len(gram) - 1]
    gamma = 1.0 / float(pairs.transform[:, 0].square().sum() * 80) - float(strengths[0])  # (W^(1/2) Q)^2 sums to 1 / N
    expected = torch.cat([torch.ones(1, dtype=F64), strengths**2 / (strengths + gamma)])
    torch.testing.assert_close(gram, torch.diag(expected), rtol=1e-6, atol=1e-9)


def test_the_matrix_is_the_projection_of_the_generator(pairs, linear_pencil):
    """Its columns are the projections of L F: the same through ``project``."""
    pencil = linear_pencil(ROTATION, 80, 0)
    images = generator_block(pairs.kernel, pencil.points, pencil.points, pencil.drift, pencil.diffusion)
    expected = pairs.project(torch.cat([torch.zeros((80, 1), dtype=F64), images @ pairs.transform], dim=1)).numpy()
    bound = 1e-12 * pairs.diagnostics["eigenvector_condition"] * abs(expected).max()
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


@pytest.mark.parametrize("ridge", [1e-4, 1e-2, 1.0])
def test_projection_is_centred_kernel_ridge_regression(ou_pencil, ridge):
    """F(x) project(u) = mean(u) + k_c(x, X) (K_c + N gamma I)^-1 (u - mean(u)), the naive formula."""
    count = 60
    pencil, u = ou_pencil(2, count), observable(count)
    pairs = DenseEigensolver(ridge=ridge, truncation=1e-14).solve(pencil, KERNEL, DenseGram())
    x = ou_pencil(2, 25, seed=3).points

    gram, cross = kernel_block(KERNEL, pencil.points, pencil.points), kernel_block(KERNEL, x, pencil.points)
    centring = torch.eye(count, dtype=F64) - 1.0 / count
    centred_cross = (cross - gram.mean(0)) @ centring
    dual = torch.linalg.solve(centring @ gram @ centring + count * ridge * torch.eye(count, dtype=F64), u - u.mean(0))
    expected = u.mean(0) + centred_cross @ dual
    torch.testing.assert_close(features(pairs, x) @ pairs.project(u), expected, rtol=1e-8, atol=1e-8)
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
    pairs = DenseEigensolver(ridge=gamma, truncation=1e-14).solve(weighted, KERNEL, DenseGram())
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
    torch.testing.assert_close(features(pairs, x) @ pairs.project(u), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
def test_eigenvalues_are_those_of_the_ridge_problem(linear_pencil, ridge):
    """H Psi H v = lambda (H K H + N gamma I) v by LAPACK's generalised solver, without features."""
    count = 60
    pencil = linear_pencil(ROTATION, count, 0)
    pairs = DenseEigensolver(ridge=ridge, truncation=1e-14).solve(pencil, KERNEL, DenseGram())
    centring = np.eye(count) - 1.0 / count
    gram = kernel_block(KERNEL, pencil.points, pencil.points).numpy()
    images = generator_block(KERNEL, pencil.points, pencil.points, pencil.drift, pencil.diffusion).numpy()
    right = centring @ gram @ centring + count * ridge * np.eye(count)
    direct = scipy.linalg.eigvals(centring @ images @ centring, right)
    leading = direct[np.argsort(-abs(direct))][:12]  # the large ones: well separated from the crowd at 0
    for value in leading:
        assert float((pairs.values - complex(value)).abs().min()) < 1e-6 * abs(value)


# ---- functions of the operator ----


def test_full_rank_expansion_is_the_matrix_exponential(pairs):
    """sum_k e^(lambda_k D) phi_k <psi_k, u> = F expm(D G) project(u)."""
    u, span = observable(80), 0.3
    expansion = pairs.right @ (torch.exp(pairs.values * span)[:, None] * pairs.coefficients(u))
    expected = scipy.linalg.expm(span * projected(pairs)) @ pairs.project(u).numpy()
    condition = pairs.diagnostics["eigenvector_condition"]
    np.testing.assert_allclose(expansion.numpy(), expected, atol=1e-12 * condition * abs(expected).max())


@pytest.mark.parametrize("span", [1e-6, 3e-4, 0.05, 0.5])
def test_full_rank_displacement_is_the_dense_matrix_function(linear_pencil, span):
    """D varphi_1(D G) b without a linear part, and D e^(-kappa D) varphi_1(D (G + kappa)) b with one for each
    coordinate; compared at new points with scipy's expm of the projected matrix."""
    pencil = linear_pencil(ROTATION, 80, 0)
    pairs = DenseEigensolver(ridge=1e-6, truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    excess, x = observable(80), linear_pencil(ROTATION, 20, 4).points
    matrix, coordinates = projected(pairs).real, pairs.project(excess).numpy()
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
    pencil = GalerkinPencil.uniform(x, 0.5 - 1.2 * x, torch.zeros(1, dtype=F64))
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
        assert kept.right.shape[1] == kept.left.shape[0] == len(kept.flags) == size
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
        assert torch.equal(kept.left[column], pairs.left[origin])


def test_rank_is_limited(ou_pencil):
    pencil = ou_pencil(2, 100)
    full = DenseEigensolver(ridge=0.0, truncation=1e-6).solve(pencil, KERNEL, DenseGram())
    assert full.diagnostics["rank"] == len(full.values) == full.transform.shape[1] + 1 > 8
    limited = DenseEigensolver(ridge=0.0, truncation=1e-6, max_rank=7).solve(pencil, KERNEL, DenseGram())
    assert limited.diagnostics["rank"] == len(limited.values) == 8  # and the constant
    assert torch.equal(limited.transform, full.transform[:, :7])
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
    transport = GalerkinPencil.uniform(pencil.points, pencil.drift, torch.zeros(2, dtype=F64))
    partly = GalerkinPencil.uniform(pencil.points, pencil.drift, torch.tensor([0.0, 1.0], dtype=F64))
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
    pencil = GalerkinPencil.uniform(points, -points, torch.ones(2, dtype=F64))
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
        GalerkinPencil.uniform(points, points * math.nan, torch.ones(2, dtype=F64))
    with pytest.raises(ShapeError, match="drift"):
        GalerkinPencil.uniform(points, points[:, :1], torch.ones(2, dtype=F64))


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
    with pytest.raises(ParameterError, match="dense"):
        DenseEigensolver(**bad)


def test_diagnostics(pairs):
    assert isinstance(DenseEigensolver(), Eigensolver)
    assert pairs.diagnostics["points"] == 80
    assert pairs.diagnostics["kernel"] == KERNEL.describe()
    assert pairs.diagnostics["smallest_kept_gram_eigenvalue"] > 0.0
