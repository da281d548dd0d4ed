"""Eigenvalues, eigenfunctions and adjoint eigenfunctions of a projected generator, as callables on new points."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Basis
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

Status = Literal["converged", "not converged"]


@dataclass(frozen=True)
class Eigenpairs:
    """L phi_k = values_k phi_k with phi_k = F right_k, and adjoints psi_k = F adjoint_k, <psi_k, phi_l> = delta_kl.

    <u, v> = sum_i W_i conj(u(x_i)) v(x_i) over the fitted points, with the solver's ridge. psi_k is an eigenfunction of
    the adjoint in L2(q); the Fokker-Planck eigenfunction is q psi_k.

    Shapes: values (K,) complex, sorted by descending real part with conjugate pairs side by side (positive imaginary
    part first); right and adjoint (r, K) complex in the basis F of r functions; on_points (N, r) = F at the fitted
    points; weights (N,); mass (r,) the diagonal of the ridged Gram matrix B of an orthonormal basis, None where there
    is no ridge or no such basis. ``flags`` holds the solver's own doubt, or "", for each value; ``status`` says whether
    an iteration converged.
    """

    values: Tensor
    right: Tensor
    adjoint: Tensor
    basis: Basis
    on_points: Tensor
    weights: Tensor
    flags: tuple[str, ...]
    status: Status = "converged"
    iterations: int = 0
    diagnostics: dict[str, Any] = field(default_factory=dict)
    mass: Tensor | None = None

    def eigenfunctions(self, x: Tensor) -> Tensor:
        """phi_k at points x (n, d): (n, K) complex. Cost that of the features."""
        return self.basis.features(x).to(self.right.dtype) @ self.right

    def adjoint_functions(self, x: Tensor) -> Tensor:
        """psi_k at points x (n, d): (n, K) complex, relative to the sample density q."""
        return self.basis.features(x).to(self.adjoint.dtype) @ self.adjoint

    def generator_images(self, pencil: GalerkinPencil) -> Tensor:
        """(L phi_k) at the points of a pencil, from the kernel's derivatives: (n, K) complex."""
        images = self.basis.images(pencil.points, pencil.drift, pencil.diffusion)
        return images.to(self.right.dtype) @ self.right

    def coefficients(self, observable: Tensor) -> Tensor:
        """<psi_k, u> (K, p) complex of an observable u at the fitted points (N, p): u ~ sum_k phi_k <psi_k, u>."""
        moments = self.on_points.T @ (self.weights[:, None] * observable)  # (r, p)
        return self.adjoint.mH @ moments.to(self.adjoint.dtype)

    def take(self, indices: list[int]) -> Eigenpairs:
        """Some of the pairs, in the order given."""
        chosen = torch.tensor(indices, dtype=torch.long, device=self.values.device)
        return replace(
            self,
            values=self.values[chosen],
            right=self.right[:, chosen],
            adjoint=self.adjoint[:, chosen],
            flags=tuple(self.flags[index] for index in indices),
        )

    def slowest(self, count: int) -> Eigenpairs:
        """At most ``count`` pairs, those of smallest |value|, in their order here; a conjugate pair is not split."""
        if count >= len(self.values):
            return self
        kept: list[int] = []
        partner = conjugate_partners(self.values)
        for index in torch.argsort(self.values.abs(), stable=True).tolist():
            pair = sorted({index, partner[index]})
            if index not in kept and len(kept) + len(pair) <= count:
                kept += pair
            elif index not in kept:
                break
        return self.take(sorted(kept))


def conjugate_partners(values: Tensor) -> list[int]:
    """For each value the index of its conjugate, its own for a real one; equal pairs are matched in order."""
    listed = values.tolist()
    partner = list(range(len(listed)))
    waiting: dict[complex, list[int]] = {}
    for index, value in enumerate(listed):
        value = complex(value)
        if value.imag == 0.0:
            continue
        mates = waiting.get(value.conjugate())
        if mates:
            mate = mates.pop(0)
            partner[index], partner[mate] = mate, index
        else:
            waiting.setdefault(value, []).append(index)
    return partner


@runtime_checkable
class Eigensolver(Protocol):
    """Solves the Galerkin eigenproblem of a frozen generator on sampled points: the interface of such plugins.

    A solver that never finds all pairs of its projection says ``partial = True``: functions of the whole operator
    cannot be taken by it.
    """

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """Fit the kernel to the pencil's points, then find eigenpairs of the projected generator.

        ``n_eigs`` is how many of the slowest the caller wants, at least; None: all that the projection has.
        """

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Predicted peak bytes of ``solve``, besides the pencil."""
