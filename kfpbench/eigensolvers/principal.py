"""Principal functions of a kernel on weighted points: the orthonormal features that eigensolvers project to.

The centred covariance of the RKHS under the points' density has eigenvalues Lam_a (strengths) and eigenfunctions F_a
with F^T W F = I and RKHS energy 1 / Lam_a (Schoelkopf, Smola, Mueller, "Nonlinear Component Analysis as a Kernel
Eigenvalue Problem", 1998). The constant function is kept apart, as the first feature: a decaying kernel's RKHS lacks
it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.basis import Basis, KernelBasis
from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.errors import NumericalError, ParameterError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_POINTS_PER_FUNCTION = 4
_DIRICHLET_POWER = 0.4  # of N: functions in the Dirichlet form of draws
_KERNEL_ROUNDING = 8.0  # in eps: strengths below this share of the largest are made of rounding
_LOW_RANK = 0.35  # of N: up to here a pivoted Cholesky factor is cheaper than all eigenvectors
_LINEAR = 0.999  # share of the variance in d directions from which the model counts as linear


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


class Regularised:
    """What solvers on principal functions share: how many of these are kept, and how they are damped.

    Functions with Lam below ``truncation`` x max Lam are left out. At most ``max_rank`` are kept; ``auto`` is a quarter
    of the points where these are draws (equal weights): with more, functions that follow the accidents of a sample
    take part; N^0.4 in the Dirichlet form, whose entries carry the sample's noise; a quadrature rule has no such limit,
    nor has null. ``ridge`` (gamma, relative to the mean of k(x, x))
    damps the rest. The default is truncation alone: a ridge invents slow modes (Ornstein-Uhlenbeck with gamma = 1e-9
    shows -0.04 and -0.3 ahead of -1), which solve the ridged problem exactly.
    """

    def __init__(
        self,
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-10,
        max_rank: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto",
    ) -> None:
        name = type(self).__name__
        if not (ridge >= 0 and 0 < truncation < 1):
            raise ParameterError(f"{name}: ridge must be at least 0, truncation in (0, 1)", got=(ridge, truncation))
        if max_rank is not None and max_rank != "auto" and max_rank < 1:
            raise ParameterError(f"{name}: max_rank must be positive", got=max_rank, allowed="auto, null, 1 and more")
        self.ridge, self.truncation, self.max_rank = float(ridge), float(truncation), max_rank

    def resolved(self, pencil: GalerkinPencil) -> Self:
        """A copy whose ``max_rank`` is a number or None, for the points of a pencil."""
        if self.max_rank != "auto":
            return self
        count = len(pencil.points)
        limit = count**_DIRICHLET_POWER if pencil.reversible else count / _POINTS_PER_FUNCTION
        changed = copy.copy(self)
        changed.max_rank = max(int(limit), 1) if pencil.has_draws else None
        return changed

    def kept(self, strengths: Tensor, rounding: float) -> int:
        """How many of the descending strengths are kept; ``rounding`` is their absolute error.

        None that is at the rounding of the kernel's own values: in float32 that is far above the truncation.

        Raises NumericalError when nothing besides the constant function is left.
        """
        leading = float(strengths[0]) if len(strengths) else 0.0
        truncation = max(self.truncation, _KERNEL_ROUNDING * torch.finfo(strengths.dtype).eps)
        rank = int((strengths > max(truncation * leading, rounding)).sum()) if leading > rounding else 0
        if isinstance(self.max_rank, int):
            rank = min(rank, self.max_rank)
        if rank == 0:
            raise NumericalError(
                "the kernel is constant on the points: no function besides the constant is left",
                remedy="Take a smaller bandwidth, or check the points: they may all be equal.",
            )
        return rank


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
        size = float(gram.diagonal().mean())
        return _principal_of_factor(kernel, backend, points, weights, points[pivots], whitening, lower, size, solver)
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
    """Principal functions within the span of sections k(., c_j): singular values of D (k(X, C) K_cc^(-1/2) - mean).

    Cost O(N M^2 + M^3) time, O(N M) memory.
    """
    whitening = inverse_root(kernel, backend, centres)  # (M, m)
    sections = finite(backend.gram(kernel, points, centres).matmul(whitening), kernel)
    size = float(backend.gram(kernel, centres, centres).diagonal().mean())
    return _principal_of_factor(kernel, backend, points, weights, centres, whitening, sections, size, solver)


def _principal_of_factor(
    kernel: Kernel,
    backend: Backend,
    points: Tensor,
    weights: Tensor,
    centres: Tensor,
    whitening: Tensor,
    sections: Tensor,
    size: float,
    solver: Regularised,
) -> Principal:
    """Principal functions within the RKHS-orthonormal k(., C) whitening (M, m), whose values are sections (N, m)."""
    mean = weights @ sections
    root = weights.sqrt()[:, None]
    try:
        with threads_for(sections.shape[1]):
            left, singular, right = torch.linalg.svd(root * (sections - mean), full_matrices=False)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the features could not be decomposed: {error}") from error
    strengths = singular.square()
    rounding = (len(points) * torch.finfo(singular.dtype).eps) ** 2 * size  # sections are of order size^(1/2)
    rank = solver.kept(strengths, rounding)
    mixing = right[:rank].T / singular[:rank]
    basis = KernelBasis(kernel, backend, centres, whitening @ mixing, mean @ mixing)
    share = linear_share(strengths, points.shape[1])
    return Principal(basis, with_constant(left[:, :rank] / root), strengths[:rank], size, share)


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


def rounding_of(strengths: Tensor) -> float:
    """Absolute rounding error of descending strengths."""
    return len(strengths) * torch.finfo(strengths.dtype).eps * float(strengths[0]) if len(strengths) else 0.0


def with_constant(functions: Tensor) -> Tensor:
    """[1, F] (N, r)."""
    return torch.cat([torch.ones_like(functions[:, :1]), functions], dim=1)


def finite(gram: Tensor, kernel: Kernel) -> Tensor:
    """The matrix itself. Raises NumericalError when it holds NaN or infinity."""
    if not bool(torch.isfinite(gram).all()):
        raise NumericalError("the kernel is not finite on the points", got=kernel.describe())
    return gram


def linear_share(strengths: Tensor, dimension: int) -> dict[str, Any]:
    """The share of the kernel's variance in its d leading functions, and a warning where the model is all but linear.

    A bandwidth much larger than the data leaves d linear functions and little else: Ornstein-Uhlenbeck looks perfect,
    and nothing else does.
    """
    total = float(strengths.clamp_min(0.0).sum())
    share = float(strengths[:dimension].sum()) / total if total > 0 else 1.0
    warning = "the bandwidth is so large that the model is linear" if share > _LINEAR else ""
    return {"linear_share": share, **({"warning": warning} if warning else {})}
