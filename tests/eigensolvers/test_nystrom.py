"""Nystrom against the dense solver: the same subspace from all points, less memory, the same answers compressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.eigensolvers.nystrom import Nystrom
from kfpbench.errors import CapabilityError, KfpbenchError, NumericalError, ParameterError
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
KERNEL = RBF(bandwidth=1.5)
TRUNCATION = 1e-6


def draws(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=F64)


def matrix_diffusion(dimension: int) -> Diffusion:
    factor = torch.eye(dimension, dtype=F64) + 0.3 * torch.ones((dimension, dimension), dtype=F64)
    return Diffusion.constant(factor @ factor.T)


def pencils() -> dict[str, GalerkinPencil]:
    found = {f"drawn d={d}": GalerkinPencil.uniform(x := draws(300, d), -x, Diffusion.constant(1.0)) for d in (1, 2, 3)}
    x = draws(250, 2)
    axes = torch.tensor([0.5, 1.5], dtype=F64)
    found["reversible"] = replace(found["drawn d=2"], reversible=True)
    found["diagonal"] = GalerkinPencil.uniform(x, -x, Diffusion.constant(axes))
    found["matrix"] = GalerkinPencil.uniform(x, -x, matrix_diffusion(2))
    found["matrix reversible"] = GalerkinPencil(
        x, -x, matrix_diffusion(2), torch.full((250,), 1.0 / 250, dtype=F64), reversible=True
    )
    found["matrices at points"] = GalerkinPencil.uniform(
        x, -x, Diffusion.at_points(matrix_diffusion(2).values * (1.0 + x[:, :1, None].square()))
    )
    found["transport"] = GalerkinPencil.uniform(x, x.flip(1) * axes, Diffusion.constant(0.0))
    side = torch.linspace(-4.0, 4.0, 18, dtype=F64)
    grid = torch.cartesian_prod(side, side)
    weights = torch.softmax(-0.5 * grid.square().sum(1), 0)
    found["weighted grid"] = GalerkinPencil(grid, -grid, Diffusion.constant(1.0), weights)
    return found


PENCILS = pencils()


def settings(solver: type, **parameters: object) -> Eigensolver:
    return solver(truncation=TRUNCATION, max_rank=None, **parameters)


def assert_same_projection(found: Eigenpairs, reference: Eigenpairs, pencil: GalerkinPencil) -> None:
    """Each eigenvalue to 1e-6 of the largest, and the operator itself, F right diag(values) adjoint^H F^T, likewise."""
    assert len(found.values) == len(reference.values)
    scale = float(reference.values.abs().max())
    gaps = (found.values[:, None] - reference.values[None, :]).abs()
    assert float(gaps.amin(0).max()) < 1e-6 * scale
    assert float(gaps.amin(1).max()) < 1e-6 * scale
    probe = torch.sin(pencil.points.sum(1, keepdim=True))
    new = draws(20, pencil.points.shape[1], seed=7)
    images = [p.eigenfunctions(new) @ (p.values[:, None] * p.coefficients(probe)) for p in (found, reference)]
    assert float((images[0] - images[1]).abs().max()) < 1e-6 * scale * float(
        reference.diagnostics["eigenvector_condition"]
    )


def assert_biorthogonal(pairs: Eigenpairs) -> None:
    """<psi_k, phi_l> = delta_kl over the points (no ridge)."""
    on_points = pairs.on_points.to(pairs.right.dtype)
    left = (on_points @ pairs.adjoint).mH * pairs.weights
    identity = left @ (on_points @ pairs.right)
    bound = 1e-9 * float(pairs.diagnostics["eigenvector_condition"])
    assert float((identity - torch.eye(len(identity))).abs().max()) < bound


@pytest.mark.parametrize("name", PENCILS)
def test_all_points_as_centres_are_the_dense_solver(name):
    pencil = PENCILS[name]
    found = settings(Nystrom, centres=10_000).solve(pencil, KERNEL, TiledGram(64))
    reference = settings(DenseEigensolver).solve(pencil, KERNEL, DenseGram())
    assert_same_projection(found, reference, pencil)
    assert_biorthogonal(found)


def test_given_centres_take_precedence_and_agree_with_dense():
    pencil = replace(PENCILS["drawn d=2"], centres=draws(40, 2, seed=3))
    found = settings(Nystrom, centres=5).solve(pencil, KERNEL, DenseGram())
    assert found.diagnostics["centres"] == 40
    assert_same_projection(found, settings(DenseEigensolver).solve(pencil, KERNEL, DenseGram()), pencil)


@pytest.mark.parametrize("selection", ["uniform", "kmeans++", "pivoted_cholesky"])
def test_few_centres_find_the_ornstein_uhlenbeck_spectrum(selection):
    """-1, -1, -2 on a weighted grid, where the quadrature and not the sample limits the accuracy."""
    side = torch.linspace(-4.5, 4.5, 40, dtype=F64)
    grid = torch.cartesian_prod(side, side)
    pencil = GalerkinPencil(grid, -grid, Diffusion.constant(1.0), torch.softmax(-0.5 * grid.square().sum(1), 0))
    pairs = Nystrom(200, selection).solve(pencil, KERNEL, TiledGram())
    exact = torch.tensor([0.0, -1.0, -1.0, -2.0, -2.0, -2.0], dtype=F64)
    assert float((pairs.values[:6] - exact).abs().max()) < 1e-2
    assert_biorthogonal(pairs)


def test_features_on_points_are_those_of_the_basis_and_orthonormal():
    pencil = PENCILS["weighted grid"]
    pairs = settings(Nystrom, centres=100, selection="pivoted_cholesky").solve(pencil, KERNEL, TiledGram(50))
    gram = pairs.on_points.T @ (pairs.weights[:, None] * pairs.on_points)
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=F64), rtol=0.0, atol=1e-9)
    torch.testing.assert_close(pairs.basis.features(pencil.points), pairs.on_points, rtol=0.0, atol=1e-6)


def test_the_seed_decides_and_nothing_else():
    pencil = PENCILS["drawn d=3"]
    values = [Nystrom(60, seed=seed).solve(pencil, KERNEL, DenseGram()).values for seed in (1, 1, 2)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


@pytest.mark.parametrize("ridge", [0.0, 1e-6])
@pytest.mark.parametrize("name", ["drawn d=3", "transport", "reversible"])
def test_a_few_pairs_come_in_a_basis_of_their_own(name, ridge):
    """Values, functions, adjoints and coefficients as in the full answer; conjugates whole; the slowest among them."""
    pencil = PENCILS[name]
    solver = Nystrom(250, ridge=ridge, truncation=1e-7, max_rank=None)
    full, few = solver.solve(pencil, KERNEL, DenseGram()), solver.solve(pencil, KERNEL, DenseGram(), 1)
    assert 20 <= len(few.values) < len(full.values)
    places = [int((full.values == value).nonzero()[0]) for value in few.values]
    assert places[:20] == list(range(20))
    slowest = full.slowest(20).values
    assert all(bool((few.values == value).any()) for value in slowest)
    assert all(bool((few.values == value.conj()).any()) for value in few.values)
    chosen, new = full.take(places), draws(30, pencil.points.shape[1], seed=5)
    for of in ("eigenfunctions", "adjoint_functions", "coefficients"):
        at = pencil.points if of == "coefficients" else new
        expected, actual = getattr(chosen, of)(at), getattr(few, of)(at)
        assert float((actual - expected).abs().max()) < 1e-6 * float(expected.abs().max())
    if few.mass is not None:
        for pairs in (few, chosen):
            product = pairs.adjoint.mH @ (pairs.mass[:, None] * pairs.right)
            assert float((product - torch.eye(len(product))).abs().max()) < 1e-8
    else:
        assert ridge == 0.0


def test_what_is_returned_for_a_few_pairs_is_small():
    pencil = PENCILS["reversible"]
    few = Nystrom(250, truncation=1e-10, max_rank=None).solve(pencil, KERNEL, DenseGram(), 1)
    assert few.on_points.shape[1] == few.basis.size <= 2 * (4 + 16) + 1 < few.diagnostics["rank"]


class _LargestTensor(TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.numel())
        return result


@pytest.mark.parametrize("selection", ["uniform", "kmeans++", "pivoted_cholesky"])
def test_never_holds_more_than_points_times_centres(selection):
    """Nor does the dense backend, since rows come in tiles: a whole Gram matrix would have 3000^2 elements."""
    count, centres = 3000, 40
    x = draws(count, 2)
    pencil = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))
    with _LargestTensor() as spy:
        Nystrom(centres, selection).solve(pencil, KERNEL, DenseGram(), 2)
    assert spy.largest <= count * 128  # the proposals of a block, or the features


def test_repeated_points_are_harmless():
    pencil = PENCILS["drawn d=2"]
    doubled = GalerkinPencil.uniform(pencil.points.repeat(2, 1), pencil.drift.repeat(2, 1), pencil.diffusion)
    reference = settings(DenseEigensolver).solve(pencil, KERNEL, DenseGram()).values
    for centres in (1000, 300):
        found = settings(Nystrom, centres=centres, selection="kmeans++").solve(doubled, KERNEL, DenseGram()).values
        assert len(found) == len(reference)
        assert float((found[:10] - reference[:10]).abs().max()) < 1e-6 * float(reference.abs().max())


@pytest.mark.parametrize("selection", ["uniform", "kmeans++", "pivoted_cholesky"])
def test_degenerate_points_are_refused(selection):
    for count in (1, 40):
        x = torch.ones((count, 2), dtype=F64)
        pencil = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))
        with pytest.raises(NumericalError):
            Nystrom(10, selection).solve(pencil, KERNEL, DenseGram())
        with pytest.raises(NumericalError):
            Nystrom(10, selection).solve(pencil, RBF(), DenseGram())


def test_bad_parameters_and_rough_kernels_are_refused():
    for parameters in ({"centres": 0}, {"selection": "best"}, {"seed": -1}, {"truncation": 2.0}, {"max_rank": 0}):
        with pytest.raises(ParameterError):
            Nystrom(**parameters)
    with pytest.raises(CapabilityError):
        Nystrom().solve(PENCILS["drawn d=1"], Matern32(bandwidth=1.0), DenseGram())

    class NotFinite(RBF):
        def profile(self, squared_distance):
            return tuple(part * torch.nan for part in super().profile(squared_distance))

    for selection in ("uniform", "pivoted_cholesky"):
        with pytest.raises(KfpbenchError, match="not finite"):
            Nystrom(20, selection).solve(PENCILS["drawn d=1"], NotFinite(bandwidth=1.0), DenseGram())


def test_contract():
    assert isinstance(Nystrom(), Eigensolver)
    assert Nystrom().working_memory(50_000, 10, 20, 8, DenseGram()) < 8 * 50_000**2 / 10
