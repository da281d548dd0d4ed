"""The working memory that a backend states is an upper bound of what its products take."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.tiled import TiledGram
from kfpbench.protocols import Backend

N, M, D, COLUMNS = 700, 500, 6, 4
KERNELS = {
    "rbf": RBF(bandwidth=1.5),
    "matern52": Matern52(bandwidth=1.5),
    "rational_quadratic": RationalQuadratic(bandwidth=1.5),
}


class _LiveBytes(TorchDispatchMode):
    """The peak of the bytes of storages that operations made and that were still alive, whoever frees them."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[torch.UntypedStorage, int]] = {}
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in given:
                    self.live[storage._cdata] = (storage._weak_ref(), storage.nbytes())
        for key, (reference, _) in list(self.live.items()):
            if torch.UntypedStorage._expired(reference):
                torch.UntypedStorage._free_weak_ref(reference)
                del self.live[key]
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def peak_of(backend: Backend, kernel, diffusion: Diffusion | None) -> int:
    x, centres, drift, right = draw(N, D, seed=0), draw(M, D, seed=1), draw(N, D, seed=2), draw(M, COLUMNS, seed=3)
    with _LiveBytes() as spy:
        if diffusion is None:
            operator = backend.gram(kernel, x, centres)
        else:
            operator = backend.generator_gram(kernel, x, centres, drift, diffusion)
        operator.matmul(right)
    return spy.peak - 8 * N * COLUMNS  # its result is not counted


@pytest.mark.parametrize("backend", [DenseGram(), TiledGram(40), TiledGram()], ids=["dense", "tiled 40", "tiled"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("kind", ["gram", "transport", "isotropic", "diagonal"])
def test_products_stay_within_the_stated_memory(backend, kernel, kind):
    diffusion = {
        "gram": None,
        "transport": Diffusion.constant(0.0),
        "isotropic": Diffusion.constant(0.5),
        "diagonal": Diffusion.constant(torch.linspace(0.1, 1.0, D, dtype=torch.float64)),
    }[kind]
    stated, peak = backend.working_memory(N, M, D, COLUMNS, 8), peak_of(backend, kernel, diffusion)
    assert peak <= stated
    if kind == "diagonal":
        assert peak >= 0.3 * stated  # and the bound is no idle one
