"""The Dirichlet form of reversible generators against exact spectra, on quadrature points: no Monte Carlo error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import reference_spectra
import torch
from scipy.special import roots_hermitenorm

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.principal import principal_of_gram, principal_of_sections
from kfpbench.eigensolvers.projection import stiffness
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

F64 = torch.float64
SOLVER = DenseEigensolver(truncation=1e-13)


def hermite(order: int, dimension: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Hermite points (order^d, d) and weights of N(0, I), exact for degree 2 order - 1 in each coordinate."""
    x, w = (torch.as_tensor(part, dtype=F64) for part in roots_hermitenorm(order))
    points = torch.cartesian_prod(*[x] * dimension).reshape(-1, dimension)
    weights = torch.cartesian_prod(*[w / w.sum()] * dimension).reshape(-1, dimension).prod(1)
    return points, weights / weights.sum()


def gaussian(diffusion: Diffusion, order: int, dimension: int = 1, reversible: bool = True) -> GalerkinPencil:
    """L = -(a x) . grad + tr(a Hess), reversible in N(0, I) for every constant a."""
    points, weights = hermite(order, dimension)
    return GalerkinPencil(points, -diffusion.apply(points), diffusion, weights, reversible=reversible)


ONE = Diffusion.constant(1.0)
MATRIX = Diffusion.constant(torch.tensor([[1.25, 0.75], [0.75, 1.25]], dtype=F64))  # eigenvalues 0.5 and 2


# ---- Ornstein-Uhlenbeck ----


def test_ornstein_uhlenbeck_is_exact():
    pairs = SOLVER.solve(gaussian(ONE, 40), RBF(bandwidth=3.0), DenseGram())
    np.testing.assert_allclose(pairs.values[:5].numpy(), -np.arange(5.0), atol=1e-8)


def test_eigenfunctions_are_normalised_hermite_polynomials():
    """The error of a value is the square of its function's: 1e-8 and 1e-4, of polynomials that reach 3.3 here."""
    pairs = SOLVER.solve(gaussian(ONE, 40), RBF(bandwidth=3.0), DenseGram())
    x = torch.linspace(-2.5, 2.5, 30, dtype=F64)
    functions = pairs.eigenfunctions(x[:, None]).real
    for degree, polynomial in enumerate([x**0, x, (x**2 - 1) / 2**0.5, (x**3 - 3 * x) / 6**0.5]):
        sign = torch.sign(functions[-1, degree] * polynomial[-1])
        torch.testing.assert_close(sign * functions[:, degree], polynomial, rtol=0.0, atol=3e-4)


@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_values_are_real_and_functions_their_own_adjoints(ridge):
    solver = DenseEigensolver(ridge=ridge, truncation=1e-10)
    pairs = solver.solve(gaussian(MATRIX, 12, 2), RBF(bandwidth=3.0), DenseGram())
    assert torch.equal(pairs.values.imag, torch.zeros_like(pairs.values.real))
    assert torch.equal(pairs.right, pairs.adjoint)
    assert float(pairs.right.imag.abs().max()) == 0.0
    assert pairs.values.real.tolist() == sorted(pairs.values.real.tolist(), reverse=True)
    assert float(pairs.values.real.max()) < 1e-9  # the form is not positive
    assert pairs.diagnostics["eigenvector_condition"] == 1.0
    if ridge == 0.0:
        functions = pairs.on_points @ pairs.right.real
        gram = functions.T @ (pairs.weights[:, None] * functions)
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=F64), rtol=0.0, atol=1e-10)


def test_the_form_is_symmetric_and_equals_the_strong_form():
    """-<sigma_s . grad F, sigma_s . grad F> = <F, L F>, by parts against N(0, I); Gauss-Hermite is all but exact."""
    pencil = gaussian(MATRIX, 24, 2)
    principal = principal_of_gram(
        RBF(bandwidth=3.0), DenseGram(), pencil.points, pencil.weights, DenseEigensolver(truncation=1e-5)
    )
    weak = stiffness(pencil, principal.basis, principal.on_points)
    strong = stiffness(replace(pencil, reversible=False), principal.basis, principal.on_points)
    assert torch.equal(weak, weak.T)
    scale = float(weak.abs().max())
    assert scale > 1.0
    torch.testing.assert_close(weak, strong, rtol=0.0, atol=1e-8 * scale)
    assert float((strong - strong.T).abs().max()) > 0.0  # the strong form is symmetric up to rounding only


def test_the_spectrum_is_that_of_the_strong_form():
    for diffusion, order, dimension in ((ONE, 40, 1), (MATRIX, 20, 2)):
        pencil = gaussian(diffusion, order, dimension)
        weak, strong = (
            DenseEigensolver(truncation=1e-9).solve(each, RBF(bandwidth=3.0), DenseGram()).values[:6].numpy()
            for each in (pencil, replace(pencil, reversible=False))
        )
        np.testing.assert_allclose(weak, strong, atol=1e-6)


# ---- anisotropic diffusions ----


def test_matrix_diffusion():
    """Rates are sums of the eigenvalues of a, 0.5 and 2, whose axes are not the coordinates'."""
    pairs = SOLVER.solve(gaussian(MATRIX, 20, 2), RBF(bandwidth=4.0), DenseGram())
    expected = [0.0, -0.5, -1.0, -1.5, -2.0, -2.0, -2.5, -2.5]
    np.testing.assert_allclose(pairs.values[:8].numpy(), expected, atol=1e-4)


def test_one_diffusion_in_every_notation():
    """Constant or pointwise, scalar, diagonal or matrix."""
    points, _ = hermite(12, 2)
    n, eye = len(points), torch.eye(2, dtype=F64)
    notations = [
        Diffusion.constant(0.7),
        Diffusion.constant(torch.full((2,), 0.7, dtype=F64)),
        Diffusion.constant(0.7 * eye),
        Diffusion.at_points(torch.full((n,), 0.7, dtype=F64)),
        Diffusion.at_points(torch.full((n, 2), 0.7, dtype=F64)),
        Diffusion.at_points((0.7 * eye).expand(n, 2, 2)),
    ]
    solver = DenseEigensolver(truncation=1e-8)
    values = [solver.solve(gaussian(each, 12, 2), RBF(bandwidth=3.0), DenseGram()).values for each in notations]
    for each in values[1:]:
        np.testing.assert_allclose(each[:6].numpy(), values[0][:6].numpy(), rtol=1e-9, atol=1e-10)


def test_a_diffusion_that_varies():
    """a(x) = 1 + x^2 / 4 keeps N(0, 1) with the drift a' - a x: the weak form does not see the drift, and agrees with
    the strong one."""
    points, weights = hermite(40)
    x = points[:, 0]
    a = 1 + x**2 / 4
    pencil = GalerkinPencil(points, (x / 2 - a * x)[:, None], Diffusion.at_points(a), weights, reversible=True)
    weak = SOLVER.solve(pencil, RBF(bandwidth=3.0), DenseGram()).values
    strong = SOLVER.solve(replace(pencil, reversible=False), RBF(bandwidth=3.0), DenseGram()).values
    np.testing.assert_allclose(weak[:4].numpy(), strong[:4].numpy(), atol=1e-5)
    without = SOLVER.solve(replace(pencil, drift=torch.zeros_like(points)), RBF(bandwidth=3.0), DenseGram()).values
    assert torch.equal(weak, without)
    assert abs(float(weak[1].real) + 1.0) > 0.1  # and it is not that of a = 1


# ---- other centres ----


def grid(half_width: float, count: int, potential, force, **options) -> GalerkinPencil:
    """Quadrature weights of exp(-V) on a grid, which are spectrally accurate for what decays at its ends."""
    x = torch.linspace(-half_width, half_width, count, dtype=F64)
    weights = torch.exp(-potential(x))
    return GalerkinPencil(x[:, None], force(x)[:, None], ONE, weights / weights.sum(), **options)


both_forms = pytest.mark.parametrize("reversible", [False, True], ids=["strong", "Dirichlet"])


@both_forms
def test_sixty_centres_reproduce_ornstein_uhlenbeck(reversible):
    centres = torch.linspace(-6.5, 6.5, 60, dtype=F64)[:, None]
    pencil = grid(8.0, 400, lambda x: x**2 / 2, lambda x: -x, centres=centres, reversible=reversible)
    pairs = DenseEigensolver(truncation=1e-12).solve(pencil, RBF(bandwidth=1.0), DenseGram())
    assert pairs.basis.size <= 61
    assert torch.equal(pairs.basis.centres, centres)
    np.testing.assert_allclose(pairs.values[:5].numpy(), -np.arange(5.0), atol=1e-6)


@both_forms
def test_sixty_centres_reproduce_the_double_well(reversible):
    """V = (x^2 - 1)^2 at beta = 1 against finite volumes, 1e-4 relative."""
    well = SimpleNamespace(dimension=1, diffusion=1.0, potential=lambda x: (x[:, 0] ** 2 - 1) ** 2)
    reference, bound = reference_spectra.finite_volume_line(well, 5)
    assert bound[1:].max() < 1e-6 * abs(reference[1])
    centres = torch.linspace(-2.6, 2.6, 60, dtype=F64)[:, None]
    pencil = grid(
        3.0, 400, lambda x: (x**2 - 1) ** 2, lambda x: -4 * x * (x**2 - 1), centres=centres, reversible=reversible
    )
    pairs = DenseEigensolver(truncation=1e-12).solve(pencil, RBF(bandwidth=0.4), DenseGram())
    np.testing.assert_allclose(pairs.values[1:5].numpy(), reference[1:5], rtol=1e-4)
    assert abs(complex(pairs.values[0])) < 1e-8


def test_centres_that_are_the_points_span_the_same(ou_pencil):
    """The two ways to the principal functions: eigenvectors of the Gram matrix, and singular values of sections."""
    pencil, kernel, solver = ou_pencil(2, 60), RBF(bandwidth=1.0), DenseEigensolver(truncation=1e-6)
    one = principal_of_gram(kernel, DenseGram(), pencil.points, pencil.weights, solver)
    two = principal_of_sections(kernel, DenseGram(), pencil.points, pencil.weights, pencil.points, solver)
    assert one.basis.size == two.basis.size
    torch.testing.assert_close(one.strengths, two.strengths, rtol=1e-6, atol=1e-12)
    x = ou_pencil(2, 30, seed=5).points
    a, b = one.basis.features(x), two.basis.features(x)
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=1e-5, atol=1e-5)  # up to signs: the same projector
    assert one.size == two.size == 1.0


def test_repeated_centres_are_harmless(ou_pencil):
    pencil = ou_pencil(1, 100)
    centres = pencil.points[:30]
    once, twice = (
        DenseEigensolver(truncation=1e-6).solve(replace(pencil, centres=each), RBF(bandwidth=1.0), DenseGram()).values
        for each in (centres, torch.cat([centres, centres]))
    )
    np.testing.assert_allclose(once[:4].numpy(), twice[:4].numpy(), rtol=1e-6, atol=1e-9)


# ---- a kernel with one derivative ----


class Once:
    """h = (1 + u) e^-u, u = |x - y| / length: one derivative; dh/ds = -e^-u / (2 length^2), s = |x - y|^2."""

    smoothness = 1

    def __init__(self, length: float) -> None:
        self.length = length

    def fit(self, points):
        return self

    def describe(self):
        return {"length": self.length}

    def profile(self, squared_distance):
        u = squared_distance.sqrt() / self.length
        return (u + 1.0) * (-u).exp(), (-u).exp() * (-0.5 / self.length**2)


def test_a_kernel_with_one_derivative_finds_the_spectrum_from_above():
    """Rayleigh-Ritz: in a subspace the form's values lie below the true ones (rates above), and close to them."""
    centres = torch.linspace(-5, 5, 60, dtype=F64)[:, None]
    pencil = grid(8.0, 2000, lambda x: x**2 / 2, lambda x: -x, centres=centres, reversible=True)
    values = DenseEigensolver(truncation=1e-12).solve(pencil, Once(2.0), DenseGram()).values.real[1:5].numpy()
    exact = -np.arange(1.0, 5.0)
    assert (values < exact + 1e-9).all()
    np.testing.assert_allclose(values, exact, rtol=0.01)
