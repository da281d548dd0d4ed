"""The matrix-free solver: the same spectrum as the dense one, memory linear in N, honest about non-convergence."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.data.potentials import DoubleWell, OrnsteinUhlenbeck, RotatingOU
from kfpbench.eigensolvers.collocation import DampedCollocation
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.krylov import Krylov
from kfpbench.eigensolvers.nystrom_preconditioner import NystromPreconditioner
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.operators.tiled import TiledGram

F64 = torch.float64
ROTATING = RBF(bandwidth=1.7)


def gridded(problem, count: int) -> GalerkinPencil:
    points, weights = (torch.from_numpy(part) for part in problem.quadrature(count))
    drift = torch.from_numpy(problem.drift(points.numpy()))
    return GalerkinPencil(points, drift, Diffusion.constant(problem.diffusion), weights / weights.sum())


def sampled(problem, count: int) -> GalerkinPencil:
    points = torch.from_numpy(problem.sample(count, 0))
    diffusion = Diffusion.constant(torch.as_tensor(problem.diffusion, dtype=F64))
    return GalerkinPencil.uniform(points, torch.from_numpy(problem.drift(points.numpy())), diffusion)


@pytest.fixture(scope="module")
def rotating():
    return Krylov(count=6, preconditioner_centres=100).solve(sampled(RotatingOU(), 300), ROTATING, DenseGram())


@pytest.mark.parametrize(
    ("problem", "kernel"), [(OrnsteinUhlenbeck(dimension=1), RBF(bandwidth=1.0)), (DoubleWell(), RBF(bandwidth=0.5))]
)
def test_full_rank_agrees_with_dense_and_with_the_truth(problem, kernel):
    pencil = gridded(problem, 200)
    pairs = Krylov(count=4, damping=1e-11).solve(pencil, kernel, TiledGram(tile=64))
    dense = DenseEigensolver(truncation=1e-12).solve(pencil, kernel, DenseGram())
    assert pairs.status == "converged"
    torch.testing.assert_close(pairs.values[1:], dense.values[1:4], rtol=1e-6, atol=0.0)
    truth = torch.as_tensor(problem.exact_eigenvalues(4)).to(pairs.values)
    torch.testing.assert_close(pairs.values, truth, rtol=1e-6, atol=1e-7)


def test_complex_pairs_of_a_rotation_stand_together(rotating):
    truth = torch.tensor([0, -1 + 2j, -1 - 2j, -2], dtype=torch.complex128)  # then -3 +- 2i, nearer to 0 than -2 +- 4i
    torch.testing.assert_close(rotating.values[:4], truth, rtol=0.05, atol=1e-7)
    for upper, lower in ((1, 2), (4, 5)):
        assert complex(rotating.values[upper]) == complex(rotating.values[lower]).conjugate()
        torch.testing.assert_close(rotating.right[:, upper], rotating.right[:, lower].conj())


def test_right_and_adjoint_functions_are_biorthogonal(rotating):
    pencil = sampled(RotatingOU(), 300)
    phi, psi = rotating.eigenfunctions(pencil.points), rotating.adjoint_functions(pencil.points)
    torch.testing.assert_close(psi.mH @ phi / 300, torch.eye(6, dtype=phi.dtype), rtol=0, atol=1e-8)
    torch.testing.assert_close(rotating.basis.features(pencil.points), rotating.on_points, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        rotating.coefficients(phi.real) + 1j * rotating.coefficients(phi.imag), psi.mH @ phi / 300
    )


def test_eigenfunctions_solve_the_problem_up_to_the_damping(rotating):
    """||L phi - lambda phi|| of the pairs of a fit is what the damping leaves: small against |lambda|."""
    pencil = sampled(RotatingOU(), 300)
    defect = rotating.generator_images(pencil) - rotating.eigenfunctions(pencil.points) * rotating.values
    size = defect.abs().square().mean(0).sqrt()
    assert float(size[0]) < 1e-8
    assert bool((size[1:] < 0.02 * rotating.values[1:].abs()).all())


def test_backends_agree(rotating):
    tiled = Krylov(count=6, preconditioner_centres=100).solve(sampled(RotatingOU(), 300), ROTATING, TiledGram(tile=64))
    torch.testing.assert_close(tiled.values, rotating.values, rtol=1e-4, atol=1e-8)


def test_arpack_agrees_with_the_block_method(rotating):
    solver = Krylov(count=6, preconditioner_centres=100, method="arpack")
    pairs = solver.solve(sampled(RotatingOU(), 300), ROTATING, DenseGram())
    torch.testing.assert_close(pairs.values, rotating.values, rtol=1e-4, atol=1e-6)
    assert pairs.diagnostics["inner_iterations"] > 0
    assert pairs.diagnostics["kernel_passes"] > 3 * rotating.diagnostics["kernel_passes"]


def test_no_slow_mode_is_invented():
    """Ornstein-Uhlenbeck on random points: 0, then -1. A ridge of the same size shows values in between."""
    pairs = Krylov(count=4, preconditioner_centres=200).solve(
        sampled(OrnsteinUhlenbeck(dimension=1), 400), RBF(bandwidth=1.0), DenseGram()
    )
    torch.testing.assert_close(pairs.values[:3].real, torch.tensor([0.0, -1.0, -2.0], dtype=F64), rtol=0.1, atol=1e-8)


def test_the_preconditioner_of_all_centres_is_the_inverse():
    pencil = sampled(RotatingOU(), 60)
    kernel = RBF(bandwidth=0.5)
    preconditioner = NystromPreconditioner(pencil, kernel, DenseGram(), pencil.points, 1e-3, 0.05)
    operator = DampedCollocation(pencil, kernel, DenseGram(), preconditioner.kappa)
    identity = torch.eye(60, dtype=F64)
    mass = operator.mass(identity)
    matrix = operator.generator(identity) - preconditioner.sigma * mass
    torch.testing.assert_close(mass, mass.T)
    torch.testing.assert_close(operator.generator_transposed(identity), operator.generator(identity).T)
    inverse = torch.linalg.inv(matrix)
    scale = float(inverse.abs().max())
    torch.testing.assert_close(preconditioner.solve(identity), inverse, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(preconditioner.solve_transposed(identity), inverse.T, rtol=0, atol=1e-4 * scale)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.numel())
        return result


def test_never_an_n_by_n_array():
    count = 600
    with Largest() as seen:
        pairs = Krylov(count=4, preconditioner_centres=50).solve(
            sampled(RotatingOU(), count), ROTATING, TiledGram(tile=50)
        )
    assert len(pairs.values) == 4
    assert seen.numel <= count * 50 + count


def test_a_poor_preconditioner_and_one_iteration_are_reported():
    pairs = Krylov(count=6, preconditioner_centres=10, max_iterations=1).solve(
        sampled(RotatingOU(), 300), ROTATING, DenseGram()
    )
    assert pairs.status == "not converged"
    assert pairs.iterations <= 2
    for flag, residual in zip(pairs.flags, pairs.diagnostics["residuals"], strict=True):
        assert bool(flag) == (residual > 1e-5)


def test_fewer_points_than_eigenpairs_is_a_status():
    pairs = Krylov(count=12).solve(sampled(RotatingOU(), 5), ROTATING, DenseGram())
    assert len(pairs.values) <= 5
    assert pairs.status == "not converged"
    assert "of 12" in pairs.diagnostics["missing"]


def test_duplicates_are_as_good_as_weights():
    pencil = sampled(RotatingOU(), 150)
    doubled = GalerkinPencil.uniform(pencil.points.repeat(2, 1), pencil.drift.repeat(2, 1), pencil.diffusion)
    solver = Krylov(count=3, preconditioner_centres=80)
    once, twice = (solver.solve(part, ROTATING, DenseGram()) for part in (pencil, doubled))
    torch.testing.assert_close(twice.values, once.values, rtol=1e-4, atol=1e-8)


def test_what_is_refused():
    pencil = sampled(RotatingOU(), 20)
    with pytest.raises(NumericalError, match="constant"):
        Krylov().solve(sampled(RotatingOU(), 1), ROTATING, DenseGram())
    with pytest.raises(CapabilityError, match="too rough"):
        Krylov().solve(pencil, Matern32(bandwidth=1.0), DenseGram())
    reversible = GalerkinPencil(pencil.points, pencil.drift, pencil.diffusion, pencil.weights, reversible=True)
    with pytest.raises(CapabilityError, match="Dirichlet"):
        Krylov().solve(reversible, ROTATING, DenseGram())
    centred = GalerkinPencil(pencil.points, pencil.drift, pencil.diffusion, pencil.weights, pencil.points[:5])
    with pytest.raises(CapabilityError, match="centres"):
        Krylov().solve(centred, ROTATING, DenseGram())


@pytest.mark.parametrize("name", ["count", "damping", "shift", "tolerance", "max_iterations", "preconditioner_centres"])
def test_parameters_out_of_range(name):
    with pytest.raises(ParameterError):
        Krylov(**{name: 0})
