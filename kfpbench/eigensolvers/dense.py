"""Dense eigensolver: LAPACK on the generator projected to the kernel's principal functions."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_ILL_CONDITIONED = 1e10  # eigenvectors beyond this condition number make every mode doubtful


class DenseEigensolver:
    """Psi v = lambda (K + gamma N I) v with centres = points and the constant function appended.

    With weights W, D = W^(1/2) and H = I - D 1 1^T D, the symmetric eigenpairs Q Lam of H D K D H give the features
    F = [1, k(., X) D Q (Lam + gamma)^(-1/2) - mean], orthonormal in the ridged RKHS norm. In them the generator is a
    matrix of order r + 1, the constant is an exact eigenfunction with value 0, and the ridge problem keeps its
    condition number instead of squaring it. Directions with Lam below ``truncation`` x max Lam are left out. The
    default is this spectral truncation alone: a ridge invents slow modes (Ornstein-Uhlenbeck with gamma = 1e-9 shows
    -0.04 and -0.3 ahead of -1), which solve the ridged problem exactly. ``max_rank`` keeps the leading directions.

    ``ridge`` (gamma) is relative to k(x, x). Cost O(N^3 + r^3) time, O(N^2) memory. Source: Klus, Nueske, Hamzi,
    "Kernel-Based Approximation of the Koopman Generator and Schroedinger Operator", Entropy 22(7):722 (2020), sec. 3.
    Raises CapabilityError for a kernel too rough for the operator, NumericalError when LAPACK fails.
    """

    def __init__(
        self,
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-6,
        max_rank: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        if not (ridge >= 0 and 0 < truncation < 1):
            raise ParameterError("dense: ridge must be at least 0, truncation in (0, 1)", got=(ridge, truncation))
        if max_rank is not None and max_rank < 1:
            raise ParameterError("dense: max_rank must be positive", got=max_rank, allowed="null, or 1 and more")
        self.ridge, self.truncation, self.max_rank = float(ridge), float(truncation), max_rank

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend) -> Eigenpairs:
        """All eigenpairs of the projected generator; the kernel is fitted to the points first."""
        needed = 2 if bool(pencil.diffusion.any()) else 1
        if kernel.smoothness < needed:
            raise CapabilityError(
                "the kernel is too rough for this operator in strong form",
                got=f"{kernel.smoothness:g} continuous derivatives",
                allowed=f"at least {needed}",
                remedy="Take a smoother kernel" + (", or eta = 0, which needs one derivative." if needed == 2 else "."),
            )
        kernel = kernel.fit(pencil.points)
        root = pencil.weights.sqrt()
        gram = backend.gram(kernel, pencil.points, pencil.points).to_dense()
        if not bool(torch.isfinite(gram).all()):
            raise NumericalError("the kernel is not finite on the points", got=kernel.describe())
        mean = pencil.weights @ gram  # (N,) = weighted mean of k(., x_j) over the points
        centred = gram - mean[:, None] - mean[None, :] + mean @ pencil.weights
        # D 1 has eigenvalue 0 in the centred Gram matrix, amid the smallest that are kept; lifted to the top it cannot
        # mix with them, where the division by (Lam + gamma)^(1/2) would blow the mixture up
        lift = 2.0 * float(gram.diagonal().mean())
        lifted = root[:, None] * (centred + lift) * root[None, :]
        directions, strengths = self._principal(lifted)
        transform = root[:, None] * directions / (strengths + self.ridge * float(gram.diagonal().mean())).sqrt()
        images = backend.generator_gram(kernel, pencil.points, pencil.points, pencil.drift, pencil.diffusion).matmul(
            transform
        )  # (N, r) = L of the features at the points
        if not bool(torch.isfinite(images).all()):
            raise NumericalError(
                "the generator's Gram matrix is not finite",
                got=kernel.describe(),
                remedy="Check h' and h'' of the kernel at distance 0, and its declared smoothness.",
            )
        rank = transform.shape[1]
        matrix = transform.new_zeros((rank + 1, rank + 1))
        matrix[0, 1:] = pencil.weights @ images
        matrix[1:, 1:] = transform.T @ images
        values, right, left, condition = _eigendecomposition(matrix)
        offset = mean @ transform
        return Eigenpairs(
            values,
            right,
            left,
            kernel,
            backend,
            pencil.points,
            transform,
            offset,
            pencil.weights,
            _flags(len(values), condition),
            {
                "kernel": kernel.describe(),
                "rank": rank + 1,
                "points": len(pencil.points),
                "eigenvector_condition": condition,
                "smallest_kept_gram_eigenvalue": float(strengths.min()),
            },
        )

    def _principal(self, gram: Tensor) -> tuple[Tensor, Tensor]:
        """Leading eigenvectors (N, r) and eigenvalues (r,) of the lifted Gram matrix, without the lifted constant."""
        try:
            with threads_for(len(gram)):
                strengths, directions = torch.linalg.eigh(gram)
        except torch.linalg.LinAlgError as error:
            raise NumericalError(f"the Gram matrix could not be diagonalised: {error}") from error
        rounding = len(strengths) * torch.finfo(strengths.dtype).eps * strengths[-1]
        strengths, directions = strengths.flip(0)[1:], directions.flip(1)[:, 1:]  # the first is the constant
        leading = strengths[:1]  # empty for a single point
        rank = int((strengths > self.truncation * leading).sum()) if bool((leading > rounding).any()) else 0
        rank = min(rank, self.max_rank or rank)
        if rank == 0:
            raise NumericalError(
                "the kernel is constant on the points: no function besides the constant is left",
                remedy="Take a smaller bandwidth, or check the points.",
            )
        return directions[:, :rank], strengths[:rank]


def _eigendecomposition(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Sorted values, right vectors, their inverse, and the vectors' condition number in the 1-norm."""
    try:
        with threads_for(len(matrix)):
            values, right = torch.linalg.eig(matrix)
            listed = values.tolist()
            order = sorted(range(len(listed)), key=lambda k: (-listed[k].real, abs(listed[k].imag), -listed[k].imag))
            values, right = values[order], right[:, order]
            left = torch.linalg.inv(right)
        condition = float(torch.linalg.norm(right, 1) * torch.linalg.norm(left, 1))
    except torch.linalg.LinAlgError as error:
        raise NumericalError(
            f"the projected generator is not diagonalisable to working precision: {error}",
            remedy="Raise the eigensolver's ridge or truncation.",
        ) from error
    return values, right, left, condition


def _flags(count: int, condition: float) -> tuple[str, ...]:
    """The same doubt about every value when rounding may have moved them; a task that has held-out points says more.

    A positive real part is no fault by itself: the points' density is not invariant, and reverse drifts expand.
    """
    doubt = f"eigenvectors have condition number {condition:.1e}" if condition > _ILL_CONDITIONED else ""
    return (doubt,) * count
