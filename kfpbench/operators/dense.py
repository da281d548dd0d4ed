"""Dense Gram backend: the matrix is built once and kept."""

from __future__ import annotations

from torch import Tensor

from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import check_shapes, generator_block, kernel_block
from kfpbench.protocols import Kernel


class DenseMatrix:
    """A matrix (n, M) in memory. matmul costs O(n M p)."""

    backend_name = "dense"

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))

    def matmul(self, right: Tensor) -> Tensor:
        """Matrix times right (M, p) -> (n, p)."""
        return self.matrix @ right

    def transpose_matmul(self, left: Tensor) -> Tensor:
        """Transposed matrix times left (n, p) -> (M, p)."""
        return self.matrix.T @ left

    def rows(self, indices: Tensor) -> Tensor:
        """Some rows, (m, M)."""
        return self.matrix[indices]

    def diagonal(self) -> Tensor:
        """The diagonal (n,) of a square matrix."""
        return self.matrix.diagonal()

    def to_dense(self) -> Tensor:
        """The matrix itself."""
        return self.matrix


class DenseGram:
    """Builds every Gram matrix once, by matrix products, and keeps it: fastest up to a few thousand points.

    Shapes: x (n, d), centres (M, d), drift (n, d) -> (n, M) in the type of x, on its device. O(n M d) time, O(n M)
    memory, the formulas of ``kfpbench.operators.pairwise``. Raises ShapeError for mismatched operands, CapabilityError
    for a kernel without the derivatives that the generator needs.
    """

    lazy = False

    def gram(self, kernel: Kernel, x: Tensor, centres: Tensor) -> DenseMatrix:
        """k(x_i, c_j). Raises ShapeError."""
        check_shapes(x, centres)
        return DenseMatrix(kernel_block(kernel, x, centres))

    def generator_gram(
        self, kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion
    ) -> DenseMatrix:
        """(L k(., c_j))(x_i). Raises ShapeError."""
        check_shapes(x, centres, drift, diffusion)
        return DenseMatrix(generator_block(kernel, x, centres, drift, diffusion))

    def working_memory(self, n: int, centres: int, dimension: int, columns: int, itemsize: int) -> int:
        """Bytes: at most 10 arrays of the matrix' size while it is made, for a kernel of one argument."""
        return itemsize * (10 * n * centres + 4 * (n + centres) * dimension)
