"""Principal functions of a kernel on weighted points: the orthonormal features that eigensolvers project to.

The centred covariance of the RKHS under the points' density has eigenvalues Lam_a (strengths) and eigenfunctions F_a
with F^T W F = I and RKHS energy 1 / Lam_a (Schoelkopf, Smola, Mueller, "Nonlinear Component Analysis as a Kernel
Eigenvalue Problem", 1998). The constant function is kept apart, as the first feature: a decaying kernel's RKHS lacks
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Basis, KernelBasis
from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.principal_axes import principal_axes
from kfpbench.eigensolvers.regularised import Regularised, linear_share
from kfpbench.errors import NumericalError
from kfpbench.operators.pairwise import kernel_diagonal
from kfpbench.protocols import Backend, Kernel

_LOW_RANK = 0.35  # of N: up to here a pivoted Cholesky factor is cheaper than all eigenvectors


@dataclass(frozen=True)
class Principal:
    """Features [1, F] with their values on the points (N, r) and the strengths Lam (r - 1,), descending.

    ``size`` is the mean of k(x, x), the unit of the ridge.
    """

    basis: Basis
    on_points: Tensor
    strengths: Tensor
    size: float
    diagnostics: dict[str, Any]


def principal_of_gram(
    kernel: Kernel, backend: Backend, points: Tensor, weights: Tensor, solver: Regularised
) -> Principal:
    """Principal functions from the Gram matrix of all points: D^(-1) Q with H D K D H = Q Lam Q^T, D = W^(1/2).

    F = k(., X) D Q Lam^(-1) - mean. Where the matrix has rank r < 0.35 N to rounding, its pivoted Cholesky factor gives
    the same functions from r centres, more accurately, in O(N r^2); else cost O(N^3). Memory O(N^2).
    """
    root = weights.sqrt()
    gram = finite(backend.gram(kernel, points, points).to_dense(), kernel)
    factor = pivoted_cholesky(gram)
    if factor is not None:
        lower, pivots = factor
        identity = torch.eye(len(pivots), dtype=gram.dtype)
        whitening = torch.linalg.solve_triangular(lower[pivots].T, identity, upper=True)  # L_pp^(-T)
        return _within_sections(kernel, backend, points, weights, points[pivots], whitening, lower.__getitem__, solver)
    mean = weights @ gram  # (N,) = weighted mean of k(., x_j) over the points
    # D 1 has eigenvalue 0 in the centred Gram matrix, amid the smallest that are kept; lifted to the top it cannot
    # mix with them, where the division by Lam would blow the mixture up
    lift = 2.0 * float(gram.diagonal().mean()) + float(mean @ weights)
    lifted = (gram - mean[:, None] - mean[None, :] + lift).mul_(root[:, None]).mul_(root[None, :])
    try:
        with threads_for(len(lifted)):
            strengths, directions = torch.linalg.eigh(lifted)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the Gram matrix could not be diagonalised: {error}") from error
    rounding = len(strengths) * torch.finfo(strengths.dtype).eps * float(strengths[-1])
    strengths, directions = strengths.flip(0)[1:], directions.flip(1)[:, 1:]  # the first is the constant
    rank = solver.kept(strengths, rounding)
    share = linear_share(strengths, points.shape[1])
    strengths, directions = strengths[:rank], directions[:, :rank]
    transform = root[:, None] * directions / strengths
    basis = KernelBasis(kernel, backend, points, transform, mean @ transform)
    size = float(gram.diagonal().mean())
    return Principal(basis, with_constant(directions / root[:, None]), strengths, size, share)


def principal_of_sections(
    kernel: Kernel, backend: Backend, points: Tensor, weights: Tensor, centres: Tensor, solver: Regularised
) -> Principal:
    """Principal functions within the span of sections k(., c_j): those of the features k(x, C) K_cc^(-1/2).

    Blocks of the Gram matrix are made for a tile of rows at a time, whatever the backend. Cost O(N M (d + M) + M^3)
    time, O(N M) memory.
    """
    whitening = inverse_root(kernel, backend, centres)  # (M, m)

    def features(rows: slice) -> Tensor:
        return finite(backend.gram(kernel, points[rows], centres).to_dense(), kernel) @ whitening

    return _within_sections(kernel, backend, points, weights, centres, whitening, features, solver)


def _within_sections(
    kernel: Kernel,
    backend: Backend,
    points: Tensor,
    weights: Tensor,
    centres: Tensor,
    whitening: Tensor,
    features: Callable[[slice], Tensor],
    solver: Regularised,
) -> Principal:
    """Principal functions within k(., C) whitening (M, m), orthonormal in the RKHS; ``features`` are its values."""
    found = principal_axes(features, whitening.shape[1], points, weights, solver)
    basis = KernelBasis(kernel, backend, centres, whitening @ found.axes, found.offset)
    size = float(kernel_diagonal(kernel, points, points).mean())
    return Principal(basis, found.on_points, found.strengths, size, found.diagnostics)


def pivoted_cholesky(gram: Tensor) -> tuple[Tensor, Tensor] | None:
    """K = L L^T to rounding: L (N, r) and its pivots (r,); None off the CPU or for r >= 0.35 N, where it does not pay.

    LAPACK's pstrf: stops where no diagonal entry of the Schur complement exceeds 8 eps max k(x, x). Cost O(N r^2).
    """
    if gram.device.type != "cpu" or len(gram) < 3:
        return None
    from scipy.linalg import lapack

    values = gram.numpy()
    tolerance = 8.0 * torch.finfo(gram.dtype).eps * float(gram.diagonal().max())
    routine = lapack.dpstrf if gram.dtype == torch.float64 else lapack.spstrf
    factor, order, rank, _ = routine(values, tol=tolerance, lower=1)
    if rank >= _LOW_RANK * len(gram) or rank < 1:
        return None
    pivots = torch.from_numpy(order.astype("int64") - 1)
    lower = gram.new_zeros((len(gram), int(rank)))
    lower[pivots] = torch.from_numpy(factor[:, : int(rank)].copy()).tril()
    return lower, pivots[: int(rank)]


def inverse_root(kernel: Kernel, backend: Backend, centres: Tensor) -> Tensor:
    """U Lam^(-1/2) (M, m) of K_cc = U Lam U^T: functions k(., C) U Lam^(-1/2) are orthonormal in the RKHS.

    Directions at rounding level are left out: repeated centres are harmless. Cost O(M^3).
    """
    gram = finite(backend.gram(kernel, centres, centres).to_dense(), kernel)
    try:
        with threads_for(len(gram)):
            levels, axes = torch.linalg.eigh(0.5 * (gram + gram.T))
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the Gram matrix of the centres could not be diagonalised: {error}") from error
    rounding = len(levels) * torch.finfo(levels.dtype).eps * levels[-1]
    sound = levels > rounding
    return (axes[:, sound] / levels[sound].sqrt()).flip(1)


def with_constant(functions: Tensor) -> Tensor:
    """[1, F] (N, r)."""
    return torch.cat([torch.ones_like(functions[:, :1]), functions], dim=1)


def finite(gram: Tensor, kernel: Kernel) -> Tensor:
    """The matrix itself. Raises NumericalError when it holds NaN or infinity."""
    if not bool(torch.isfinite(gram).all()):
        raise NumericalError("the kernel is not finite on the points", got=kernel.describe())
    return gram
