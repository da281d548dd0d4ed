"""The order of eigenvalues and their selection, propagation under pure transport, and the linear model's warning."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, conjugate_partners
from kfpbench.eigensolvers.projection import order_of
from kfpbench.errors import CapabilityError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

F64 = torch.float64
UPPER, LOWER = complex(-1, 2), complex(-1, -2)


def tensor(values: list[complex]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.complex128)


# ---- order ----


@pytest.mark.parametrize(
    "expected",
    [
        [0, UPPER, LOWER, UPPER, LOWER],
        [0, -1, UPPER, LOWER, UPPER, LOWER, UPPER, LOWER, -3],
        [0, -1, -1, complex(-1, 1), complex(-1, -1), UPPER, LOWER],
        [3, 0, 0, -0.5, complex(-2, 1), complex(-2, -1), complex(-2, 5), complex(-2, -5)],
        [],
    ],
    ids=["a double pair", "a triple pair", "equal real parts", "growing", "none"],
)
def test_order_keeps_every_pair_together_whatever_the_order_given(expected):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        shuffled = tensor(expected)[torch.randperm(len(expected), generator=generator)]
        order = order_of(shuffled)
        assert sorted(order) == list(range(len(expected)))
        assert shuffled[order].tolist() == expected


def test_order_keeps_an_unpaired_value():
    """An iterative solver may return half of a pair: it is listed, with nothing lost."""
    values = tensor([LOWER, 0, UPPER, UPPER])
    assert values[order_of(values)].tolist() == [0, UPPER, LOWER, UPPER]


def test_partners_of_equal_pairs_are_matched_in_order():
    assert conjugate_partners(tensor([0, UPPER, LOWER, UPPER, LOWER, -2])) == [0, 2, 1, 4, 3, 5]
    assert conjugate_partners(tensor([UPPER, UPPER, LOWER, LOWER])) == [2, 3, 0, 1]
    assert conjugate_partners(tensor([UPPER, 1, UPPER])) == [0, 1, 2]  # alone, each is its own


# ---- selection ----


def planted(values: list[complex]) -> Eigenpairs:
    """The pairs of a solve under other values; the vectors tell which is which."""
    points = torch.linspace(-1, 1, 30, dtype=F64)[:, None]
    pencil = GalerkinPencil.uniform(points, -points, Diffusion.constant(1.0))
    pairs = DenseEigensolver(truncation=1e-12).solve(pencil, RBF(bandwidth=0.5), DenseGram())
    assert len(pairs.values) >= len(values)
    pairs = pairs.take(list(range(len(values))))
    pairs.values.copy_(tensor(values))
    return pairs


@pytest.mark.parametrize(
    "values",
    [
        [0, UPPER, LOWER, UPPER, LOWER, -3],
        [0, -0.5, UPPER, LOWER, complex(-1, 4), complex(-1, -4), complex(-1, 4), complex(-1, -4)],
        [complex(1, 1), complex(1, -1), 0, UPPER, LOWER, UPPER, LOWER],
    ],
)
def test_slowest_never_splits_a_pair_even_a_repeated_one(values):
    pairs = planted(values)
    for count in range(len(values) + 1):
        kept = pairs.slowest(count)
        found = kept.values.tolist()
        assert len(found) <= count
        for value in found:  # each as often as its conjugate
            assert found.count(value) == found.count(complex(value).conjugate())
        assert all(abs(value) <= max(map(abs, found)) + 1e-15 for value in found)
        left_out = sorted(abs(v) for v in values)[len(found) :]
        if found and left_out:
            assert max(map(abs, found)) <= left_out[0]
        assert count - len(found) <= 1  # only the half of a pair is missing
        places = [pairs.right.T.tolist().index(column) for column in kept.right.T.tolist()]
        assert places == sorted(places)  # in their order here
        assert [values[place] for place in places] == found


def test_a_double_rotation_has_repeated_pairs(linear_pencil):
    """Two equal rotations in four dimensions: -1 +- 2i, each twice, pairs side by side."""
    block = [[-1.0, -2.0], [2.0, -1.0]]
    pairs = DenseEigensolver(truncation=1e-8).solve(
        linear_pencil(scipy.linalg.block_diag(block, block).tolist(), 400, 0), RBF(bandwidth=8.0), DenseGram()
    )
    leading = pairs.values[1:5].numpy()
    np.testing.assert_allclose(sorted(leading.imag), [-2, -2, 2, 2], rtol=0.05)
    np.testing.assert_allclose(leading.real, -1.0, rtol=0.05)
    for first, second in (leading[:2], leading[2:]):
        assert first.imag > 0
        assert second == first.conjugate()
    assert len(pairs.slowest(2).values) == 1  # 0, and no half of a pair
    assert len(pairs.slowest(3).values) == 3


# ---- pure transport: no discrete spectrum; propagation against the flow ----


@pytest.mark.parametrize("span", [0.1, 0.5])
def test_transport_propagates_along_the_exact_flow(span):
    """a = 0, b = A x: E[u(x_D)] = u(e^(D A) x), here a spiral into 0, for x itself and for nonlinear u.

    All of u(e^(D A) x) is far smoother than the kernel, so the expansion's error is that of the truncation, 1e-5."""
    a = torch.tensor([[-0.6, -1.5], [1.5, -0.6]], dtype=F64)
    generator = torch.Generator().manual_seed(0)
    points = 4.0 * torch.rand((400, 2), generator=generator, dtype=F64) - 2.0
    pencil = GalerkinPencil.uniform(points, points @ a.T, Diffusion.constant(0.0))
    pairs = DenseEigensolver(truncation=1e-10).solve(pencil, RBF(bandwidth=2.0), DenseGram())

    def u(x):
        return torch.cat([x, torch.sin(x[:, :1]) * x[:, 1:], torch.exp(-x.square().sum(1, keepdim=True) / 8)], dim=1)

    radius = torch.linspace(0.1, 1.4, 25, dtype=F64)
    x = torch.stack([radius * torch.cos(7 * radius), radius * torch.sin(7 * radius)], dim=1)
    weighted = torch.exp(pairs.values * span)[:, None] * pairs.coefficients(u(points))
    moved = pairs.eigenfunctions(x) @ weighted
    exact = u(x @ torch.linalg.matrix_exp(span * a).T)
    assert float((exact - u(x)).abs().max()) > 0.1  # it does move
    torch.testing.assert_close(moved.real, exact, rtol=0.0, atol=1e-4)
    assert float(moved.imag.abs().max()) < 1e-6


# ---- the model that is all but linear ----


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_huge_bandwidth_is_flagged_as_linear_and_a_sensible_one_is_not(ou_pencil, dimension):
    pencil = ou_pencil(dimension, 200)
    huge = DenseEigensolver(truncation=1e-12).solve(pencil, RBF(bandwidth=200.0), DenseGram()).diagnostics
    sensible = DenseEigensolver().solve(pencil, RBF(), DenseGram()).diagnostics
    assert "linear" in huge["warning"]
    assert huge["linear_share"] > 0.999
    assert "warning" not in sensible
    assert sensible["linear_share"] < 0.99


def test_other_centres_flag_a_linear_model_too(ou_pencil):
    pencil = ou_pencil(2, 200)
    few = GalerkinPencil(pencil.points, pencil.drift, pencil.diffusion, pencil.weights, pencil.points[:40])
    assert "linear" in DenseEigensolver().solve(few, RBF(bandwidth=200.0), DenseGram()).diagnostics["warning"]
    assert "warning" not in DenseEigensolver().solve(few, RBF(), DenseGram()).diagnostics


# ---- smoothness ----


class Once:
    """h(u) = (1 + u) e^-u, u = |x - y|: functions with one continuous derivative; dh/ds = -e^-u / 2, s = u^2."""

    smoothness = 1

    def fit(self, points):
        return self

    def describe(self):
        return {}

    def profile(self, squared_distance):
        u = squared_distance.sqrt()
        return (u + 1.0) * (-u).exp(), (-u).exp() * -0.5


class Never(Once):
    """h = e^-u: continuous, without a derivative."""

    smoothness = 0


def rough_pencil(diffusion: float, reversible: bool) -> GalerkinPencil:
    points = torch.randn((60, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    weights = torch.full((60,), 1 / 60, dtype=F64)
    return GalerkinPencil(points, -points, Diffusion.constant(diffusion), weights, reversible=reversible)


def test_a_kernel_with_one_derivative():
    """Refused in strong form with diffusion, and told why; served by the Dirichlet form, and without diffusion."""
    solver = DenseEigensolver(max_rank=None)
    with pytest.raises(CapabilityError, match="strong form needs second derivatives") as refusal:
        solver.solve(rough_pencil(1.0, False), Once(), DenseGram())
    assert "Once with 1 continuous derivatives" in str(refusal.value)
    assert "reversible" in str(refusal.value)
    dirichlet = solver.solve(rough_pencil(1.0, True), Once(), DenseGram())
    assert float(dirichlet.values.real.max()) < 1e-9
    assert len(dirichlet.values) > 10
    transport = solver.solve(rough_pencil(0.0, False), Once(), DenseGram())
    assert len(transport.values) > 10


@pytest.mark.parametrize(("diffusion", "reversible"), [(1.0, False), (1.0, True), (0.0, False)])
def test_a_kernel_without_a_derivative_is_refused_always(diffusion, reversible):
    with pytest.raises(CapabilityError, match="too rough") as refusal:
        DenseEigensolver().solve(rough_pencil(diffusion, reversible), Never(), DenseGram())
    assert "Never with 0 continuous derivatives" in str(refusal.value)
