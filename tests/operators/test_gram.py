"""Gram operators: the tiled backend is the dense matrix, by its products, without ever holding it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.errors import ShapeError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.tiled import TiledGram
from kfpbench.protocols import Backend, GramOperator

KERNEL = RBF(bandwidth=1.2)
TILES = [1, 3, 7, 1000]
SHAPES = [(40, 9), (9, 40), (25, 25), (1, 13), (13, 1)]  # tall, wide, square, one row, one column


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operators(backend: Backend, n: int, m: int, d: int = 3) -> dict[str, GramOperator]:
    x, centres, drift = draw((n, d), 0), draw((m, d), 1), draw((n, d), 2)
    axes = torch.linspace(0.1, 1.5, d, dtype=torch.float64)
    return {
        "gram": backend.gram(KERNEL, x, centres),
        "transport": backend.generator_gram(KERNEL, x, centres, drift, 0.0 * axes),
        "isotropic": backend.generator_gram(KERNEL, x, centres, drift, torch.full_like(axes, 0.8)),
        "anisotropic": backend.generator_gram(KERNEL, x, centres, drift, axes),
    }


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-12 relative to the largest entry."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_tiled_equals_dense(tile, n, m):
    dense, tiled = operators(DenseGram(), n, m), operators(TiledGram(tile), n, m)
    for name, operator in dense.items():
        other = tiled[name]
        assert operator.shape == other.shape == (n, m)
        assert_equal(other.to_dense(), operator.to_dense())
        for columns in (1, 4):
            right, left = draw((m, columns), 3), draw((n, columns), 4)
            assert_equal(other.matmul(right), operator.to_dense() @ right)
            assert_equal(operator.matmul(right), operator.to_dense() @ right)
            assert_equal(other.transpose_matmul(left), operator.to_dense().T @ left)
            assert_equal(operator.transpose_matmul(left), operator.to_dense().T @ left)


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
    a = torch.tensor([0.3, 0.0, 2.0], dtype=torch.float64)
    none, still = torch.zeros(3, dtype=torch.float64), torch.zeros_like(b)

    def matrix(drift, diffusion):
        return TiledGram(5).generator_gram(KERNEL, x, centres, drift, diffusion).to_dense()

    assert_equal(matrix(2.0 * b - c, none), 2.0 * matrix(b, none) - matrix(c, none))
    assert_equal(matrix(b, 3.0 * a), matrix(b, none) + 3.0 * matrix(still, a))


class _LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.numel())
        return result


@pytest.mark.parametrize("name", ["gram", "transport", "isotropic", "anisotropic"])
def test_tiled_never_holds_the_matrix(name):
    n, m, tile, columns = 300, 200, 7, 2
    operator = operators(TiledGram(tile), n, m)[name]
    right, left = draw((m, columns), 3), draw((n, columns), 4)
    with _LargestTensor() as spy:
        operator.matmul(right)
        operator.transpose_matmul(left)
    # a block of tile x M, or the (n, columns) product itself and the (n, d) points, whichever is larger
    assert 0 < spy.largest <= max(tile * m, 3 * n)
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


@pytest.mark.parametrize("backend", [DenseGram(), TiledGram()], ids=["dense", "tiled"])
def test_contract(backend):
    assert isinstance(backend, Backend)
    assert all(isinstance(operator, GramOperator) for operator in operators(backend, 4, 3).values())
    x, centres = draw((5, 3), 0), draw((4, 2), 1)
    with pytest.raises(ShapeError, match="equally many columns"):
        backend.gram(KERNEL, x, centres)
    with pytest.raises(ShapeError, match="one drift vector"):
        backend.generator_gram(KERNEL, x, x, draw((4, 3), 0), torch.zeros(3))
    with pytest.raises(ShapeError, match="diffusion"):
        backend.generator_gram(KERNEL, x, x, x, torch.zeros(2))


def test_float32_stays_float32():
    x = draw((10, 2), 0).float()
    for backend in (DenseGram(), TiledGram(4)):
        assert backend.gram(KERNEL, x, x).matmul(x).dtype == torch.float32
        block = backend.generator_gram(KERNEL, x, x, x, torch.ones(2)).to_dense()
        assert block.dtype == torch.float32
        exact = backend.generator_gram(KERNEL, x.double(), x.double(), x.double(), torch.ones(2).double()).to_dense()
        assert float((block - exact).abs().max()) < 1e-4
