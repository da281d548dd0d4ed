"""Gram operators: every backend is the dense matrix, by its products; the lazy ones never hold it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.kernels.jet import has_formula
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.product import Product
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.scaled import Scaled
from kfpbench.kernels.sum import Sum
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.keops import KeopsGram
from kfpbench.operators.tiled import TiledGram
from kfpbench.protocols import Backend, GramOperator, Kernel
from kfpbench.registry import available, find

KERNEL = RBF(bandwidth=1.2)
TILES = [1, 3, 7, 1000]
SHAPES = [(40, 9), (9, 40), (25, 25), (1, 13), (13, 1), (1, 1), (0, 5), (5, 0)]
# Parameters of registered kernels that cannot be made without, or whose defaults leave part of their formula out.
PARAMETERS = {
    "sum": {"kernels": [RBF(bandwidth=0.9), Polynomial(degree=2, length=2.0)]},
    "product": {"kernels": [RBF(bandwidth=1.7), Polynomial(degree=2, length=2.0)]},
    "scaled": {"kernel": "rbf", "variance": 2.5},
    "ard": {"kernel": "matern52", "scales": "mahalanobis"},
    "gpytorch": {"module": "RBFKernel", "lengthscale": 1.1},
}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def registered_kernels() -> dict[str, Kernel]:
    """Every registered kernel with a formula, fitted on correlated points."""
    points = draw((60, 3), 20) @ (torch.eye(3, dtype=torch.float64) + 0.3)
    made = {name: find("kernels", name).load()(**PARAMETERS.get(name, {})) for name in sorted(available("kernels"))}
    return {name: kernel.fit(points) for name, kernel in made.items() if has_formula(kernel)}


def diffusions(n: int, d: int = 3) -> dict[str, Diffusion]:
    factors = draw((n + 1, d, d), 7)
    squares = factors @ factors.mT
    return {
        "transport": Diffusion.constant(0.0),
        "isotropic": Diffusion.constant(0.8),
        "diagonal": Diffusion.constant(torch.linspace(0.0, 1.5, d, dtype=torch.float64)),
        "matrix": Diffusion.constant(squares[-1]),
        "isotropic at points": Diffusion.at_points(draw((n,), 8).square()),
        "diagonal at points": Diffusion.at_points(draw((n, d), 9).square()),
        "matrix at points": Diffusion.at_points(squares[:n]),
    }


def operators(backend: Backend, n: int, m: int, d: int = 3) -> dict[str, GramOperator]:
    x, centres, drift = draw((n, d), 0), draw((m, d), 1), draw((n, d), 2)
    made = {"gram": backend.gram(KERNEL, x, centres)}
    for name, diffusion in diffusions(n, d).items():
        made[name] = backend.generator_gram(KERNEL, x, centres, drift, diffusion)
    return made


def assert_equal(actual: torch.Tensor, expected: torch.Tensor, relative: float = 1e-12) -> None:
    """To a tolerance relative to the largest entry."""
    assert actual.shape == expected.shape
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    assert float((actual - expected).abs().max() if expected.numel() else 0.0) <= relative * scale


def assert_same_operator(actual: GramOperator, expected: GramOperator, relative: float, columns: int = 3) -> None:
    """Both products, rows, diagonal and the matrix itself."""
    matrix = expected.to_dense()
    n, m = matrix.shape
    right, left, indices = draw((m, columns), 3), draw((n, columns), 4), torch.arange(n - 1, -1, -2)
    assert actual.shape == (n, m)
    assert_equal(actual.matmul(right), matrix @ right, relative)
    assert_equal(actual.transpose_matmul(left), matrix.T @ left, relative)
    assert_equal(actual.rows(indices), matrix[indices], relative)
    assert_equal(actual.to_dense(), matrix, relative)
    if n == m:
        assert_equal(actual.diagonal(), matrix.diagonal(), relative)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_tiled_equals_dense(tile, n, m):
    dense, tiled = operators(DenseGram(), n, m), operators(TiledGram(tile), n, m)
    for name, operator in dense.items():
        for columns in (0, 1, 4):
            assert_same_operator(tiled[name], operator, 1e-12, columns)
            assert_same_operator(operator, operator, 1e-12, columns)


# ---- KeOps: it compiles some 10 s of processor time for a formula, so that a sum stands for all kernels ----


@pytest.fixture(scope="module")
def keops() -> KeopsGram:
    return KeopsGram()


def test_keops_takes_every_registered_formula(keops):
    """The sum of all kernels, each with a weight of its own of order one: a wrong term would be seen at 1e-10. Those
    that are made of others have slow tests of their own, as have transposes and other diffusions.
    """
    composed = {"sum", "product", "scaled", "gpytorch"}
    kernels = {name: kernel for name, kernel in registered_kernels().items() if name not in composed}
    assert {"rbf", "matern32", "matern52", "matern72", "rational_quadratic", "inverse_multiquadric"} <= set(kernels)
    weighted = {name: Scaled(kernel, 0.5 + 0.1 * place) for place, (name, kernel) in enumerate(kernels.items())}
    x, centres, drift = draw((23, 3), 0), draw((17, 3), 1), draw((23, 3), 2)
    every = Sum(list(weighted.values()))
    assert_same_operator(keops.gram(every, x, centres), DenseGram().gram(every, x, centres), 1e-10)
    smooth = Sum([kernel for kernel in weighted.values() if kernel.smoothness >= 2])
    arguments, right = (smooth, x, centres, drift, diffusions(23)["diagonal"]), draw((17, 3), 3)
    expected = DenseGram().generator_gram(*arguments).matmul(right)
    assert_equal(keops.generator_gram(*arguments).matmul(right), expected, 1e-10)


def test_keops_cuts_and_pads_columns(keops):
    """Few formulas serve any number of columns, one point, and one centre."""
    for n, m, columns in [(19, 11, 8), (19, 11, 3), (1, 7, 5), (7, 1, 5), (1, 1, 2)]:
        x, centres = draw((n, 3), 0), draw((m, 3), 1)
        matrix = DenseGram().gram(KERNEL, x, centres)
        right = draw((m, columns), 3)
        assert_equal(keops.gram(KERNEL, x, centres).matmul(right), matrix.matmul(right), 1e-12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("columns", [1, 9, 50])
def test_keops_takes_many_columns(keops, columns):
    x, right = draw((19, 3), 0), draw((19, columns), 3)
    assert_equal(keops.gram(KERNEL, x, x).matmul(right), DenseGram().gram(KERNEL, x, x).matmul(right), 1e-12)


@pytest.mark.parametrize(("n", "m", "columns"), [(0, 5, 2), (5, 0, 2), (0, 0, 1), (5, 4, 0)])
def test_keops_of_nothing_compiles_nothing(keops, n, m, columns):
    for operator in operators(keops, n, m).values():
        assert torch.equal(operator.matmul(draw((m, columns), 3)), torch.zeros((n, columns), dtype=torch.float64))
        assert operator.transpose_matmul(draw((n, columns), 4)).shape == (m, columns)
        assert operator.to_dense().shape == operator.rows(torch.arange(n)).shape == (n, m)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(registered_kernels()))
def test_keops_equals_dense_for_every_kernel(keops, name):
    kernel = registered_kernels()[name]
    x, centres, drift = draw((23, 3), 0), draw((17, 3), 1), draw((23, 3), 2)
    assert_same_operator(keops.gram(kernel, x, centres), DenseGram().gram(kernel, x, centres), 1e-10)
    for kind in ("transport", "isotropic") if kernel.smoothness >= 2 else ("transport",):
        arguments = (kernel, x, centres, drift, diffusions(23)[kind])
        assert_same_operator(keops.generator_gram(*arguments), DenseGram().generator_gram(*arguments), 1e-10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", sorted(diffusions(1)))
def test_keops_equals_dense_for_every_diffusion(keops, kind):
    kernel = Product([RBF(bandwidth=1.4), Polynomial(degree=2, length=2.0)])  # two arguments: their cross term too
    x, centres, drift = draw((23, 3), 0), draw((17, 3), 1), draw((23, 3), 2)
    arguments = (kernel, x, centres, drift, diffusions(23)[kind])
    assert_same_operator(keops.generator_gram(*arguments), DenseGram().generator_gram(*arguments), 1e-10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_warm_up_compiles_what_the_product_needs(keops):
    x, drift = draw((30, 3), 0), draw((30, 3), 2)
    diffusion = Diffusion.at_points(torch.cat([torch.zeros(29), torch.ones(1)]))  # its first points do not diffuse
    keops.warm_up(KERNEL, x, x, drift, diffusion, columns=5)
    operator = keops.generator_gram(KERNEL, x, x, drift, diffusion)
    import pykeops

    def compiled() -> set[str]:
        return {path.name for path in Path(pykeops.get_build_folder()).glob("pykeops_cpp_*.cpp")}

    before = compiled()
    assert_equal(operator.matmul(draw((30, 5), 3)), operator.to_dense() @ draw((30, 5), 3))
    assert compiled() == before


class _Blocks:
    """A kernel without a formula."""

    smoothness = float("inf")
    max_dim = 3

    def fit(self, points):
        return self

    def describe(self):
        return {}

    def block(self, x, centres):
        return KERNEL.profile((x[:, None] - centres[None]).square().sum(-1))[0]

    def generator_block(self, x, centres, drift, diffusion):
        return DenseGram().generator_gram(KERNEL, x, centres, drift, diffusion).to_dense()


def test_a_kernel_without_a_formula(keops):
    x, drift = draw((70, 3), 0), draw((70, 3), 2)
    with pytest.raises(CapabilityError, match=r"formula.*tiled"):
        keops.gram(_Blocks(), x, x)
    with pytest.raises(CapabilityError, match=r"formula.*tiled"):
        keops.generator_gram(_Blocks(), x, x, drift, Diffusion.constant(1.0))
    for backend in (DenseGram(), TiledGram(13)):  # these take its blocks
        assert_same_operator(backend.gram(_Blocks(), x, x), DenseGram().gram(KERNEL, x, x), 1e-12)
        arguments = (x, x, drift, Diffusion.constant(0.7))
        expected = DenseGram().generator_gram(KERNEL, *arguments)
        assert_same_operator(backend.generator_gram(_Blocks(), *arguments), expected, 1e-12)


def test_without_pykeops(keops, monkeypatch):
    monkeypatch.setitem(sys.modules, "pykeops", None)
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    with pytest.raises(CapabilityError, match=r"cannot import pykeops.*Install pykeops and a C"):
        keops.gram(KERNEL, draw((3, 2), 0), draw((3, 2), 0))


def test_a_kernel_too_rough_for_diffusion():
    x = draw((5, 2), 0)
    for backend in (DenseGram(), TiledGram(), KeopsGram()):
        with pytest.raises(CapabilityError, match="derivatives"):
            backend.generator_gram(Matern32(bandwidth=1.0), x, x, x, Diffusion.constant(1.0)).matmul(x)


# ---- algebra ----


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), m=st.integers(1, 30), d=st.integers(1, 5), tile=st.integers(1, 40))
def test_transpose_is_the_adjoint(n, m, d, tile):
    """<A u, v> = <u, A^T v>, for any shape and tile."""
    for operator in operators(TiledGram(tile), n, m, d).values():
        u, v = draw((m, 1), 5), draw((n, 1), 6)
        right = float((u * operator.transpose_matmul(v)).sum())
        scale = float(operator.to_dense().abs().max()) * n * m
        assert float((operator.matmul(u) * v).sum()) == pytest.approx(right, abs=1e-13 * scale)


@pytest.mark.parametrize("backend", [DenseGram(), TiledGram(5)], ids=["dense", "tiled"])
def test_products_do_not_change_the_operator(backend):
    """In-place arithmetic inside a product must not leak into the next one."""
    for operator in operators(backend, 17, 11).values():
        right, before = draw((11, 2), 3), operator.to_dense().clone()
        first = operator.matmul(right).clone()
        operator.transpose_matmul(draw((17, 2), 4))
        assert torch.equal(operator.matmul(right), first)
        assert torch.equal(operator.to_dense(), before)


def test_generator_is_linear_in_drift_and_diffusion():
    x, centres = draw((12, 3), 0), draw((8, 3), 1)
    b, c = draw((12, 3), 2), draw((12, 3), 3)
    axes = torch.tensor([0.3, 0.0, 2.0], dtype=torch.float64)
    a, thrice, none, still = Diffusion.constant(axes), Diffusion.constant(3.0 * axes), Diffusion.constant(0.0), 0.0 * b

    def matrix(drift, diffusion):
        return TiledGram(5).generator_gram(KERNEL, x, centres, drift, diffusion).to_dense()

    assert_equal(matrix(2.0 * b - c, none), 2.0 * matrix(b, none) - matrix(c, none))
    assert_equal(matrix(b, thrice), matrix(b, none) + 3.0 * matrix(still, a))


class _LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.numel())
        return result


@pytest.mark.parametrize("name", ["gram", *diffusions(1)])
def test_tiled_never_holds_the_matrix(name):
    n, m, tile, columns = 300, 200, 7, 2
    operator = operators(TiledGram(tile), n, m)[name]
    right, left = draw((m, columns), 3), draw((n, columns), 4)
    with _LargestTensor() as spy:
        operator.matmul(right)
        operator.transpose_matmul(left)
    # a block of tile x M, pairs of axes of M centres, or d x d at n points, whichever is larger
    assert 0 < spy.largest <= max(tile * m, 9 * m, 9 * n)
    with _LargestTensor() as spy:
        operators(DenseGram(), n, m)[name].matmul(right)
    assert spy.largest == n * m  # the spy does see a whole matrix


def test_the_kernel_is_never_asked_for_more_than_a_tile():
    seen = []

    class Spy(RBF):
        def profile(self, squared_distance):
            seen.append(tuple(squared_distance.shape))
            return super().profile(squared_distance)

    TiledGram(7).gram(Spy(bandwidth=1.0), draw((20, 2), 0), draw((50, 2), 1)).matmul(draw((50, 1), 2))
    assert seen == [(7, 50), (7, 50), (6, 50)]


@pytest.mark.parametrize("backend", [DenseGram(), TiledGram(), KeopsGram()], ids=["dense", "tiled", "keops"])
def test_contract(backend):
    assert isinstance(backend, Backend)
    assert all(isinstance(operator, GramOperator) for operator in operators(backend, 4, 3).values())
    x, centres = draw((5, 3), 0), draw((4, 2), 1)
    with pytest.raises(ShapeError, match="equally many columns"):
        backend.gram(KERNEL, x, centres)
    with pytest.raises(ShapeError, match="one drift vector"):
        backend.generator_gram(KERNEL, x, x, draw((4, 3), 0), Diffusion.constant(0.0))
    with pytest.raises(ShapeError, match="diffusion"):
        backend.generator_gram(KERNEL, x, x, x, Diffusion.constant(torch.zeros(2)))


def test_float32_stays_float32():
    x = draw((10, 2), 0).float()
    for backend in (DenseGram(), TiledGram(4)):
        assert backend.gram(KERNEL, x, x).matmul(x).dtype == torch.float32
        block = backend.generator_gram(KERNEL, x, x, x, Diffusion.constant(torch.ones(2))).to_dense()
        assert block.dtype == torch.float32
        exact = backend.generator_gram(KERNEL, x.double(), x.double(), x.double(), Diffusion.constant(1.0)).to_dense()
        assert float((block - exact).abs().max()) < 1e-4
