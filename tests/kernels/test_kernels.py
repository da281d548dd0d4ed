"""Kernels: their derivatives against automatic differentiation, positive definiteness, and the median bandwidth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.kernels.bandwidth import median_distance
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import check_shapes, generator_block, kernel_block, squared_distances
from kfpbench.protocols import Kernel

DIMENSIONS = [1, 3, 7]


def points(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(kernel: Kernel, x: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """k(x, c) of two vectors, by the profile alone."""
    return kernel.profile((x - centre).square().sum())[0]


def generator_by_autograd(kernel, x, centres, drift, matrix):
    """tr(a Hess k) + b . grad k, entry by entry."""
    rows = []
    for point, b in zip(x, drift, strict=True):
        row = []
        for centre in centres:
            jet = torch.func.grad(lambda z, c=centre: value(kernel, z, c))(point)
            hessian = torch.func.hessian(lambda z, c=centre: value(kernel, z, c))(point)
            row.append(torch.trace(matrix @ hessian) + b @ jet)
        rows.append(torch.stack(row))
    return torch.stack(rows)


# ---- the profile ----


@pytest.mark.parametrize("length", [0.1, 1.0, 30.0])
def test_profile_derivatives(length):
    kernel = RBF(bandwidth=length)
    s = (length**2 * torch.linspace(0.0, 20.0, 50, dtype=torch.float64)).requires_grad_(True)
    h, first, second = kernel.profile(s)
    (by_autograd,) = torch.autograd.grad(h.sum(), s, create_graph=True)
    torch.testing.assert_close(first, by_autograd, rtol=1e-12, atol=0.0)
    (twice,) = torch.autograd.grad(by_autograd.sum(), s)
    torch.testing.assert_close(second, twice, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(h, torch.exp(-s / (2 * length**2)), rtol=1e-12, atol=0.0)


def test_profile_keeps_shape_and_is_one_at_zero():
    h, first, second = RBF(bandwidth=2.0).profile(torch.zeros((2, 3, 4), dtype=torch.float64))
    assert h.shape == first.shape == second.shape == (2, 3, 4)
    assert float(h.min()) == 1.0
    assert float(first[0, 0, 0]) == -1.0 / 8.0
    assert float(second[0, 0, 0]) == 1.0 / 64.0


# ---- derivatives of k(., c) ----


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_kernel_value(dimension):
    kernel, x, centres = RBF(bandwidth=1.3), points(6, dimension), points(4, dimension, 1)
    expected = torch.stack([torch.stack([value(kernel, a, c) for c in centres]) for a in x])
    torch.testing.assert_close(kernel_block(kernel, x, centres), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_gradient(dimension):
    """With the drift e_s and no diffusion the generator is d/dx_s."""
    kernel, x, centres = RBF(bandwidth=1.3), points(6, dimension), points(4, dimension, 1)
    expected = torch.stack(
        [torch.stack([torch.func.grad(lambda z, c=c: value(kernel, z, c))(a) for c in centres]) for a in x]
    )
    for axis in range(dimension):
        drift = torch.zeros_like(x)
        drift[:, axis] = 1.0
        block = generator_block(kernel, x, centres, drift, Diffusion.constant(0.0))
        torch.testing.assert_close(block, expected[:, :, axis], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_laplacian(dimension):
    kernel, x, centres = RBF(bandwidth=0.9), points(5, dimension), points(4, dimension, 1)
    ones = torch.ones(dimension, dtype=torch.float64)
    expected = generator_by_autograd(kernel, x, centres, torch.zeros_like(x), torch.diag(ones))
    block = generator_block(kernel, x, centres, torch.zeros_like(x), Diffusion.constant(ones))
    torch.testing.assert_close(block, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kind", ["zero", "isotropic", "anisotropic", "degenerate"])
def test_generator(dimension, kind):
    kernel, x, centres = RBF(bandwidth=1.1), points(5, dimension), points(4, dimension, 1)
    drift = points(5, dimension, 2)
    diffusion = {
        "zero": torch.zeros(dimension, dtype=torch.float64),
        "isotropic": torch.full((dimension,), 0.7, dtype=torch.float64),
        "anisotropic": torch.linspace(0.2, 2.0, dimension, dtype=torch.float64),
        "degenerate": torch.linspace(0.0, 2.0, dimension, dtype=torch.float64),  # some axes do not diffuse
    }[kind]
    expected = generator_by_autograd(kernel, x, centres, drift, torch.diag(diffusion))
    block = generator_block(kernel, x, centres, drift, Diffusion.constant(diffusion))
    torch.testing.assert_close(block, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["zero", "isotropic", "anisotropic"])
def test_generator_at_the_centres_themselves(kind):
    """L k(., c) at c is 2 h'(0) tr(a): the drift does not act where the kernel has its maximum."""
    centres = points(4, 3)
    diffusion = {"zero": [0.0] * 3, "isotropic": [0.5] * 3, "anisotropic": [0.1, 1.0, 2.0]}[kind]
    diffusion = torch.tensor(diffusion, dtype=torch.float64)
    block = generator_block(RBF(bandwidth=0.8), centres, centres, points(4, 3, 5), Diffusion.constant(diffusion))
    expected = -diffusion.sum() / 0.8**2
    torch.testing.assert_close(block.diagonal(), expected.expand(4), rtol=1e-11, atol=1e-13)


def test_generator_leaves_its_arguments_as_they_were():
    arguments = [points(5, 3), points(4, 3, 1), points(5, 3, 2), torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64)]
    copies = [argument.clone() for argument in arguments]
    generator_block(RBF(bandwidth=1.0), *arguments[:3], Diffusion.constant(arguments[3]))
    kernel_block(RBF(bandwidth=1.0), *arguments[:2])
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


def test_squared_distances_far_from_the_origin():
    """Centring: at an offset of 1e6 the naive expansion would be off by 1e-4; here it is not."""
    x, centres = points(20, 4), points(10, 4, 1)
    shifted = squared_distances(x + 1e6, centres + 1e6)
    exact = ((x + 1e6)[:, None] - (centres + 1e6)[None]).square().sum(-1)
    torch.testing.assert_close(shifted, exact, rtol=1e-8, atol=1e-8)
    assert float(squared_distances(x, x).min()) >= 0.0


# ---- positive definiteness ----


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), dimension=st.integers(1, 8), length=st.floats(0.05, 20.0))
def test_gram_matrices_are_positive_semidefinite(seed, count, dimension, length):
    x = points(count, dimension, seed)
    gram = kernel_block(RBF(bandwidth=length), x, x)
    torch.testing.assert_close(gram, gram.T, rtol=0.0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(gram).min()) > -1e-12 * count
    assert float(gram.max()) <= 1.0


def test_gram_matrix_of_separate_points_is_positive_definite():
    grid = torch.cartesian_prod(*[torch.arange(5, dtype=torch.float64)] * 2)
    # off-diagonal sum: (sum_k exp(-k^2 / (2 * 0.16)))^2 - 1 < 0.19: Gershgorin
    assert float(torch.linalg.eigvalsh(kernel_block(RBF(bandwidth=0.4), grid, grid)).min()) > 0.8


# ---- the median bandwidth ----


@pytest.mark.parametrize(
    ("rows", "median"),
    [
        ([[0.0], [1.0], [3.0]], 2.0),  # distances 1, 2, 3
        ([[0.0, 0.0], [3.0, 4.0]], 5.0),
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 1.0),  # 1 four times, sqrt 2 twice
        ([[0.0], [0.0], [0.0], [1.0], [2.0], [4.0]], 2.0),  # 0 0 0 1 1 1 2 2 2 4 4 4 1 3 2
    ],
)
def test_median_of_known_configurations(rows, median):
    # torch takes the lower median; the last case sorts to 0 0 0 1 1 1 1 2 2 2 2 3 4 4 4, its 8th entry 2
    assert median_distance(torch.tensor(rows, dtype=torch.float64)) == pytest.approx(median, rel=1e-14)


@pytest.mark.parametrize("count", [2, 57, 1000])
def test_median_does_not_depend_on_the_order_below_the_limit(count):
    x = points(count, 3)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    assert median_distance(x[order]) == pytest.approx(median_distance(x), rel=1e-14)


def test_median_beyond_the_limit_takes_evenly_spaced_rows():
    """10,000 rows that repeat each of 1,000 ten times in a block: the subsample takes one of every block or so."""
    few = points(1000, 2)
    many = few.repeat_interleave(10, dim=0)
    assert median_distance(many) == pytest.approx(median_distance(few), rel=0.01)
    # rows that are never looked at do not matter, and memory does not grow with N
    assert median_distance(points(200_000, 2, 3)) == pytest.approx(math.sqrt(4 * math.log(2)), rel=0.05)


def test_median_of_gaussian_points():
    """|x - y|^2 / 2 is chi-square with d = 2: the median distance is 2 sqrt(ln 2); 1,000 rows give some 3 %."""
    assert median_distance(points(1000, 2)) == pytest.approx(2.0 * math.sqrt(math.log(2.0)), rel=0.05)


def test_median_scales_and_ignores_translations():
    x = points(100, 3)
    base = median_distance(x)
    assert median_distance(7.0 * x) == pytest.approx(7.0 * base, rel=1e-12)
    assert median_distance(x + 5.0) == pytest.approx(base, rel=1e-12)


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(5, 2),
        torch.ones(1, 2),
        torch.ones(0, 2),
        torch.full((4, 2), math.nan),
        torch.tensor([[0.0], [math.inf]]),
        torch.tensor([[0.0], [math.nan], [1.0]]),
    ],
    ids=["equal", "one", "none", "nan", "infinity", "one nan"],
)
def test_degenerate_points(rows):
    with pytest.raises(NumericalError, match="median distance"):
        median_distance(rows)
    with pytest.raises(NumericalError, match="median distance"):
        RBF("median").fit(rows)


# ---- parameters ----


def test_fit_returns_a_resolved_copy():
    kernel, x = RBF("median", factor=0.5), points(30, 2)
    fitted = kernel.fit(x)
    assert math.isnan(kernel.length)
    assert fitted.length == pytest.approx(0.5 * median_distance(x), rel=1e-14)
    assert fitted.describe() == {"bandwidth": "median", "factor": 0.5, "length": fitted.length}
    assert fitted.fit(2.0 * x).length == pytest.approx(2.0 * fitted.length, rel=1e-12)  # a fit may be repeated


def test_a_given_bandwidth_is_not_refitted():
    kernel = RBF(bandwidth=3.0, factor=2.0)
    assert kernel.length == 6.0
    assert kernel.fit(points(10, 2)).length == 6.0
    assert kernel.fit(torch.ones(5, 2)).length == 6.0


def test_profile_before_fit():
    with pytest.raises(ParameterError, match="not resolved"):
        RBF().profile(torch.zeros(3))


@pytest.mark.parametrize("bandwidth", [0, 0.0, -1.0, math.nan, math.inf, "mean", None, "1.0"])
def test_bad_bandwidth(bandwidth):
    with pytest.raises(ParameterError, match="bad bandwidth"):
        RBF(bandwidth=bandwidth)


@pytest.mark.parametrize("factor", [0.0, -2.0, math.nan, math.inf])
def test_bad_factor(factor):
    with pytest.raises(ParameterError, match="bad bandwidth factor"):
        RBF(factor=factor)


def test_contract():
    assert isinstance(RBF(), Kernel)
    assert RBF().smoothness == math.inf


@pytest.mark.parametrize(
    ("x", "centres", "drift", "diffusion"),
    [
        ((5, 3), (4, 2), None, None),
        ((5,), (4, 2), None, None),
        ((5, 3), (3,), None, None),
        ((5, 3), (4, 3), (4, 3), (3,)),
        ((5, 3), (4, 3), (5, 2), (3,)),
        ((5, 3), (4, 3), (5, 3), (1,)),
        ((5, 3), (4, 3), (5, 3), (2, 2)),
    ],
)
def test_shapes_are_checked(x, centres, drift, diffusion):
    arguments = [torch.zeros(shape) for shape in (x, centres, drift) if shape is not None]
    if diffusion is not None:
        arguments.append(Diffusion.constant(torch.zeros(diffusion)))
    with pytest.raises(ShapeError):
        check_shapes(*arguments)
