"""Automatic Gram backend: the one of dense, keops and tiled that suits the size, the dimension and the device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.kernels.jet import has_formula
from kfpbench.operators.dense import DenseGram, DenseMatrix
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.keops import KeopsGram, KeopsMatrix, can_compile
from kfpbench.operators.pairwise import check_shapes
from kfpbench.operators.tiled import TiledGram, TiledMatrix
from kfpbench.protocols import Kernel

Choice = Literal["dense", "keops", "tiled"]

KEOPS_MAX_DIMENSION = {"cpu": 8, "cuda": 64}
"""The largest dimension in which ``auto`` takes KeOps, measured for cpu (see ``AutoGram``), assumed for cuda."""

KEOPS_MIN_PAIRS = 10**8
"""The number n M of pairs from which a product gains enough by KeOps to repay a compilation of about 10 s."""


class AutoGram:
    """Chooses for every operator:

    1. ``dense`` while its working memory is at most ``dense_limit_mib``: one matrix serves many products;
    2. else ``keops`` up to the device's ``KEOPS_MAX_DIMENSION``, for a kernel with a formula, where pykeops can be
       imported and finds a compiler, from ``KEOPS_MIN_PAIRS`` pairs;
    3. else ``tiled``.

    KeOps' time over tiled's for one product (RBF, n = M = 4000, p = 8 columns, float64, one thread of a CPU, median of
    3 interleaved runs on a busy machine, so good to some 30 %):

        d                          2     8    16    32   128
        Gram matrix              1.0   0.4   2.1   1.3   8.9
        generator's              1.0   0.6   2.1   2.1     -

    On CUDA the crossover has not been measured: its limit is an assumption.

    An operator says which it is in ``backend_name``. Memory and cost are those of the choice. Raises ParameterError
    for a limit that is negative.
    """

    lazy = False  # dense is among the choices, below the limit

    def __init__(self, dense_limit_mib: Annotated[float, Field(ge=0)] = 256.0) -> None:
        if not dense_limit_mib >= 0:
            raise ParameterError("AutoGram: bad dense_limit_mib", got=dense_limit_mib, allowed="0 or more")
        self.dense_limit_mib = dense_limit_mib
        self._dense, self._keops, self._tiled = DenseGram(), KeopsGram(), TiledGram()

    def choose(self, kernel: Kernel, n: int, centres: int, dimension: int, like: Tensor) -> Choice:
        """Which backend serves a matrix (n, M) of points in ``dimension`` coordinates, of the dtype and device of
        ``like``.
        """
        if self._dense_fits(n, centres, dimension, like.element_size()):
            return "dense"
        suits = dimension <= KEOPS_MAX_DIMENSION.get(like.device.type, 0) and n * centres >= KEOPS_MIN_PAIRS
        return "keops" if suits and has_formula(kernel) and can_compile() else "tiled"

    def gram(self, kernel: Kernel, x: Tensor, centres: Tensor) -> DenseMatrix | TiledMatrix | KeopsMatrix:
        """k(x_i, c_j). Raises ShapeError."""
        check_shapes(x, centres)
        return self._backend(kernel, x, centres).gram(kernel, x, centres)

    def generator_gram(
        self, kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion
    ) -> DenseMatrix | TiledMatrix | KeopsMatrix:
        """(L k(., c_j))(x_i). Raises ShapeError."""
        check_shapes(x, centres, drift, diffusion)
        return self._backend(kernel, x, centres).generator_gram(kernel, x, centres, drift, diffusion)

    def working_memory(self, n: int, centres: int, dimension: int, columns: int, itemsize: int) -> int:
        """Bytes: those of dense while they are within the limit, else the larger of tiled's and KeOps'."""
        if self._dense_fits(n, centres, dimension, itemsize):
            return self._dense.working_memory(n, centres, dimension, columns, itemsize)
        tiled = self._tiled.working_memory(n, centres, dimension, columns, itemsize)
        if dimension > max(KEOPS_MAX_DIMENSION.values()) or n * centres < KEOPS_MIN_PAIRS:
            return tiled
        return max(tiled, self._keops.working_memory(n, centres, dimension, columns, itemsize))

    def _dense_fits(self, n: int, centres: int, dimension: int, itemsize: int) -> bool:
        return self._dense.working_memory(n, centres, dimension, 1, itemsize) <= self.dense_limit_mib * 2**20

    def _backend(self, kernel: Kernel, x: Tensor, centres: Tensor) -> DenseGram | KeopsGram | TiledGram:
        backends: dict[str, DenseGram | KeopsGram | TiledGram] = {
            "dense": self._dense,
            "keops": self._keops,
            "tiled": self._tiled,
        }
        return backends[self.choose(kernel, len(x), len(centres), x.shape[1], x)]
