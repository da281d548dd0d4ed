"""The randomized solver against the dense one, by products with the Gram matrix alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.eigensolvers.randomized import Randomized
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import kernel_block
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
KERNEL = RBF(bandwidth=1.5)
TRUNCATION = 1e-6


def draws(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=F64)


def pencils() -> dict[str, GalerkinPencil]:
    found = {f"drawn d={d}": GalerkinPencil.uniform(x := draws(300, d), -x, Diffusion.constant(1.0)) for d in (1, 2, 3)}
    x = draws(250, 2)
    axes = torch.tensor([0.5, 1.5], dtype=F64)
    full = torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=F64)
    found["reversible"] = replace(found["drawn d=2"], reversible=True)
    found["diagonal"] = GalerkinPencil.uniform(x, -x, Diffusion.constant(axes))
    found["matrix"] = GalerkinPencil.uniform(x, -x, Diffusion.constant(full))
    found["transport"] = GalerkinPencil.uniform(x, x.flip(1) * axes, Diffusion.constant(0.0))
    grid = torch.linspace(-2.2, 2.2, 300, dtype=F64)[:, None]
    weights = torch.softmax(-4.0 * (grid[:, 0].square() - 1.0).square(), 0)  # down to 1e-24 at the ends
    found["weighted grid"] = GalerkinPencil(
        grid, -4.0 * grid * (grid.square() - 1.0), Diffusion.constant(0.25), weights
    )
    return found


PENCILS = pencils()


def dense(pencil: GalerkinPencil) -> Eigenpairs:
    return DenseEigensolver(truncation=TRUNCATION, max_rank=None).solve(pencil, KERNEL, DenseGram())


def randomized(pencil: GalerkinPencil, rank: int = 230, **parameters: int) -> Eigenpairs:
    solver = Randomized(rank, truncation=TRUNCATION, max_rank=None, **parameters)
    return solver.solve(pencil, KERNEL, TiledGram(64))


@pytest.mark.parametrize("name", PENCILS)
def test_enough_rank_is_the_dense_solver(name):
    pencil = PENCILS[name]
    found, reference = randomized(pencil), dense(pencil)
    assert len(found.values) == len(reference.values)
    scale = float(reference.values.abs().max())
    gaps = (found.values[:, None] - reference.values[None, :]).abs()
    assert float(gaps.amin(0).max()) < 1e-6 * scale
    assert float(gaps.amin(1).max()) < 1e-6 * scale
    probe, new = torch.sin(pencil.points.sum(1, keepdim=True)), pencil.points[::7] + 0.01
    images = [p.eigenfunctions(new) @ (p.values[:, None] * p.coefficients(probe)) for p in (found, reference)]
    assert float((images[0] - images[1]).abs().max()) < 1e-6 * scale * float(
        reference.diagnostics["eigenvector_condition"]
    )
    on_points = found.on_points.to(found.right.dtype)
    identity = (on_points @ found.adjoint).mH @ (found.weights[:, None] * (on_points @ found.right))
    bound = 1e-9 * float(found.diagnostics["eigenvector_condition"])
    assert float((identity - torch.eye(len(identity))).abs().max()) < bound


def test_features_are_those_of_the_basis_even_where_weights_vanish():
    pencil = PENCILS["weighted grid"]
    pairs = randomized(pencil)
    torch.testing.assert_close(pairs.basis.features(pencil.points), pairs.on_points, rtol=0.0, atol=1e-7)
    gram = pairs.on_points.T @ (pairs.weights[:, None] * pairs.on_points)
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=F64), rtol=0.0, atol=1e-9)


def test_a_rank_too_small_says_so():
    """The best 10 functions, nearly, and a cut far above the truncation."""
    pencil = PENCILS["drawn d=2"]
    few, enough = randomized(pencil, rank=10), randomized(pencil)
    assert few.basis.size == 11
    assert few.diagnostics["cut"] > 100.0 * TRUNCATION
    assert enough.diagnostics["cut"] < 10.0 * TRUNCATION
    best = DenseEigensolver(truncation=TRUNCATION, max_rank=10).solve(pencil, KERNEL, DenseGram())
    assert float((few.values[:3] - best.values[:3]).abs().max()) < 1e-3


def test_power_iterations_sharpen_the_range():
    """The sketch's strengths rise to those of the kernel, and never above."""
    pencil = PENCILS["drawn d=3"]
    x, h = pencil.points, torch.eye(300, dtype=F64) - 1.0 / 300
    exact = torch.linalg.eigvalsh(h @ kernel_block(KERNEL, x, x) @ h / 300).flip(0)[:12]

    def shortfall(iterations: int) -> float:
        solver = Randomized(12, oversampling=2, power_iterations=iterations, truncation=TRUNCATION)
        missing = exact - solver._principal(pencil, KERNEL, DenseGram()).strengths
        assert float(missing.min()) > -1e-12
        return float(missing.sum())

    assert shortfall(0) > shortfall(1) > shortfall(3) > shortfall(10)
    assert shortfall(60) < 1e-3 * shortfall(0)


def test_the_seed_decides():
    pencil = PENCILS["drawn d=3"]
    values = [randomized(pencil, rank=12, power_iterations=0, seed=seed).values for seed in (1, 1, 2)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


class _LargestTensor(TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.numel())
        return result


def test_a_lazy_backend_never_holds_the_matrix():
    count, tile, columns = 1500, 50, 30
    x = draws(count, 2)
    pencil = GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))
    with _LargestTensor() as spy:
        Randomized(20, oversampling=10).solve(pencil, KERNEL, TiledGram(tile))
    assert 0 < spy.largest <= count * max(tile, 64, columns + 1)


def test_a_few_pairs_come_in_a_basis_of_their_own():
    pencil = PENCILS["drawn d=3"]
    solver = Randomized(250, truncation=1e-7, max_rank=None)
    full, few = solver.solve(pencil, KERNEL, DenseGram()), solver.solve(pencil, KERNEL, DenseGram(), 1)
    assert 20 <= len(few.values) < len(full.values)
    assert torch.equal(few.values[:20], full.values[:20])
    expected, actual = full.eigenfunctions(pencil.points)[:, :20], few.eigenfunctions(pencil.points)[:, :20]
    assert float((actual - expected).abs().max()) < 1e-6 * float(expected.abs().max())


def test_repeated_points_are_harmless():
    pencil = PENCILS["drawn d=2"]
    doubled = GalerkinPencil.uniform(pencil.points.repeat(2, 1), pencil.drift.repeat(2, 1), pencil.diffusion)
    found, reference = randomized(doubled), dense(pencil)
    assert float((found.values[:10] - reference.values[:10]).abs().max()) < 1e-6 * float(reference.values.abs().max())


def test_what_cannot_be_solved_is_refused():
    for count in (1, 40):
        x = torch.ones((count, 2), dtype=F64)
        with pytest.raises(NumericalError):
            randomized(GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0)))
    with pytest.raises(CapabilityError, match="centres"):
        randomized(replace(PENCILS["drawn d=2"], centres=draws(5, 2)))
    for parameters in ({"rank": 0}, {"oversampling": -1}, {"power_iterations": -1}, {"seed": -1}, {"truncation": 0.0}):
        with pytest.raises(ParameterError):
            Randomized(**parameters)


def test_contract():
    assert isinstance(Randomized(), Eigensolver)
    small, large = (Randomized(rank).working_memory(20_000, 8, 6, 8, TiledGram()) for rank in (50, 500))
    assert small < large
    assert Randomized(50).working_memory(20_000, 8, 6, 8, DenseGram()) > 8 * 20_000**2  # the backend's matrix counts
