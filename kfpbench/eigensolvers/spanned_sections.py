"""Eigenvectors of the collocation pencil as Eigenpairs wants them: combinations of a few functions of the RKHS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import KernelBasis
from kfpbench.eigensolvers.block_davidson import RitzVectors
from kfpbench.eigensolvers.collocation import DampedCollocation
from kfpbench.eigensolvers.eigenpairs import conjugate_partners
from kfpbench.eigensolvers.nystrom_preconditioner import NystromPreconditioner
from kfpbench.eigensolvers.principal import with_constant
from kfpbench.errors import NumericalError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_FIT_TOLERANCE = 1e-8  # of the normal equations
_FIT_RIDGE = 1e-2  # of the fit of left vectors, in units of damping x max Lam: below what the damping resolves
_FIT_ITERATIONS = 20  # passes over the kernel at most


@dataclass(frozen=True)
class Spanned:
    """The basis [1, functions of right vectors, functions of left vectors], F at the points, coordinates (r, K)."""

    basis: KernelBasis
    on_points: Tensor
    right: Tensor
    adjoint: Tensor
    diagnostics: dict[str, Any]


def spanned_sections(
    pencil: GalerkinPencil,
    kernel: Kernel,
    backend: Backend,
    operator: DampedCollocation,
    preconditioner: NystromPreconditioner,
    right: RitzVectors,
    left: RitzVectors,
) -> Spanned:
    """phi = c + sections of right vectors u; psi the functions nearest to the values of left vectors y, paired.

    A left vector is known by its values at the points alone. Its function solves (B + ridge I) x = y, kernel ridge
    regression by conjugate gradients; ``adjoint_misfit`` is the largest ||B x - y|| / ||y||, what of the values is too
    rough for the RKHS. Then the psi are biorthogonalised once more: <psi_k, phi_l> = delta_kl over the points, phi_k of
    norm 1 in L2(q). The eigenvector condition is ||Phi|| ||Psi||, that of the projection to the K pairs. Cost: the
    passes of the fit and one more. Raises NumericalError when the adjoint functions are dependent.
    """
    columns, phase = real_span(right.values, right.vectors)
    adjoint_values, adjoint_phase = real_span(left.values, left.vectors)
    ridge = _FIT_RIDGE * preconditioner.kappa / preconditioner.rate
    adjoint_columns, misfit = regression(operator, preconditioner, adjoint_values, ridge)
    span = torch.cat([columns, adjoint_columns], dim=1)
    transform, functions = operator.sections(span)
    offset = pencil.weights @ functions
    on_points = with_constant(functions - offset)  # F (N, r)
    blocks = torch.block_diag(phase, adjoint_phase)  # (r - 1, 2 K)
    blocks = torch.cat([(operator.root @ span).to(blocks.dtype)[None] @ blocks, blocks])  # the constants first
    phi, psi = blocks[:, : len(right.values)], blocks[:, len(right.values) :]
    gram = (on_points.T @ (pencil.weights[:, None] * on_points)).to(blocks.dtype)
    phi = phi / _norms(phi, gram)
    try:
        psi = psi @ torch.linalg.inv(phi.mH @ gram @ psi)  # (Psi^H Phi) = 1
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the adjoint functions are linearly dependent: {error}") from error
    condition = _operator_norm(phi, gram) * _operator_norm(psi, gram)
    details = {"eigenvector_condition": condition, "adjoint_misfit": misfit}
    return Spanned(KernelBasis(kernel, backend, pencil.points, transform, offset), on_points, phi, psi, details)


def real_span(values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Real columns (N, p) that span complex vectors (N, K), and these vectors' coordinates (p, K)."""
    partner = conjugate_partners(values)
    columns: list[Tensor] = []
    places: list[tuple[int, int, complex]] = []
    for index, mate in enumerate(partner):
        if mate < index:
            continue
        start = len(columns)
        columns.append(vectors[:, index].real)
        places.append((start, index, 1.0))
        if float(values[index].imag) != 0.0:
            columns.append(vectors[:, index].imag)
            places.append((start + 1, index, 1.0j))
        if mate > index:
            places += [(start, mate, 1.0), (start + 1, mate, -1.0j)]
    coordinates = vectors.new_zeros((len(columns), len(partner)))
    rows, places_of, entries = zip(*places, strict=True)
    coordinates[list(rows), list(places_of)] = torch.tensor(entries, dtype=vectors.dtype, device=vectors.device)
    return torch.stack(columns, dim=1), coordinates


def regression(
    operator: DampedCollocation, preconditioner: NystromPreconditioner, values: Tensor, ridge: float
) -> tuple[Tensor, float]:
    """(B + ridge I)^(-1) y of columns y (N, p) by conjugate gradients, and the misfit ||B x - y|| / ||y||, the largest.

    All columns share a pass over the kernel; steps are taken column by column.
    """
    norms = values.norm(dim=0)
    result = preconditioner.solve_mass(values, ridge)
    images = operator.mass(result)
    rest = values - images - ridge * result
    direction = preconditioner.solve_mass(rest, ridge)
    weight = (rest * direction).sum(0)
    for _ in range(_FIT_ITERATIONS):
        if bool((rest.norm(dim=0) <= _FIT_TOLERANCE * norms).all()):
            break
        product = operator.mass(direction)
        step = weight / (direction * (product + ridge * direction)).sum(0)
        step = torch.nan_to_num(step)  # a column that is solved has no direction left
        result, images = result + step * direction, images + step * product
        rest = values - images - ridge * result
        image = preconditioner.solve_mass(rest, ridge)
        weight, previous = (rest * image).sum(0), weight
        direction = image + torch.nan_to_num(weight / previous) * direction
    return result, float(((values - images).norm(dim=0) / norms).max())


def _norms(coordinates: Tensor, gram: Tensor) -> Tensor:
    return (coordinates.conj() * (gram @ coordinates)).sum(0).real.sqrt()


def _operator_norm(coordinates: Tensor, gram: Tensor) -> float:
    """The largest singular value of functions as columns in L2(q)."""
    return float(torch.linalg.eigvalsh(coordinates.mH @ gram @ coordinates)[-1].clamp_min(0.0).sqrt())
