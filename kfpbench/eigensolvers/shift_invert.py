"""Shift-invert Arnoldi by ARPACK, its inner systems solved by preconditioned GMRES: the classic matrix-free way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs, gmres
from torch import Tensor

from kfpbench.eigensolvers.collocation import DampedCollocation
from kfpbench.eigensolvers.nystrom_preconditioner import NystromPreconditioner, real_columns

_RESTART = 30  # GMRES directions kept


class ShiftInvert:
    """R = (A - sigma B)^(-1) by GMRES with the Nystroem preconditioner on the right, one column at a time.

    The transposed systems likewise. ``solves`` counts systems, ``inner_iterations`` GMRES's steps, ``failures`` the
    systems that missed the tolerance.
    Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7:856 (1986).
    """

    def __init__(
        self,
        operator: DampedCollocation,
        preconditioner: NystromPreconditioner,
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self.operator, self.preconditioner = operator, preconditioner
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.solves = self.inner_iterations = self.failures = 0

    def values_map(self, values: Tensor) -> Tensor:
        """B R v: in the values v = B u of a function at the points the pencil is B R v = v / (lambda - sigma)."""
        return self.operator.mass(self.solve(values))

    def transposed_map(self, vectors: Tensor) -> Tensor:
        """R^T B y = y / (lambda - sigma), the transposed problem."""
        return self.solve_transposed(self.operator.mass(vectors))

    def solve(self, right: Tensor) -> Tensor:
        """R b of one column b (N, 1)."""
        shift = self.preconditioner.sigma

        def product(x: Tensor) -> Tensor:
            return self.operator.generator(x) - shift * self.operator.mass(x)

        return self._gmres(product, self.preconditioner.solve, right)

    def solve_transposed(self, right: Tensor) -> Tensor:
        """R^T b of one column b (N, 1)."""
        shift = self.preconditioner.sigma

        def product(x: Tensor) -> Tensor:
            return self.operator.generator_transposed(x) - shift * self.operator.mass(x)

        return self._gmres(product, self.preconditioner.solve_transposed, right)

    def _gmres(
        self, product: Callable[[Tensor], Tensor], approximate_inverse: Callable[[Tensor], Tensor], right: Tensor
    ) -> Tensor:
        # on the right, A M^(-1) z = b with x = M^(-1) z: the residual that GMRES watches is then the true one
        preconditioned = linear_operator(lambda z: product(approximate_inverse(z)), right)

        def count(_: object) -> None:
            self.inner_iterations += 1

        restart = min(_RESTART, self.max_iterations)
        z, info = gmres(
            preconditioned,
            right[:, 0].cpu().numpy(),
            rtol=self.tolerance,
            restart=restart,
            maxiter=-(-self.max_iterations // restart),
            callback=count,
            callback_type="pr_norm",
        )
        self.solves += 1
        self.failures += info != 0
        return approximate_inverse(_column(z, right))


def linear_operator(product: Callable[[Tensor], Tensor], like: Tensor) -> LinearOperator:
    """SciPy's view of a product with columns (N, 1) of a tensor's dtype and device."""

    def matvec(vector: NDArray[np.floating]) -> NDArray[np.floating]:
        result: NDArray[np.floating] = product(_column(vector, like))[:, 0].cpu().numpy()
        return result

    return LinearOperator((len(like), len(like)), matvec=matvec, dtype=like.cpu().numpy().dtype)


def arpack_vectors(
    inverse: ShiftInvert, start: tuple[Tensor, Tensor], wanted: int, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Real columns (N, p) that span ``wanted`` right (u) and left (y) eigenvectors.

    Arnoldi on B R for the values v = B u, whose norm is that of L2(q), then u = R v, and on its transpose for y. The
    first vector is the sum of the Nystroem eigenvectors ``start``. What ARPACK has found when it gives up is returned.
    Cost: (2 wanted + 2 a restart and more) x inner iterations x 2 passes over the kernel, on either side. Source:
    Lehoucq, Sorensen, Yang, ARPACK Users' Guide (1998).
    """
    right, left = start
    wanted = min(wanted, inverse.operator.order - 3)  # ARPACK needs k < N - 1 and room for a larger subspace
    if wanted < 1:
        return start
    first = inverse.operator.mass(right.sum(1, keepdim=True))
    found = _arnoldi(inverse.values_map, first, wanted, tolerance, max_iterations)
    solved = [inverse.solve(found[:, [k]]) for k in range(found.shape[1])]
    found = _arnoldi(inverse.transposed_map, left.sum(1, keepdim=True), wanted, tolerance, max_iterations)
    return torch.cat(solved, dim=1) if solved else right, found if found.shape[1] else left


def _arnoldi(
    product: Callable[[Tensor], Tensor], first: Tensor, wanted: int, tolerance: float, max_iterations: int
) -> Tensor:
    """A real basis of the eigenvectors (N, p) of largest |value| of a real operator that ARPACK has found."""
    try:
        values, vectors = eigs(
            linear_operator(product, first),
            k=wanted,
            v0=first[:, 0].cpu().numpy(),
            ncv=min(2 * wanted + 2, len(first)),
            maxiter=max_iterations,
            tol=tolerance,
        )
    except ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    except ArpackError:  # no shifts could be applied, or the first vector was an eigenvector: nothing was found
        return first[:, :0]
    return real_columns(torch.from_numpy(values), torch.from_numpy(vectors).to(first.device))


def _column(vector: NDArray[np.floating], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(vector)).to(like).reshape(-1, 1)
