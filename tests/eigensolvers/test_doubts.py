"""Flags: each reason is found where it was planted, and true modes pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import DoubleWell, OrnsteinUhlenbeck
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.doubts import doubts, moments_are_invariant, ridge_shares
from kfpbench.eigensolvers.residuals import Residuals, residuals
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

F64 = torch.float64


def pencil_of(x, rate=-1.0, diffusion=1.0, reversible=False) -> GalerkinPencil:
    x = torch.as_tensor(x, dtype=F64)
    weights = torch.full((len(x),), 1.0 / len(x), dtype=F64)
    return GalerkinPencil(x, rate * x, Diffusion.constant(diffusion), weights, reversible=reversible)


def draws(count, dimension=1, seed=0):
    return OrnsteinUhlenbeck(dimension=dimension).sample(count, seed)


def solved(pencil, **parameters):
    return DenseEigensolver(**parameters).solve(pencil, RBF(bandwidth=1.0), DenseGram())


def without_residuals(pairs) -> Residuals:
    zero = torch.zeros(len(pairs.values), dtype=F64)
    return Residuals(zero, zero, torch.zeros(len(zero), dtype=torch.bool))


# ---- spurious slow modes


@pytest.mark.parametrize("ridge", [1e-4, 1e-6])
def test_what_a_ridge_invents_is_flagged_and_the_truth_is_not(ridge):
    """OU with a ridge has values between -0.9 and 0; they solve the ridged problem, and fail on unseen points."""
    parameters = {"ridge": ridge, "truncation": 1e-14, "max_rank": None}
    x = draws(600)
    found = estimate_spectrum(x, -x, 1.0, eigensolver_params=parameters, kernel_params={"bandwidth": 1.0}, n_eigs=40)
    slow = [k for k, value in enumerate(found.values) if value.real > -0.9]
    assert len(slow) > 3  # the planted defect: the constant alone should be there
    assert [found.flags[k] for k in slow].count("") == 1  # it is, once; copies of it are flagged with the others
    true = [k for k, value in enumerate(found.values) if abs(value + 1.0) < 0.1]
    assert any(not found.flags[k] for k in true)


def test_the_reason_names_the_numbers():
    x = draws(600)
    found = estimate_spectrum(
        x, -x, 1.0, eigensolver_params={"ridge": 1e-4, "truncation": 1e-14}, kernel_params={"bandwidth": 1.0}, n_eigs=10
    )
    assert any("residual" in flag and "|value|" in flag for flag in found.flags)


# ---- residuals


def test_a_far_point_moves_the_full_residual_not_the_trimmed_one():
    fit = pencil_of(draws(400, seed=1))
    pairs = solved(fit).take([0, 1, 2])
    held = draws(200, seed=2)
    sane = residuals(pairs, pencil_of(held))
    held[7] = 6.0  # where the features are extrapolated
    far = residuals(pairs, pencil_of(held))
    assert float(far.full[1]) > 5.0 * float(sane.full[1])
    assert float(far.trimmed[1]) < 2.0 * float(sane.full[1])


def test_full_residual_by_its_definition():
    pairs = solved(pencil_of(draws(300, seed=3))).take([1, 2, 3])
    held = pencil_of(draws(50, seed=4))
    defect = pairs.generator_images(held) - pairs.eigenfunctions(held.points) * pairs.values
    expected = defect.norm(dim=0) / pairs.eigenfunctions(held.points).norm(dim=0)
    torch.testing.assert_close(residuals(pairs, held).full, expected)


def test_weighted_points_are_not_trimmed():
    problem = DoubleWell()
    points, weights = problem.quadrature(100)
    whole = GalerkinPencil(
        torch.as_tensor(points),
        torch.as_tensor(problem.drift(points)),
        Diffusion.constant(1.0),
        torch.as_tensor(weights),
    )
    measured = residuals(solved(whole).take([1, 2]), whole)
    torch.testing.assert_close(measured.full, measured.trimmed, rtol=1e-6, atol=1e-12)  # phi has mean 0 there


def test_the_weak_residual_is_the_defect_of_the_rayleigh_quotient():
    """On the fitted points themselves the Dirichlet problem's own pairs have none; on others they have."""
    fit = pencil_of(draws(200, dimension=2, seed=5), reversible=True)
    pairs = solved(fit, max_rank=10)
    own = residuals(pairs, fit)
    np.testing.assert_allclose(own.full.numpy(), 0.0, atol=1e-8 * float(pairs.values.abs().max()))
    other = residuals(pairs, pencil_of(draws(200, dimension=2, seed=6), reversible=True))
    assert float(other.trimmed[1:].min()) > 1e-4


def test_the_constant_function_is_never_flagged():
    """Its value may come out as 1e-17 instead of 0, and its residual too."""
    fit = pencil_of(draws(200))
    pairs = solved(fit).take([0, 1])
    shifted = replace(pairs, values=pairs.values - 1e-17)
    assert doubts(shifted, residuals(shifted, fit), fit)[0] == ""


# ---- other reasons


def test_ill_conditioned_eigenvectors():
    fit = pencil_of(draws(200))
    pairs = solved(fit)
    bad = replace(pairs, diagnostics={**pairs.diagnostics, "eigenvector_condition": 1e13})
    assert all("1.0e+13" in flag for flag in doubts(bad, without_residuals(bad), fit))


def test_the_solvers_own_doubt_comes_first():
    fit = pencil_of(draws(200))
    pairs = solved(fit)
    marked = replace(pairs, flags=("not converged", *pairs.flags[1:]))
    assert doubts(marked, without_residuals(marked), fit)[0] == "not converged"


def test_the_share_of_the_ridge():
    """One function of strength Lam under a ridge gamma owes gamma / (Lam + gamma) of its norm to it."""
    fit = pencil_of(draws(200))
    pairs = solved(fit, ridge=1.0, truncation=1e-3)
    shares = ridge_shares(pairs)
    lowest, highest = float(shares.min()), float(shares.max())
    assert abs(lowest) < 1e-9  # the constant
    assert 0.5 < highest < 1.0
    flags = doubts(pairs, without_residuals(pairs), fit)
    assert [bool(flag) for flag in flags] == [share > 0.5 for share in shares.tolist()]
    assert float(ridge_shares(solved(fit)).abs().max()) == 0.0


def test_a_positive_real_part_where_the_density_is_invariant():
    """It cannot be there; under an expanding drift it can: phi(x) = x of b = x has the true value 1."""
    invariant, expanding = pencil_of(draws(2000)), pencil_of(draws(2000), rate=1.0)
    assert moments_are_invariant(invariant)
    assert not moments_are_invariant(expanding)
    pairs = solved(pencil_of(draws(200)))
    positive = replace(pairs, values=torch.full_like(pairs.values, 0.3))
    assert all("positive" in flag for flag in doubts(positive, without_residuals(positive), invariant))
    assert not any(doubts(positive, without_residuals(positive), expanding))


def test_an_expanding_drift_keeps_its_true_positive_value():
    x = draws(1000)
    found = estimate_spectrum(x, x.copy(), 0.0, n_eigs=60, kernel_params={"bandwidth": 2.0})
    sound = [value for value, flag in zip(found.values, found.flags, strict=True) if not flag]
    assert min(abs(value - 1.0) for value in sound) < 0.05
