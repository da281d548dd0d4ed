"""Blocks of the generator's Gram matrix, for every kind of diffusion, against automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.inverse_multiquadric import InverseMultiquadric
from kfpbench.kernels.jet import InnerProduct, SquaredDistance, jet_kernel
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.product import Product
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.sum import Sum
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import (
    argument_block,
    generator_block,
    generator_diagonal,
    gradient_parts,
    kernel_block,
    kernel_diagonal,
)

N, M, D = 6, 5, 3


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psd(*lead: int, seed: int) -> torch.Tensor:
    factors = draw(*lead, D, D, seed=seed)
    return factors @ factors.mT


X, CENTRES, DRIFT = draw(N, D, seed=1), draw(M, D, seed=2), draw(N, D, seed=3)
METRIC = psd(seed=4)
KERNELS = {
    "radial": RBF(bandwidth=1.3),
    "matern52": Matern52(bandwidth=1.5),
    "inner product": Polynomial(degree=3, length=1.5),
    "diagonal metric": ARD(RBF(bandwidth=1.2), scales=[0.5, 1.0, 2.0]),
    "full metric": ARD(InverseMultiquadric(bandwidth=2.0), scales="mahalanobis").fit(draw(20, D, seed=5) @ METRIC),
    "two arguments": Product([RBF(bandwidth=1.4), Polynomial(degree=2, length=1.0)]),
    "two metrics": Sum([ARD(RBF(bandwidth=1.2), scales=[0.5, 1.0, 2.0]), Product([RBF(1.1), Matern52(0.9)])]),
}
DIFFUSIONS = {
    "zero": Diffusion.constant(0.0),
    "zero at points": Diffusion.at_points(torch.zeros(N, D, dtype=torch.float64)),
    "scalar": Diffusion.constant(0.7),
    "diagonal": Diffusion.constant(torch.tensor([0.0, 0.4, 2.0], dtype=torch.float64)),
    "matrix": Diffusion.constant(psd(seed=6)),
    "scalar at points": Diffusion.at_points(draw(N, seed=7).square()),
    "diagonal at points": Diffusion.at_points(draw(N, D, seed=8).square()),
    "matrix at points": Diffusion.at_points(psd(N, seed=9)),
}


def full(diffusion: Diffusion) -> torch.Tensor:
    """The matrices (N, D, D)."""
    values = diffusion.values.double()
    if diffusion.kind == "scalar":
        values = values[..., None, None] * torch.eye(D, dtype=torch.float64)
    elif diffusion.kind == "diagonal":
        values = torch.diag_embed(values)
    return values.expand(N, D, D)


def scalar_kernel(kernel, x, c):
    """k(x, c) of two vectors, differentiable, from the arguments' definition."""
    formula = jet_kernel(kernel)
    values = []
    for argument in formula.arguments():
        metric = torch.eye(D, dtype=torch.float64) if argument.metric is None else argument.metric
        metric = torch.diag(metric) if metric.ndim == 1 else metric
        values.append((x - c) @ metric @ (x - c) if isinstance(argument, SquaredDistance) else x @ metric @ c)
    return formula.jet(*values).value


def by_autograd(kernel, diffusion):
    matrices, result = full(diffusion), torch.empty((N, M), dtype=torch.float64)
    for i, x in enumerate(X):
        for j, c in enumerate(CENTRES):

            def section(z, c=c):
                return scalar_kernel(kernel, z, c)

            gradient, hessian = torch.func.grad(section)(x), torch.func.hessian(section)(x)
            result[i, j] = DRIFT[i] @ gradient + (matrices[i] * hessian).sum()
    return result


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("diffusion", DIFFUSIONS.values(), ids=DIFFUSIONS)
def test_generator_block(kernel, diffusion):
    expected = by_autograd(kernel, diffusion)
    block = generator_block(kernel, X, CENTRES, DRIFT, diffusion)
    assert float((block - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("diffusion", DIFFUSIONS.values(), ids=DIFFUSIONS)
def test_diagonals(kernel, diffusion):
    centres = draw(N, D, seed=12)
    torch.testing.assert_close(
        kernel_diagonal(kernel, X, centres), kernel_block(kernel, X, centres).diagonal(), rtol=1e-12, atol=1e-13
    )
    expected = generator_block(kernel, X, centres, DRIFT, diffusion).diagonal()
    diagonal = generator_diagonal(kernel, X, centres, DRIFT, diffusion)
    torch.testing.assert_close(diagonal, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


def test_only_square_matrices_have_a_diagonal():
    with pytest.raises(ShapeError, match="square"):
        kernel_diagonal(RBF(bandwidth=1.0), X, CENTRES)


@pytest.mark.parametrize("metric", [None, METRIC.diagonal(), METRIC], ids=["identity", "diagonal", "matrix"])
@pytest.mark.parametrize("kind", [SquaredDistance, InnerProduct])
def test_arguments_and_their_gradients(kind, metric):
    matrix = torch.eye(D, dtype=torch.float64) if metric is None else torch.diag(metric) if metric.ndim == 1 else metric
    delta = X[:, None] - CENTRES[None]
    first, second = gradient_parts(kind(metric), X, CENTRES)
    gradient = second[None].expand(N, M, D) if first is None else first[:, None] + second[None]
    if kind is SquaredDistance:
        expected, slope = torch.einsum("nmi,ij,nmj->nm", delta, matrix, delta), 2.0 * delta @ matrix
    else:
        expected, slope = X @ matrix @ CENTRES.T, (CENTRES @ matrix)[None].expand(N, M, D)
    torch.testing.assert_close(argument_block(kind(metric), X, CENTRES), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_points_far_from_the_origin(offset):
    """An offset of 2^k rounds the points' last digits, nothing else: the generator keeps its own."""
    x, centres = X + offset, CENTRES + offset
    exact = generator_block(RBF(bandwidth=1.3), x - offset, centres - offset, DRIFT, DIFFUSIONS["matrix"])
    shifted = generator_block(RBF(bandwidth=1.3), x, centres, DRIFT, DIFFUSIONS["matrix"])
    # differences of rounded points are exact; centring rounds once more, by offset x 2^-52
    assert float((shifted - exact).abs().max()) <= 100.0 * offset * 2.0**-52 * float(exact.abs().max())


def test_a_kernel_without_second_derivatives():
    kernel = Matern32(bandwidth=1.0)
    assert generator_block(kernel, X, CENTRES, DRIFT, DIFFUSIONS["zero"]).shape == (N, M)
    for product in (generator_block, generator_diagonal):
        with pytest.raises(CapabilityError, match="derivatives"):
            product(kernel, X, X, DRIFT, DIFFUSIONS["scalar"])
