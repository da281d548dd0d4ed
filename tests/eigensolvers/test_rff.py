"""Random Fourier features: spectral measures against the kernels, derivatives, and spectra against the dense solver."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kfpbench.eigensolvers.basis import Basis, Expansion
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigensolver
from kfpbench.eigensolvers.fourier_basis import FourierBasis
from kfpbench.eigensolvers.rff import RandomFourierFeatures
from kfpbench.eigensolvers.spectral_measure import spectral_sample, variance
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.inverse_multiquadric import InverseMultiquadric
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.matern72 import Matern72
from kfpbench.kernels.product import Product
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.scaled import Scaled
from kfpbench.kernels.sum import Sum
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import kernel_block
from kfpbench.operators.pencil import GalerkinPencil

F64 = torch.float64
MATRIX = torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=F64)


def draws(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=F64)


KERNELS = {
    "rbf": RBF(bandwidth=0.8),
    "matern32": Matern32(bandwidth=0.8),
    "matern52": Matern52(bandwidth=0.8),
    "matern72": Matern72(bandwidth=0.8),
    "rational_quadratic": RationalQuadratic(alpha=0.7, bandwidth=0.8),
    "inverse_multiquadric": InverseMultiquadric(bandwidth=0.8),
    "ard": ARD(Matern52(bandwidth=0.8), [0.5, 2.0]),
    "ard of ard": ARD(Scaled(ARD(RBF(bandwidth=0.8), "mahalanobis"), 2.0), [0.5, 2.0]),
    "mahalanobis": ARD(RBF(bandwidth=0.8), "mahalanobis"),
    "scaled": Scaled(RBF(bandwidth=0.8), 3.0),
    "sum": Sum([RBF(bandwidth=0.5), Scaled(Matern52(bandwidth=2.0), 3.0)]),
    "product": Product([RBF(bandwidth=1.0), RationalQuadratic(bandwidth=1.5)]),
}


@pytest.mark.parametrize("name", KERNELS)
def test_mean_cosine_is_the_kernel(name):
    """k(x, y) = k(x, x) E cos(w . (x - y)); by Hoeffding the mean of m cosines misses by t in 2 exp(-m t^2 / 2)."""
    x = draws(25, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=F64)
    kernel, count = KERNELS[name].fit(x), 40_000
    w = spectral_sample(kernel, count, 2, np.random.default_rng(0))
    assert w.shape == (count, 2)
    phases = x @ w.T
    estimate = (phases.cos() @ phases.cos().T + phases.sin() @ phases.sin().T) / count
    bound = math.sqrt(2.0 * math.log(2.0 * 25 * 24 / 2 / 1e-6) / count)
    gram = kernel_block(kernel, x, x)
    assert variance(kernel, 2) == pytest.approx(float(gram[0, 0]))
    assert float((estimate - gram / gram[0, 0]).abs().max()) < bound


def test_unknown_spectral_measures_are_refused():
    class Mine(RBF.__mro__[1]):  # a radial kernel of nobody's spectral measure
        smoothness = math.inf

        def profile(self, squared_distance):
            value = (-squared_distance).exp()
            return value, -value, value

    x = draws(20, 2)
    pencil = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))
    for kernel in (
        Mine(bandwidth=1.0),
        Sum([RBF(bandwidth=1.0), Mine(bandwidth=1.0)]),
        ARD(KERNELS["sum"], [1.0, 1.0]),
    ):
        with pytest.raises(CapabilityError, match="spectral measure"):
            RandomFourierFeatures(20).solve(pencil, kernel, DenseGram())


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion.constant(0.0),
        Diffusion.constant(0.7),
        Diffusion.constant(torch.tensor([0.3, 2.0], dtype=F64)),
        Diffusion.constant(MATRIX),
        Diffusion.at_points(torch.linspace(0.1, 1.0, 6, dtype=F64)),
        Diffusion.at_points(MATRIX * torch.linspace(0.1, 1.0, 6, dtype=F64)[:, None, None]),
    ],
    ids=["transport", "scalar", "diagonal", "matrix", "scalars", "matrices"],
)
def test_images_are_the_generator_by_automatic_differentiation(diffusion):
    x, drift = draws(6, 2), draws(6, 2, seed=1)
    basis = FourierBasis(draws(5, 2, seed=2), draws(10, 4, seed=3), draws(1, 4, seed=4)[0])
    images = basis.images(x, drift, diffusion)
    eye = torch.eye(2, dtype=F64)
    for row in range(6):
        a = diffusion.rows(slice(row, row + 1)).values
        a = a[0] if diffusion.pointwise else a
        a = a if a.ndim == 2 else a * eye

        def features(z: torch.Tensor) -> torch.Tensor:
            return basis.features(z[None])[0]

        jacobian = torch.func.jacfwd(features)(x[row])
        hessian = torch.func.jacfwd(torch.func.jacfwd(features))(x[row])
        expected = jacobian @ drift[row] + torch.einsum("kij,ij->k", hessian, a)
        torch.testing.assert_close(images[row], expected, rtol=1e-11, atol=1e-11)


def test_basis_combines_and_restricts():
    x = draws(6, 2)
    basis = FourierBasis(draws(5, 2, seed=2), draws(10, 4, seed=3), draws(1, 4, seed=4)[0])
    coordinates = draws(5, 3, seed=5)
    expansion = basis.combine(coordinates)
    assert isinstance(basis, Basis)
    assert isinstance(expansion, Expansion)
    torch.testing.assert_close(expansion(x), basis.features(x) @ coordinates)
    assert expansion.to(torch.float32)(x.float()).dtype == torch.float32
    assert expansion.coefficient_norm > 0
    part = basis.restrict(coordinates)
    assert part.size == 4
    torch.testing.assert_close(part.features(x)[:, 1:], basis.features(x) @ coordinates)
    drift, diffusion = draws(6, 2, seed=1), Diffusion.constant(0.7)
    torch.testing.assert_close(
        part.images(x, drift, diffusion)[:, 1:], basis.images(x, drift, diffusion) @ coordinates, rtol=1e-10, atol=1e-10
    )


def grid_problem(name: str) -> tuple[GalerkinPencil, RBF]:
    if name == "wells":
        x = torch.linspace(-2.2, 2.2, 400, dtype=F64)[:, None]
        weights = torch.softmax(-4.0 * (x[:, 0].square() - 1.0).square(), 0)
        return GalerkinPencil(x, -4.0 * x * (x.square() - 1.0), Diffusion.constant(0.25), weights), RBF(bandwidth=0.3)
    dimension = int(name[-1])
    side = torch.linspace(-4.5, 4.5, 400 if dimension == 1 else 30, dtype=F64)
    x = torch.cartesian_prod(*[side] * dimension).reshape(-1, dimension)
    weights = torch.softmax(-0.5 * x.square().sum(1), 0)
    return GalerkinPencil(x, -x, Diffusion.constant(1.0), weights), RBF(bandwidth=1.0 if dimension == 1 else 1.5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["wells", "ou d=1", "ou d=2"])
def test_leading_values_are_within_2_percent_of_dense(name, seed):
    pencil, kernel = grid_problem(name)
    found = RandomFourierFeatures(300, truncation=1e-8, seed=seed).solve(pencil, kernel, DenseGram())
    reference = DenseEigensolver(truncation=1e-8).solve(pencil, kernel, DenseGram())
    assert float(found.values[0].abs()) < 1e-9 * float(reference.values.abs().max())
    relative = (found.values[1:4] - reference.values[1:4]).abs() / reference.values[1:4].abs()
    assert float(relative.max()) < 0.02
    on_points = found.on_points.to(found.right.dtype)
    identity = (on_points @ found.adjoint).mH @ (found.weights[:, None] * (on_points @ found.right))
    bound = 1e-9 * float(found.diagnostics["eigenvector_condition"])
    assert float((identity - torch.eye(len(identity))).abs().max()) < bound


def test_reversible_and_scaled_problems():
    """The Dirichlet form has the same leading values on a quadrature; a kernel's variance changes nothing."""
    pencil, kernel = grid_problem("ou d=1")
    solver = RandomFourierFeatures(200, truncation=1e-8)
    strong = solver.solve(pencil, kernel, DenseGram())
    weak = solver.solve(replace(pencil, reversible=True), kernel, DenseGram())
    assert float((strong.values[:4] - weak.values[:4]).abs().max()) < 0.02
    scaled = solver.solve(pencil, Scaled(kernel, 9.0), DenseGram())
    torch.testing.assert_close(scaled.values[:4], strong.values[:4], rtol=1e-6, atol=1e-6)


def test_the_seed_decides_and_a_few_pairs_stay_the_same():
    x = draws(300, 3)
    pencil, kernel = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0)), RBF(bandwidth=1.5)
    solver = RandomFourierFeatures(200, truncation=1e-7, max_rank=None, seed=1)
    full, few = solver.solve(pencil, kernel, DenseGram()), solver.solve(pencil, kernel, DenseGram(), 1)
    assert 20 <= len(few.values) < len(full.values)
    assert torch.equal(few.values[:20], full.values[:20])
    expected, actual = full.adjoint_functions(x)[:, :20], few.adjoint_functions(x)[:, :20]
    assert float((actual - expected).abs().max()) < 1e-6 * float(expected.abs().max())
    other = RandomFourierFeatures(200, truncation=1e-7, max_rank=None, seed=2).solve(pencil, kernel, DenseGram())
    assert not torch.equal(other.values[:5], full.values[:5])


def test_what_cannot_be_solved_is_refused():
    x = torch.ones((30, 2), dtype=F64)
    kernel = RBF(bandwidth=1.0)
    with pytest.raises(NumericalError):
        RandomFourierFeatures(20).solve(GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0)), kernel, DenseGram())
    x = draws(30, 2)
    pencil = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))
    with pytest.raises(CapabilityError, match="centres"):
        RandomFourierFeatures(20).solve(replace(pencil, centres=x[:5]), kernel, DenseGram())
    with pytest.raises(CapabilityError, match="rough"):
        RandomFourierFeatures(20).solve(pencil, Matern32(bandwidth=1.0), DenseGram())
    for parameters in ({"features": 0}, {"seed": -1}, {"ridge": -1.0}):
        with pytest.raises(ParameterError):
            RandomFourierFeatures(**parameters)


def test_contract():
    assert isinstance(RandomFourierFeatures(), Eigensolver)
    assert RandomFourierFeatures(100).working_memory(50_000, 10, 6, 8, DenseGram()) < 8 * 50_000**2 / 10
