"""Sections of the Gaussian kernel with their derivatives: functions and images against automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from kfpbench.eigensolvers.basis import Basis, Expansion
from kfpbench.eigensolvers.derivative_sections import DerivativeSections
from kfpbench.errors import CapabilityError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
MATRIX = torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=F64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def sections(shift: float = 0.0) -> DerivativeSections:
    centres = draws(5, 2) + shift
    return DerivativeSections(
        RBF(bandwidth=1.3), DenseGram(), centres, draws(5, 3, seed=1), draws(5, 2, 3, seed=2), draws(3, seed=3)
    )


def by_definition(basis: DerivativeSections, x: torch.Tensor) -> torch.Tensor:
    """[1, sum_j A_j k(x, c_j) + B_j . grad_c k(x, c_j) - offset] at one point x (d,), grad_c by autodiff."""

    def row(centres: torch.Tensor) -> torch.Tensor:
        return (-0.5 * (x - centres).square().sum(1) / basis.kernel.length**2).exp()

    slopes = torch.func.jacrev(lambda centres: row(centres).sum())(basis.centres)  # (M, d)
    total = row(basis.centres) @ basis.values + torch.einsum("ms,msr->r", slopes, basis.slopes) - basis.offset
    return torch.cat([x.new_ones(1), total])


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_functions_are_sections_and_their_derivatives(shift):
    x, basis = draws(6, 2, seed=4) + shift, sections(shift)
    expected = torch.stack([by_definition(basis, point) for point in x])
    torch.testing.assert_close(basis.features(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion.constant(0.0),
        Diffusion.constant(0.7),
        Diffusion.constant(torch.tensor([0.3, 2.0], dtype=F64)),
        Diffusion.constant(MATRIX),
        Diffusion.at_points(torch.full((6,), 0.7, dtype=F64)),
    ],
    ids=["transport", "scalar", "diagonal", "matrix", "equal scalars"],
)
@pytest.mark.parametrize("moving", [True, False])
def test_images_are_the_generator_by_automatic_differentiation(diffusion, moving):
    basis, x = sections(), draws(6, 2, seed=4)
    drift = draws(6, 2, seed=5) * moving
    images = basis.images(x, drift, diffusion)
    for row in range(6):
        a = diffusion.rows(slice(row, row + 1)).values
        a = a[0] if diffusion.pointwise else a
        a = a if a.ndim == 2 else a * torch.eye(2, dtype=F64)

        def features(z: torch.Tensor) -> torch.Tensor:
            return by_definition(basis, z)

        jacobian = torch.func.jacfwd(features)(x[row])
        hessian = torch.func.jacfwd(torch.func.jacfwd(features))(x[row])
        expected = jacobian @ drift[row] + torch.einsum("kij,ij->k", hessian, a)
        torch.testing.assert_close(images[row], expected, rtol=1e-11, atol=1e-11)


def test_a_diffusion_that_varies_is_refused():
    with pytest.raises(CapabilityError, match="constant diffusion"):
        sections().images(draws(2, 2), draws(2, 2), Diffusion.at_points(torch.tensor([0.1, 1.0], dtype=F64)))


def test_it_is_a_basis_on_any_backend():
    basis, x = sections(), draws(6, 2, seed=4)
    coordinates = draws(4, 2, seed=6)
    expansion = basis.combine(coordinates)
    assert isinstance(basis, Basis)
    assert isinstance(expansion, Expansion)
    torch.testing.assert_close(expansion(x), basis.features(x) @ coordinates)
    assert expansion.to(torch.float32)(x.float()).dtype == torch.float32
    assert expansion.coefficient_norm > 0
    part = basis.restrict(coordinates)
    assert part.size == 3
    torch.testing.assert_close(part.features(x)[:, 1:], basis.features(x) @ coordinates)
    tiled = DerivativeSections(basis.kernel, TiledGram(tile=4), basis.centres, basis.values, basis.slopes, basis.offset)
    drift, diffusion = draws(6, 2, seed=5), Diffusion.constant(0.7)
    torch.testing.assert_close(tiled.features(x), basis.features(x))
    torch.testing.assert_close(tiled.images(x, drift, diffusion), basis.images(x, drift, diffusion))
