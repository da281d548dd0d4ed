"""Eigenvalues and eigenfunctions of a projected generator, as callables on new points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel


@dataclass(frozen=True)
class Eigenpairs:
    """L phi_k = values_k phi_k with phi_k = F right_k in the features F(x) = [1, k(x, X) transform - offset].

    Shapes: values (K,) complex, sorted by descending real part with conjugate pairs side by side (positive imaginary
    part first); right (r + 1, K) and left (K, r + 1) complex, left @ right = I; centres (N, d), transform (N, r),
    offset (r,), weights (N,). ``flags`` holds one reason, or "", for each value.
    """

    values: Tensor
    right: Tensor
    left: Tensor
    kernel: Kernel
    backend: Backend
    centres: Tensor
    transform: Tensor
    offset: Tensor
    weights: Tensor
    flags: tuple[str, ...]
    diagnostics: dict[str, Any] = field(default_factory=dict)

    def eigenfunctions(self, x: Tensor) -> Tensor:
        """phi_k at points x (n, d): (n, K) complex. Cost O(n N (d + r))."""
        features = self.backend.gram(self.kernel, x, self.centres).matmul(self.transform) - self.offset
        return self._on_features(features, constant=1.0)

    def generator_images(self, pencil: GalerkinPencil) -> Tensor:
        """(L phi_k) at the points of a pencil, from the kernel's derivatives: (n, K) complex. Cost O(n N (d + r))."""
        gram = self.backend.generator_gram(self.kernel, pencil.points, self.centres, pencil.drift, pencil.diffusion)
        return self._on_features(gram.matmul(self.transform), constant=0.0)

    def _on_features(self, features: Tensor, constant: float) -> Tensor:
        ones = torch.full_like(features[:, :1], constant)
        return torch.cat([ones, features], dim=1).to(self.right.dtype) @ self.right

    def project(self, observable: Tensor) -> Tensor:
        """Coordinates (r + 1, p) in the features of an observable given at the centres, (N, p): ridge regression."""
        weighted = observable * self.weights[:, None]
        return torch.cat([weighted.sum(0, keepdim=True), self.transform.T @ observable])

    def coefficients(self, observable: Tensor) -> Tensor:
        """<psi_k, u> for an observable u at the centres (N, p): (K, p) complex, so that u ~ sum_k phi_k <psi_k, u>."""
        return self.left @ self.project(observable).to(self.left.dtype)

    def residuals(self, pencil: GalerkinPencil) -> Tensor:
        """||L phi_k - values_k phi_k|| / ||phi_k|| (K,) in the weights of a pencil of held-out points, without ridge.

        Independent of the solver: derivatives of the kernel at points that the fit has not seen.
        """
        functions = self.eigenfunctions(pencil.points)
        defect = self.generator_images(pencil) - functions * self.values
        weights = pencil.weights[:, None]
        norm = (weights * functions.abs().square()).sum(0).sqrt()
        return (weights * defect.abs().square()).sum(0).sqrt() / norm.clamp_min(torch.finfo(norm.dtype).tiny)

    def slowest(self, count: int) -> Eigenpairs:
        """At most ``count`` pairs, those of smallest |value|, in their order here; a conjugate pair is not split."""
        if count >= len(self.values):
            return self
        order = torch.argsort(self.values.abs(), stable=True)
        kept = set(order[:count].tolist())
        for index in list(kept):
            partner = index + 1 if self.values[index].imag > 0 else index - 1
            if self.values[index].imag != 0 and partner not in kept:
                kept.discard(index)
        chosen = torch.tensor(sorted(kept), dtype=torch.long, device=self.values.device)
        return Eigenpairs(
            self.values[chosen],
            self.right[:, chosen],
            self.left[chosen],
            self.kernel,
            self.backend,
            self.centres,
            self.transform,
            self.offset,
            self.weights,
            tuple(self.flags[index] for index in chosen.tolist()),
            self.diagnostics,
        )


@runtime_checkable
class Eigensolver(Protocol):
    """Solves the Galerkin eigenproblem of a frozen generator on sampled points: the interface of such plugins."""

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend) -> Eigenpairs:
        """Fit the kernel to the pencil's points, then all eigenpairs of the projected generator."""
