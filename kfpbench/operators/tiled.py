"""Tiled Gram backend: GEMM blocks made, used and forgotten; never the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.operators.pairwise import check_shapes, generator_block, kernel_block
from kfpbench.protocols import Kernel


class TiledMatrix:
    """A matrix (n, M) known by its row blocks, (rows of a slice) -> (rows, M). Memory O(tile M)."""

    def __init__(self, shape: tuple[int, int], tile: int, block: Callable[[slice], Tensor]) -> None:
        self.shape = shape
        self._tile = tile
        self._block = block

    def _slices(self) -> Iterator[slice]:
        for start in range(0, self.shape[0], self._tile):
            yield slice(start, min(start + self._tile, self.shape[0]))

    def matmul(self, right: Tensor) -> Tensor:
        """Matrix times right (M, p) -> (n, p)."""
        result = right.new_empty((self.shape[0], right.shape[1]))
        for rows in self._slices():
            torch.matmul(self._block(rows), right, out=result[rows])
        return result

    def transpose_matmul(self, left: Tensor) -> Tensor:
        """Transposed matrix times left (n, p) -> (M, p)."""
        result = left.new_zeros((self.shape[1], left.shape[1]))
        for rows in self._slices():
            result.addmm_(self._block(rows).T, left[rows])
        return result

    def to_dense(self) -> Tensor:
        """The whole matrix, for solvers that need it: O(n M) memory after all."""
        return torch.cat([self._block(rows) for rows in self._slices()])


class TiledGram:
    """Recomputes row blocks of ``tile`` rows at every product: O(n M d) time a product, O(tile M) memory."""

    def __init__(self, tile: Annotated[int, Field(ge=1)] = 2048) -> None:
        self.tile = tile

    def gram(self, kernel: Kernel, x: Tensor, centres: Tensor) -> TiledMatrix:
        """k(x_i, c_j). Raises ShapeError."""
        check_shapes(x, centres)
        return TiledMatrix((len(x), len(centres)), self.tile, lambda rows: kernel_block(kernel, x[rows], centres))

    def generator_gram(
        self, kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Tensor
    ) -> TiledMatrix:
        """(L k(., c_j))(x_i). Raises ShapeError."""
        check_shapes(x, centres, drift, diffusion)
        return TiledMatrix(
            (len(x), len(centres)),
            self.tile,
            lambda rows: generator_block(kernel, x[rows], centres, drift[rows], diffusion),
        )
