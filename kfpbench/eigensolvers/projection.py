"""The generator projected to features that are orthonormal in L2(q): the small matrix that LAPACK diagonalises.

With features F = [1, F_1, ...], F^T W F = I over the points, RKHS energies 1 / Lam_a of the F_a and the ridge gamma,
the Galerkin problem Phi^T W Psi v = lambda (Phi^T W Phi + gamma K_cc) v of Klus, Nueske, Hamzi (Entropy 22(7):722,
2020) reads S v = lambda B v with B = I + gamma / Lam diagonal and S = F^T W (L F), or, for a reversible generator, the
symmetric S = -sum_s (sigma_s . grad F)^T W (sigma_s . grad F), a = sum_s sigma_s sigma_s^T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Basis
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.principal import Principal
from kfpbench.errors import NumericalError
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

_TILE = 4096  # rows whose features are in memory at a time


def energies(strengths: Tensor, ridge: float) -> Tensor:
    """The diagonal of B, (r,): 1 for the constant, 1 + gamma / Lam for the others."""
    return torch.cat([strengths.new_ones(1), 1.0 + ridge / strengths])


def stiffness(pencil: GalerkinPencil, basis: Basis, on_points: Tensor) -> Tensor:
    """S (r, r). Cost O(N M (d + r)), reversible d times as much; memory O(tile (M + r)).

    Raises NumericalError when the generator's images are not finite.
    """
    total = on_points.new_zeros((basis.size, basis.size))
    transport = Diffusion.constant(on_points.new_zeros(()))
    for start in range(0, len(pencil.points), _TILE):
        rows = slice(start, start + _TILE)
        points, weights = pencil.points[rows], pencil.weights[rows, None]
        if pencil.reversible:
            for field in pencil.diffusion.rows(rows).to(points).root_fields(points):
                slopes = basis.images(points, field, transport)  # sigma_s . grad F
                total.addmm_(slopes.T, weights * slopes, alpha=-1.0)
        else:
            images = basis.images(points, pencil.drift[rows], pencil.diffusion.rows(rows))
            total.addmm_(on_points[rows].T, weights * images)
    if not bool(torch.isfinite(total).all()):
        raise NumericalError(
            "the generator's images of the kernel are not finite",
            remedy="Check the kernel's derivatives at distance 0, its declared smoothness, and the drift.",
        )
    return 0.5 * (total + total.T) if pencil.reversible else total


def projected_eigenpairs(
    pencil: GalerkinPencil, principal: Principal, ridge: float, diagnostics: dict[str, Any]
) -> Eigenpairs:
    """All eigenpairs of S v = lambda B v in principal functions; the ridge is relative to the mean of k(x, x).

    Cost O(r^3) beside that of ``stiffness``.
    """
    basis, on_points = principal.basis, principal.on_points
    mass = energies(principal.strengths, ridge * principal.size)
    matrix = stiffness(pencil, basis, on_points)
    if pencil.reversible:
        values, right, adjoint, condition = _symmetric(matrix, mass)
    else:
        values, right, adjoint, condition = _general(matrix, mass)
    diagnostics = {
        "rank": basis.size,
        "points": len(pencil.points),
        "eigenvector_condition": condition,
        **principal.diagnostics,
        **diagnostics,
    }
    flags = ("",) * len(values)
    return Eigenpairs(
        values,
        right,
        adjoint,
        basis,
        on_points,
        pencil.weights,
        flags,
        mass=mass if ridge > 0 else None,
        diagnostics=diagnostics,
    )


def order_of(values: Tensor) -> list[int]:
    """Indices that sort values by descending real part, conjugate pairs side by side, positive imaginary part first.

    Equal pairs are kept apart: (+, -, +, -), never (+, +, -, -).
    """
    listed = [complex(value) for value in values.tolist()]
    order = sorted(range(len(listed)), key=lambda k: (-listed[k].real, abs(listed[k].imag), -listed[k].imag))
    result: list[int] = []
    start = 0
    while start < len(order):
        head = listed[order[start]]
        stop = start
        while stop < len(order) and listed[order[stop]] in (head, head.conjugate()):
            stop += 1
        group = order[start:stop]
        upper = [k for k in group if listed[k].imag >= 0]
        lower = [k for k in group if listed[k].imag < 0]
        for place, index in enumerate(upper):
            result.append(index)
            if place < len(lower):
                result.append(lower[place])
        result += lower[len(upper) :]
        start = stop
    return result


def _general(matrix: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Values, right and adjoint vectors of S v = lambda B v, and the vectors' condition number in the 1-norm."""
    root = mass.sqrt()
    try:
        with threads_for(len(matrix)):
            values, right = torch.linalg.eig(matrix / root[:, None] / root[None, :])
            order = order_of(values)
            values, right = values[order], _with_phase(right[:, order])
            inverse = torch.linalg.inv(right)
        condition = float(torch.linalg.norm(right, 1) * torch.linalg.norm(inverse, 1))
    except torch.linalg.LinAlgError as error:
        raise NumericalError(
            f"the projected generator is not diagonalisable to working precision: {error}",
            remedy="Raise the eigensolver's ridge or truncation.",
        ) from error
    return values, right / root[:, None], inverse.mH / root[:, None], condition


def _with_phase(vectors: Tensor) -> Tensor:
    """Each column turned so that its largest entry is real and positive: the constant function becomes 1, not -1."""
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * (largest.conj() / largest.abs())


def _symmetric(matrix: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """The same for symmetric S: real values and orthonormal vectors, which are their own adjoints."""
    root = mass.sqrt()
    try:
        with threads_for(len(matrix)):
            values, vectors = torch.linalg.eigh(matrix / root[:, None] / root[None, :])
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the Dirichlet form could not be diagonalised: {error}") from error
    complex_type = torch.complex(values, values).dtype
    vectors = (_with_phase(vectors.flip(1)) / root[:, None]).to(complex_type)
    return values.flip(0).to(complex_type), vectors, vectors, 1.0
