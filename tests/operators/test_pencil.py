"""The data of a Galerkin eigenproblem: what is refused, and what smoothness an operator asks for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kfpbench.errors import CapabilityError, KfpbenchError, NumericalError, ParameterError, ShapeError
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil, require_smooth

F64 = torch.float64
POINTS = torch.randn((6, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
GOOD = GalerkinPencil.uniform(POINTS, -POINTS, Diffusion.constant(1.0))


def test_uniform_weights():
    assert torch.equal(GOOD.weights, torch.full((6,), 1 / 6, dtype=F64))
    assert GOOD.centres is None
    assert not GOOD.reversible


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["points", "drift", "weights", "centres"])
def test_values_that_are_not_finite_are_named(name, bad):
    part = (POINTS if name == "centres" else getattr(GOOD, name)).clone()
    part.view(-1)[3] = bad
    with pytest.raises(NumericalError, match=f"{name} hold NaN or infinity"):
        replace(GOOD, **{name: part})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("points", POINTS[:, 0]),
        ("points", POINTS[:5]),
        ("drift", POINTS[:, :1]),
        ("drift", POINTS[:5]),
        ("drift", POINTS[0]),
        ("weights", GOOD.weights[:5]),
        ("weights", GOOD.weights[:, None]),
        ("centres", POINTS[:, :1]),
        ("centres", POINTS[0]),
        ("diffusion", Diffusion.constant(torch.ones(3, dtype=F64))),
        ("diffusion", Diffusion.constant(torch.eye(3, dtype=F64))),
        ("diffusion", Diffusion.at_points(torch.ones(5, dtype=F64))),
        ("diffusion", Diffusion.at_points(torch.ones((6, 3), dtype=F64))),
        ("diffusion", Diffusion.at_points(torch.eye(2, dtype=F64).expand(5, 2, 2))),
    ],
)
def test_shapes_that_do_not_match(name, part):
    with pytest.raises(ShapeError) as refusal:
        replace(GOOD, **{name: part})
    assert "allowed" in str(refusal.value)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_centres(count):
    centres = torch.zeros((count, 2), dtype=F64)
    assert replace(GOOD, centres=centres).centres is centres


@pytest.mark.parametrize(
    "weights",
    [[0.2] * 6, [0.0, 0.2, 0.2, 0.2, 0.2, 0.2], [-0.1, 0.3, 0.2, 0.2, 0.2, 0.2], [0.0] * 6, [1 / 6 + 1e-5] * 6],
    ids=["sum 1.2", "a zero", "negative", "all zero", "sum 1.00006"],
)
def test_weights_must_be_positive_with_sum_one(weights):
    with pytest.raises(ParameterError, match="weights must be positive with sum 1"):
        replace(GOOD, weights=torch.tensor(weights, dtype=F64))


@pytest.mark.parametrize(
    "zero",
    [
        Diffusion.constant(0.0),
        Diffusion.constant(torch.zeros(2, dtype=F64)),
        Diffusion.constant(torch.zeros((2, 2), dtype=F64)),
        Diffusion.at_points(torch.zeros(6, dtype=F64)),
    ],
    ids=["number", "diagonal", "matrix", "pointwise"],
)
def test_a_reversible_operator_needs_diffusion(zero):
    with pytest.raises(ParameterError, match="reversible operator needs diffusion"):
        replace(GOOD, diffusion=zero, reversible=True)
    assert replace(GOOD, diffusion=zero).derivatives == 1


@pytest.mark.parametrize(
    "bad",
    [
        -1.0,
        torch.tensor([1.0, -1e-3]),
        torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
        torch.tensor([[1.0, 0.5], [0.0, 1.0]]),
        math.nan,
    ],
    ids=["number", "diagonal", "indefinite", "not symmetric", "nan"],
)
def test_a_matrix_that_is_no_diffusion_is_refused(bad):
    with pytest.raises(KfpbenchError, match="diffusion"):
        Diffusion.constant(bad)


def test_derivatives_that_an_operator_needs():
    """Two in strong form as soon as any axis or point diffuses; one for the Dirichlet form and for transport."""
    assert GOOD.derivatives == 2
    assert replace(GOOD, reversible=True).derivatives == 1
    assert replace(GOOD, diffusion=Diffusion.constant(torch.tensor([0.0, 1e-9], dtype=F64))).derivatives == 2
    somewhere = torch.zeros(6, dtype=F64)
    somewhere[4] = 1.0
    assert replace(GOOD, diffusion=Diffusion.at_points(somewhere)).derivatives == 2


class Smooth:
    def __init__(self, smoothness: float) -> None:
        self.smoothness = smoothness

    def fit(self, points):
        return self

    def describe(self):
        return {}


@pytest.mark.parametrize("smoothness", [0, 1, 2, math.inf])
@pytest.mark.parametrize("derivatives", [1, 2])
def test_smoothness_is_compared_with_the_derivatives(smoothness, derivatives):
    if smoothness >= derivatives:
        require_smooth(Smooth(smoothness), derivatives)
        return
    with pytest.raises(CapabilityError, match="too rough") as refusal:
        require_smooth(Smooth(smoothness), derivatives)
    assert f"at least {derivatives}" in str(refusal.value)
    assert ("reversible" in str(refusal.value)) == (derivatives == 2)


class Limited(Smooth):
    """A kernel that computes its own blocks, in at most one dimension with diffusion."""

    max_dim = 1

    def block(self, x, centres):
        raise NotImplementedError

    def generator_block(self, x, centres, drift, diffusion):
        raise NotImplementedError


def test_a_kernel_limited_in_dimension():
    with pytest.raises(CapabilityError, match="max_dim = 1"):
        GOOD.require_smooth(Limited(math.inf))
    replace(GOOD, diffusion=Diffusion.constant(0.0)).require_smooth(Limited(math.inf))
    replace(GOOD, reversible=True).require_smooth(Limited(math.inf))
    line = GalerkinPencil.uniform(POINTS[:, :1], POINTS[:, :1], Diffusion.constant(1.0))
    line.require_smooth(Limited(math.inf))
