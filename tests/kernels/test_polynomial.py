"""The polynomial kernel: values, derivatives against autograd, the known RKHS, parameters."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import NumericalError, ParameterError
from kfpbench.kernels.jet import InnerProduct, JetKernel
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.protocols import Kernel
from kfpbench.suite.signature import read_signature

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_jet(degree, offset):
    """k, dk/dz and d2k/dz2 for z = x . y of either sign, 0 included."""
    kernel = Polynomial(degree=degree, offset=offset, length=1.3)
    z = torch.linspace(-3.0, 3.0, 13, dtype=F64).reshape(1, 13).requires_grad_(True)
    jet = kernel.jet(z)
    torch.testing.assert_close(jet.value, (offset + z / 1.69) ** degree, rtol=1e-13, atol=1e-15)
    (first,) = torch.autograd.grad(((offset + z / 1.69) ** degree).sum(), z, create_graph=True)
    torch.testing.assert_close(jet.first[0], first, rtol=1e-13, atol=1e-15)
    assert jet.first[0].shape == z.shape
    if degree == 1:
        assert jet.second == {}
    else:
        (second,) = torch.autograd.grad(first.sum(), z)
        torch.testing.assert_close(jet.second[0, 0], second, rtol=1e-13, atol=1e-15)


def diffusions(n: int, d: int) -> list[tuple[Diffusion, torch.Tensor]]:
    roots, eye = draw(n, d, d, seed=7), torch.eye(d, dtype=F64)
    a, weights = roots @ roots.mT, torch.linspace(0.0, 1.5, d, dtype=F64)
    levels = torch.linspace(0.0, 1.5, n, dtype=F64)
    return [
        (Diffusion.constant(0.0), 0.0 * a),
        (Diffusion.constant(0.7), (0.7 * eye).expand(n, d, d)),
        (Diffusion.constant(weights), torch.diag(weights).expand(n, d, d)),
        (Diffusion.constant(a[0]), a[0].expand(n, d, d)),
        (Diffusion.at_points(levels), levels[:, None, None] * eye),
        (Diffusion.at_points(a), a),
    ]


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("d", [1, 3, 6])
def test_generator(degree, d):
    kernel = Polynomial(degree=degree, offset=0.5, length=1.2)
    x, centres, drift = draw(5, d), draw(4, d, seed=1), draw(5, d, seed=2)

    def function(a, c):
        return (0.5 + (a * c).sum() / 1.44) ** degree

    def everywhere(derivative):
        return torch.func.vmap(torch.func.vmap(derivative, (None, 0)), (0, None))(x, centres)

    torch.testing.assert_close(kernel_block(kernel, x, centres), everywhere(function), rtol=1e-11, atol=1e-12)
    gradient, hessian = everywhere(torch.func.grad(function)), everywhere(torch.func.hessian(function))
    for diffusion, matrices in diffusions(5, d):
        expected = torch.einsum("nms,ns->nm", gradient, drift) + torch.einsum("nmst,nst->nm", hessian, matrices)
        block = generator_block(kernel, x, centres, drift, diffusion)
        torch.testing.assert_close(block, expected, rtol=1e-10, atol=1e-10)


def test_the_generator_of_ou_acts_on_polynomials():
    """L = -x . grad + Laplacian: L (1 + x y)^2 = -2 x y (1 + x y) + 2 y^2, in one dimension, by hand."""
    x, y = draw(6, 1), draw(5, 1, seed=1)
    block = generator_block(Polynomial(degree=2, offset=1.0, length=1.0), x, y, -x, Diffusion.constant(1.0))
    product = x @ y.T
    torch.testing.assert_close(block, -2 * product * (1 + product) + 2 * y.T.square(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("degree", "offset", "d"), [(1, 1.0, 3), (2, 1.0, 3), (3, 0.5, 2), (2, 0.0, 3), (3, 0.0, 2)])
def test_gram_matrices_have_the_rank_of_the_polynomials(degree, offset, d):
    """C(d + p, p) polynomials, without the offset the C(d + p - 1, p) homogeneous ones; never negative."""
    x = draw(40, d)
    levels = torch.linalg.eigvalsh(kernel_block(Polynomial(degree=degree, offset=offset, length=1.0), x, x))
    dimension = math.comb(d + degree, degree) if offset else math.comb(d + degree - 1, degree)
    share = levels / levels[-1]
    assert int((share > 1e-10).sum()) == dimension
    assert float(share[0]) > -1e-13


def test_median_norm():
    points = draw(101, 3) + 1.0
    kernel = Polynomial(degree=2)
    with pytest.raises(ParameterError, match="not resolved"):
        kernel_block(kernel, points, points)
    fitted = kernel.fit(points)
    assert fitted.resolved_length == pytest.approx(float(points.norm(dim=1).median()), rel=1e-14)
    assert math.isnan(kernel.resolved_length)
    again = fitted.fit(5.0 * points)
    torch.testing.assert_close(kernel_block(again, 5.0 * points, 5.0 * points), kernel_block(fitted, points, points))
    assert Polynomial(length=2.0).fit(torch.zeros(3, 2)).resolved_length == 2.0


@pytest.mark.parametrize(
    "points", [torch.zeros(5, 2), torch.zeros(0, 2), torch.full((3, 2), math.nan), torch.full((3, 2), math.inf)]
)
def test_degenerate_points(points):
    with pytest.raises(NumericalError, match="median norm"):
        Polynomial().fit(points)


@pytest.mark.parametrize(
    "given",
    [{"degree": degree} for degree in (0, -1, 1.5, "2", True)]
    + [{"offset": offset} for offset in (-0.1, math.nan, math.inf)]
    + [{"length": length} for length in (0.0, -1.0, math.nan, math.inf, "median", None)],
)
def test_bad_parameters(given):
    with pytest.raises(ParameterError, match=f"bad {next(iter(given))}"):
        Polynomial(**given)


def test_contract():
    kernel = Polynomial(degree=3, offset=0.5, length=2)
    assert isinstance(kernel, Kernel)
    assert isinstance(kernel, JetKernel)
    assert isinstance(kernel.arguments()[0], InnerProduct)
    assert kernel.smoothness == math.inf
    assert kernel.describe() == {"degree": 3, "offset": 0.5, "length": 2, "resolved_length": 2.0}
    assert read_signature(Polynomial).names == ("degree", "offset", "length")


def test_keops_evaluates_the_same_formula():
    """KeOps folds constants into numbers: entries are multiplied, as the chain rule multiplies them."""
    from pykeops.torch import LazyTensor

    x, y = draw(12, 2), draw(9, 2, seed=1)
    symbolic, z = (LazyTensor(x[:, None, :]) * LazyTensor(y[None, :, :])).sum(-1), x @ y.T
    total, expected, weight = symbolic, z, 1.0
    for degree in (1, 2, 3):
        kernel = Polynomial(degree=degree, offset=0.5, length=1.1)
        lazy, dense = kernel.jet(symbolic), kernel.jet(z)
        assert lazy.second.keys() == dense.second.keys()
        pairs = [(lazy.value, dense.value), (lazy.first[0], dense.first[0])]
        for one, other in [*pairs, *zip(lazy.second.values(), dense.second.values(), strict=True)]:
            weight += 0.7  # one formula, which compiles in seconds
            total, expected = total + symbolic * one * weight, expected + z * other * weight
    torch.testing.assert_close(total.sum(dim=1)[:, 0], expected.sum(1), rtol=1e-11, atol=1e-11)
