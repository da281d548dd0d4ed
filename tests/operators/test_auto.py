"""The automatic backend: which one it takes, and that the choice is the matrix itself."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import ParameterError, ShapeError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators import auto
from kfpbench.operators.auto import KEOPS_MAX_DIMENSION, KEOPS_MIN_PAIRS, AutoGram
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import Backend

KERNEL = RBF(bandwidth=1.0)
SIDE = math.isqrt(KEOPS_MIN_PAIRS)
LIMIT = KEOPS_MAX_DIMENSION["cpu"]
LIKE = torch.zeros(0, dtype=torch.float64)


class _Blocks:
    smoothness = math.inf
    max_dim = 8


@pytest.fixture
def compiler(monkeypatch):
    """Whether KeOps is there is no part of these tests."""
    monkeypatch.setattr(auto, "can_compile", lambda: True)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("n", "dimension", "choice"),
    [
        (100, 2, "dense"),
        (100, 3000, "dense"),
        (SIDE - 1, 2, "tiled"),  # too small to repay a compilation
        (SIDE, 2, "keops"),
        (SIDE, LIMIT, "keops"),
        (SIDE, LIMIT + 1, "tiled"),
    ],
)
def test_choice_by_size_and_dimension(n, dimension, choice):
    assert AutoGram().choose(KERNEL, n, n, dimension, LIKE) == choice


@pytest.mark.usefixtures("compiler")
def test_choice_by_formula():
    assert AutoGram().choose(_Blocks(), SIDE, SIDE, 2, LIKE) == "tiled"


def test_choice_without_a_compiler(monkeypatch):
    monkeypatch.setattr(auto, "can_compile", lambda: False)
    assert AutoGram().choose(KERNEL, SIDE, SIDE, 2, LIKE) == "tiled"


def test_dense_up_to_its_limit():
    """The limit is on the working memory, so that single precision goes further."""
    for dtype in (torch.float64, torch.float32):
        like = torch.zeros(0, dtype=dtype)
        for n in (500, 1000):
            needed = DenseGram().working_memory(n, n, 3, 1, like.element_size()) / 2**20
            assert AutoGram(dense_limit_mib=needed).choose(KERNEL, n, n, 3, like) == "dense"
            assert AutoGram(dense_limit_mib=0.999 * needed).choose(KERNEL, n, n, 3, like) == "tiled"


@pytest.mark.parametrize(("limit", "name"), [(256.0, "dense"), (0.0, "tiled")])
def test_operators_say_what_they_are(limit, name):
    generator = torch.Generator().manual_seed(0)
    x, drift = (torch.randn((30, 3), generator=generator, dtype=torch.float64) for _ in range(2))
    backend, diffusion = AutoGram(dense_limit_mib=limit), Diffusion.constant(0.5)
    gram, image = backend.gram(KERNEL, x, x[:7]), backend.generator_gram(KERNEL, x, x[:7], drift, diffusion)
    assert gram.backend_name == image.backend_name == name
    torch.testing.assert_close(gram.to_dense(), DenseGram().gram(KERNEL, x, x[:7]).to_dense())
    expected = DenseGram().generator_gram(KERNEL, x, x[:7], drift, diffusion).to_dense()
    torch.testing.assert_close(image.to_dense(), expected)


def test_working_memory_is_bounded_by_the_limit_while_dense():
    backend, limit = AutoGram(), 256 * 2**20
    sizes = [backend.working_memory(n, n, 8, 1, 8) for n in (100, 500, 1000, 1500)]
    assert sizes == sorted(sizes)
    assert sizes[-1] <= limit
    n = 50_000
    assert backend.working_memory(n, n, 8, 1, 8) < 8 * n * n / 20  # not of the order of the matrix


def test_contract():
    assert isinstance(AutoGram(), Backend)
    x = torch.zeros((4, 2))
    with pytest.raises(ShapeError, match="equally many columns"):
        AutoGram().gram(KERNEL, x, torch.zeros((4, 3)))
    with pytest.raises(ShapeError, match="diffusion"):
        AutoGram().generator_gram(KERNEL, x, x, x, Diffusion.constant(torch.zeros(3)))


@pytest.mark.parametrize("limit", [-1.0, math.nan])
def test_bad_limit(limit):
    with pytest.raises(ParameterError, match="dense_limit_mib"):
        AutoGram(dense_limit_mib=limit)
