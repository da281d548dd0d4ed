from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

F64 = torch.float64


def linear(matrix: list[list[float]], count: int, seed: int) -> GalerkinPencil:
    """The generator of dx = A x dt + sqrt(2) dw on points drawn from N(0, I)."""
    a = torch.tensor(matrix, dtype=F64)
    x = torch.randn((count, len(a)), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return GalerkinPencil.uniform(x, x @ a.T, Diffusion.constant(1.0))


@pytest.fixture
def linear_pencil() -> Callable[[list[list[float]], int, int], GalerkinPencil]:
    return linear


@pytest.fixture
def ou_pencil() -> Callable[..., GalerkinPencil]:
    """Ornstein-Uhlenbeck, dx = -x dt + sqrt(2) dw: eigenvalues -n with multiplicity (n + d - 1 over n)."""

    def make(dimension: int, count: int = 500, seed: int = 0) -> GalerkinPencil:
        return linear((-torch.eye(dimension)).tolist(), count, seed)

    return make
