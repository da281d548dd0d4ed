"""Functions spanned by an eigensolver: combinations, restrictions and images by their definitions."""

from __future__ import annotations

import pytest
import torch

from kfpbench.eigensolvers.basis import Basis, Expansion, KernelBasis
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
KERNEL = RBF(bandwidth=1.3)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


X, DRIFT = normal(9, 2, seed=1), normal(9, 2, seed=2)
DIFFUSION = Diffusion.constant(torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=F64))


@pytest.fixture(params=[DenseGram(), TiledGram(4)], ids=["dense", "tiled"])
def basis(request) -> KernelBasis:
    """Five functions on seven centres; transform and offset are arbitrary."""
    return KernelBasis(KERNEL, request.param, normal(7, 2, seed=3), normal(7, 4, seed=4), normal(4, seed=5))


def test_features_by_their_definition(basis):
    assert isinstance(basis, Basis)
    values = basis.features(X)
    assert values.shape == (9, basis.size) == (9, 5)
    assert torch.equal(values[:, 0], torch.ones(9, dtype=F64))
    gram = torch.exp(-torch.cdist(X, basis.centres).square() / (2 * 1.3**2))
    torch.testing.assert_close(values[:, 1:], gram @ basis.transform - basis.offset, rtol=1e-12, atol=1e-12)


def test_images_are_the_generator_of_the_features(basis):
    """b . grad F + tr(a Hess F) by automatic differentiation; that of the constant is 0 to the last bit."""
    images = basis.images(X, DRIFT, DIFFUSION)
    assert torch.equal(images[:, 0], torch.zeros(9, dtype=F64))
    for row in range(9):

        def feature(x):
            return basis.features(x[None])[0, 1:]

        def by_distances(x):  # the package's blocks clamp distances, which has no second derivative at 0
            gram = torch.exp(-(x - basis.centres).square().sum(1) / (2 * 1.3**2))
            return gram @ basis.transform - basis.offset

        torch.testing.assert_close(feature(X[row]), by_distances(X[row]), rtol=1e-12, atol=1e-12)
        slope, curvature = torch.func.jacfwd(by_distances)(X[row]), torch.func.hessian(by_distances)(X[row])
        expected = slope @ DRIFT[row] + torch.einsum("aij,ij->a", curvature, DIFFUSION.values)
        torch.testing.assert_close(images[row, 1:], expected, rtol=1e-10, atol=1e-10)


def test_combine_is_the_features_times_the_coordinates(basis):
    coordinates = normal(5, 3, seed=6)
    expansion = basis.combine(coordinates)
    assert isinstance(expansion, Expansion)
    torch.testing.assert_close(expansion(X), basis.features(X) @ coordinates, rtol=1e-11, atol=1e-11)
    columns = basis.transform @ coordinates[1:]
    assert expansion.coefficient_norm == pytest.approx(max(float(column.norm()) for column in columns.T), rel=1e-12)


def test_an_expansion_is_evaluated_in_its_own_precision(basis):
    """Coefficients of 1e9 that cancel: float32 rows keep their digits if the expansion is wide, and lose them else."""
    coordinates = torch.zeros((5, 1), dtype=F64)
    coordinates[1:, 0] = 1e9 * normal(4, seed=7)
    coordinates[0] = -(basis.features(X[:1]) @ coordinates)[0]  # 0 at the first point
    wide = basis.combine(coordinates)
    rows = X.float()
    exact = basis.features(rows.double()) @ coordinates
    assert wide(rows).dtype == torch.float32
    torch.testing.assert_close(wide(rows).double(), exact, rtol=1e-6, atol=1.0)
    narrow = wide.to(torch.float32)
    assert narrow(rows).dtype == torch.float32
    assert float((narrow(rows).double() - exact).abs().max()) > 10.0  # eps 1e9 = 100
    torch.testing.assert_close(narrow(rows).double(), exact, rtol=0.0, atol=1e5)


def test_restrict_is_the_constant_and_the_features_times_the_coordinates(basis):
    """Features, images and combinations of the restriction are those of the whole, and so are its restrictions."""
    coordinates = normal(5, 3, seed=8)
    part = basis.restrict(coordinates)
    assert part.size == 4
    whole = torch.cat([torch.eye(5, dtype=F64)[:, :1], coordinates], dim=1)  # (5, 4): the constant, then F coordinates
    torch.testing.assert_close(part.features(X), basis.features(X) @ whole, rtol=1e-11, atol=1e-11)
    images = part.images(X, DRIFT, DIFFUSION)
    torch.testing.assert_close(images, basis.images(X, DRIFT, DIFFUSION) @ whole, rtol=1e-10, atol=1e-10)
    inner = normal(4, 2, seed=9)
    torch.testing.assert_close(part.combine(inner)(X), basis.combine(whole @ inner)(X), rtol=1e-11, atol=1e-11)
    again, direct = part.restrict(inner), basis.restrict(whole @ inner)
    torch.testing.assert_close(again.features(X), direct.features(X), rtol=1e-11, atol=1e-11)


def test_the_constant_alone_is_a_basis(basis):
    alone = basis.restrict(torch.zeros((5, 0), dtype=F64))
    assert alone.size == 1
    assert torch.equal(alone.features(X), torch.ones((9, 1), dtype=F64))
    assert torch.equal(alone.images(X, DRIFT, DIFFUSION), torch.zeros((9, 1), dtype=F64))
    expansion = alone.combine(torch.tensor([[2.5, -1.0]], dtype=F64))
    assert torch.equal(expansion(X), torch.tensor([2.5, -1.0], dtype=F64).expand(9, 2))
    assert expansion.coefficient_norm == 0.0
