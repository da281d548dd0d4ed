"""kooplearn's GeneratorDirichlet as an eigensolver: its numbers are kooplearn's, in our conventions."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import AnisotropicOU, OrnsteinUhlenbeck, RotatingOU
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.eigensolvers.kooplearn_dirichlet import KooplearnDirichlet, balanced
from kfpbench.eigensolvers.residuals import residuals
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.matern72 import Matern72
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

LENGTH, DIFFUSION = 1.5, 0.7


def pencil(count: int = 150, dimension: int = 2) -> GalerkinPencil:
    """dx = -a x dt + sqrt(2 a) dw on standard normal points: eigenvalues -a n."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((count, dimension), generator=generator, dtype=torch.float64)
    return GalerkinPencil.uniform(x, -DIFFUSION * x, Diffusion.constant(DIFFUSION))


@pytest.fixture(scope="module")
def kernel_module() -> Any:
    return pytest.importorskip("kooplearn.kernel", reason="kooplearn is not installed: pip install kfpbench[peers]")


@pytest.fixture(scope="module")
def pairs(kernel_module: Any) -> Eigenpairs:
    return KooplearnDirichlet(components=5).solve(pencil(), RBF(bandwidth=LENGTH), DenseGram())


def test_values_and_functions_are_those_of_kooplearn(kernel_module, pairs):
    """To ARPACK's accuracy, up to a factor of each function; on points that were not fitted."""
    model = kernel_module.GeneratorDirichlet(
        math.sqrt(2 * DIFFUSION), n_components=5, gamma=1 / (2 * LENGTH**2), alpha=1e-6, shift=1.0
    ).fit(pencil().points.numpy())
    new = torch.randn((9, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, functions = model.eig(eval_right_on=new.numpy())
    np.testing.assert_allclose(pairs.values.numpy(), values, rtol=1e-5, atol=1e-6)
    own = pairs.eigenfunctions(new).numpy()
    factors = (own.conj() * functions).sum(0) / (abs(own) ** 2).sum(0)
    np.testing.assert_allclose(own * factors, functions, rtol=0, atol=1e-4 * abs(functions).max())


def test_values_are_those_of_ornstein_uhlenbeck(pairs):
    """0, -a, -a within 25 %: the deviation of kooplearn's own estimate at 150 points, so that a factor 2 would show."""
    exact = torch.tensor([0.0, -DIFFUSION, -DIFFUSION])
    assert float((pairs.values[:3].real - exact).abs().max()) < 0.25 * DIFFUSION
    assert pairs.flags == ("",) * 5


def test_values_are_rayleigh_quotients_of_their_functions(pairs):
    """||Energy / norm + lambda|| on the fitted points is what the small alpha leaves of it."""
    measured = residuals(pairs, replace(pencil(), reversible=True))
    assert float((measured.full / (1.0 + pairs.values.abs())).max()) < 0.02


def test_functions_are_normalised_and_biorthogonal(pairs):
    on_points = pairs.on_points.to(pairs.right.dtype)
    weighted = pairs.weights[:, None] * (on_points @ pairs.right)
    torch.testing.assert_close((weighted.abs() * (on_points @ pairs.right).abs()).sum(0), torch.ones(5).double())
    identity = (on_points @ pairs.adjoint).mH @ weighted
    torch.testing.assert_close(identity, torch.eye(5).to(identity), rtol=0, atol=1e-9)
    torch.testing.assert_close(pairs.basis.features(pencil().points), pairs.on_points)


@pytest.mark.parametrize("reversible", [True, False])
def test_estimates_have_residuals_and_flags(kernel_module, reversible):
    problem = OrnsteinUhlenbeck(dimension=1)
    found = estimate_spectrum(
        problem.sample(200, seed=0),
        problem.drift,
        problem.diffusion,
        eigensolver=KooplearnDirichlet(),
        kernel_params={"bandwidth": 2.0},
        reversible=reversible,
        n_eigs=3,
    )
    assert abs(found.values[1] + 1.0) < 0.2
    assert len(found.residuals) == len(found.flags) == len(found.values)
    assert np.isfinite(found.residuals).all()
    assert found.residuals[1] < 0.5


def test_detailed_balance_is_looked_for_in_the_moments(kernel_module):
    assert balanced(pencil(), DIFFUSION)
    assert not balanced(pencil(), 2.0 * DIFFUSION)
    problem = RotatingOU()
    x = problem.sample(400, seed=0)
    with pytest.raises(CapabilityError, match="detailed balance"):
        estimate_spectrum(x, problem.drift, problem.diffusion, eigensolver=KooplearnDirichlet())


def test_what_kooplearn_cannot_solve_is_refused(kernel_module):
    solver, kernel, good = KooplearnDirichlet(), RBF(bandwidth=1.0), pencil(40)
    weights = torch.linspace(1.0, 2.0, 40, dtype=torch.float64)
    anisotropic = Diffusion.constant(torch.tensor([1.0, 2.0], dtype=torch.float64))
    for problem, other, words in (
        (good, Matern72(bandwidth=1.0), "one kernel"),
        (replace(good, centres=good.points[:5]), kernel, "centres"),
        (replace(good, weights=weights / weights.sum()), kernel, "weights"),
        (replace(good, diffusion=anisotropic), kernel, "isotropic"),
        (replace(good, diffusion=Diffusion.constant(0.0)), kernel, "isotropic"),
    ):
        with pytest.raises(CapabilityError, match=words):
            solver.solve(problem, other, DenseGram())
    with pytest.raises(ParameterError, match="points"):
        solver.solve(pencil(12), kernel, DenseGram(), 6)
    problem = AnisotropicOU()
    with pytest.raises(CapabilityError, match="isotropic"):
        estimate_spectrum(problem.sample(100, 0), problem.drift, problem.diffusion, eigensolver=solver)


def test_equal_points_raise_a_typed_error(kernel_module):
    x = torch.ones((30, 2), dtype=torch.float64)
    problem = GalerkinPencil(x, -x, Diffusion.constant(1.0), torch.full((30,), 1 / 30).double(), None, True)
    with pytest.raises(NumericalError):
        KooplearnDirichlet().solve(problem, RBF(bandwidth=1.0), DenseGram())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "kooplearn", None)
    monkeypatch.setitem(sys.modules, "kooplearn.kernel", None)
    with pytest.raises(CapabilityError, match=r"pip install kfpbench\[peers\]"):
        KooplearnDirichlet().solve(pencil(40), RBF(bandwidth=1.0), DenseGram())


def test_parameters_and_contract():
    for parameters in ({"components": 0}, {"alpha": 0.0}, {"shift": -1.0}, {"alpha": math.inf}):
        with pytest.raises(ParameterError):
            KooplearnDirichlet(**parameters)
    assert isinstance(KooplearnDirichlet(), Eigensolver)
    assert KooplearnDirichlet().working_memory(1000, 2, 6, 4, DenseGram()) > 8 * 2000**2
