"""Nystroem preconditioner of the damped collocation pencil, and the eigenvectors from which an iteration starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.principal import principal_of_sections
from kfpbench.eigensolvers.regularised import Regularised
from kfpbench.errors import NumericalError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_NEGLECTED = 1e-4  # functions this much weaker than the damped ones are as good as damped away
_START_RANK = 600  # principal functions in whose span the first eigenvectors are sought: LAPACK then takes a second


class NystromPreconditioner:
    """M ~ A - sigma B of ``DampedCollocation`` with the kernel replaced by its projection to the sections of M centres.

    With Q (N, r) orthonormal, the values of the principal functions F of those sections times W^(1/2), the constant s
    first, strengths Lam (r,) (1 for the constant) and images G = W^(1/2) (L F) Lam:

        B ~ Q Lam Q^T,  A ~ G Q^T - kappa (I - s s^T),  M = (G - sigma Q Lam + kappa s e_0^T) Q^T - kappa I

    M x = b is solved exactly: in the span of Q by an LU factorisation of order r, outside by division by -kappa. That
    is Woodbury's formula in an orthonormal basis, which does not cancel when kappa is small. Units: ``strength`` is the
    largest Lam, ``rate`` = ||A||_F / ||B||_F of the approximation without the constant is the operator's typical rate,
    kappa = damping x strength x rate, sigma = shift x rate.

    Cost O(N M^2 + M^3) to build, O(N r p) for p right-hand sides, memory 2 N r. Source: Frangella, Tropp, Udell,
    "Randomized Nystroem Preconditioning", SIAM J. Matrix Anal. Appl. 44(2):718 (2023), there for symmetric matrices.
    Raises NumericalError when the kernel is constant or not finite on the points, or the operator vanishes on them.
    """

    def __init__(
        self,
        pencil: GalerkinPencil,
        kernel: Kernel,
        backend: Backend,
        centres: Tensor,
        damping: float,
        shift: float,
    ) -> None:
        kept = Regularised(truncation=_NEGLECTED * damping, max_rank=None)
        principal = principal_of_sections(kernel, backend, pencil.points, pencil.weights, centres, kept)
        root = pencil.weights.sqrt()[:, None]
        images = root * principal.basis.images(pencil.points, pencil.drift, pencil.diffusion)
        if not bool(torch.isfinite(images).all()):
            raise NumericalError(
                "the generator's images of the kernel are not finite",
                remedy="Check the kernel's derivatives at distance 0, its declared smoothness, and the drift.",
            )
        self.functions = root * principal.on_points  # Q (N, r)
        self.strengths = torch.cat([root.new_ones(1), principal.strengths])  # (r,)
        self.stiffness = self.functions.T @ images  # S (r, r)
        images *= self.strengths
        self.strength = float(principal.strengths[0])
        self.rate = float(images.norm() / principal.strengths.norm())
        if not self.rate > 0:
            raise NumericalError(
                "the generator vanishes on the points: drift and diffusion are zero",
                remedy="Check the drift and the diffusion.",
            )
        self.kappa, self.sigma = damping * self.strength * self.rate, shift * self.rate
        self.ridge = damping * self.strength
        self.diagnostics: dict[str, Any] = principal.diagnostics
        images -= self.sigma * self.strengths * self.functions
        images[:, 0] += self.kappa * self.functions[:, 0]
        self._images = images
        core = self.functions.T @ images
        core.diagonal().sub_(self.kappa)
        with threads_for(len(core)):
            self._factors, self._pivots = torch.linalg.lu_factor(core)

    @property
    def rank(self) -> int:
        """r."""
        return len(self.strengths)

    def solve(self, right: Tensor) -> Tensor:
        """M^(-1) b of columns b (N, p)."""
        inside = self._core(self.functions.T @ right, adjoint=False)
        rest = self._images @ inside - right
        return self.functions @ inside + self._outside(rest) / self.kappa

    def solve_transposed(self, right: Tensor) -> Tensor:
        """M^(-T) b of columns b (N, p)."""
        rest = self._outside(right) / (-self.kappa)
        inside = self._core(self.functions.T @ right - self._images.T @ rest, adjoint=True)
        return self.functions @ inside + rest

    def solve_mass(self, right: Tensor, ridge: float) -> Tensor:
        """(Q Lam Q^T + ridge I)^(-1) b of columns b (N, p)."""
        damped = (self.strengths / (self.strengths + ridge))[:, None]
        return (right - self.functions @ (damped * (self.functions.T @ right))) / ridge

    def start(self, count: int) -> tuple[Tensor, Tensor]:
        """Right u and left y, real columns (N, p) that span the ``count`` eigenvectors nearest to the shift.

        Those of the generator projected to the leading principal functions, S - kappa / Lam.
        """
        rank = min(_START_RANK, self.rank)
        strengths = self.strengths[:rank]
        matrix = self.stiffness[:rank, :rank].clone()
        matrix.diagonal()[1:].sub_(self.kappa / strengths[1:])
        right, left = (_nearest(side, self.sigma, count) for side in (matrix, matrix.T))
        width = min(right.shape[1], left.shape[1])
        functions = self.functions[:, :rank]
        return functions @ (right[:, :width] / strengths[:, None]), functions @ left[:, :width]

    def _core(self, right: Tensor, adjoint: bool) -> Tensor:
        return torch.linalg.lu_solve(self._factors, self._pivots, right, adjoint=adjoint)

    def _outside(self, vectors: Tensor) -> Tensor:
        """(I - Q Q^T) x; twice, so that rounding within the span is not divided by kappa."""
        vectors = vectors - self.functions @ (self.functions.T @ vectors)
        return vectors - self.functions @ (self.functions.T @ vectors)


def real_columns(values: Tensor, vectors: Tensor) -> Tensor:
    """Real vectors that span the complex ones (n, p): real and imaginary parts, once for a conjugate pair; (n, p')."""
    columns = []
    for index, value in enumerate(values.tolist()):
        column = vectors[:, index]
        if value.imag == 0.0:
            columns.append(column.real)
        elif value.imag > 0.0:
            columns += [column.real, column.imag]
    return torch.stack(columns, dim=1) if columns else vectors.real[:, :0]


def nearest(values: Tensor, shift: float, count: int) -> list[int]:
    """Indices of the ``count`` values nearest to a real shift, conjugate pairs whole (so perhaps one more)."""
    listed = [complex(value) for value in values.tolist()]
    order = sorted(range(len(listed)), key=lambda k: (abs(listed[k] - shift), abs(listed[k].imag), -listed[k].imag))
    chosen = order[:count]
    upper = sum(listed[k].imag > 0 for k in chosen)
    lower = sum(listed[k].imag < 0 for k in chosen)
    if upper != lower and count < len(order):
        chosen.append(order[count])
    return chosen


def _nearest(matrix: Tensor, shift: float, count: int) -> Tensor:
    """A real basis of the eigenspace of a small matrix that belongs to the ``count`` values nearest to the shift."""
    try:
        with threads_for(len(matrix)):
            values, vectors = torch.linalg.eig(matrix)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the generator on the preconditioner's centres has no eigenvectors: {error}") from error
    chosen = nearest(values, shift, count)
    return real_columns(values[chosen], vectors[:, chosen])
