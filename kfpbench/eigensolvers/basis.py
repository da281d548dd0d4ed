"""Functions spanned by an eigensolver: features on new points, their images under a generator, and combinations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import Backend, Kernel


@runtime_checkable
class Expansion(Protocol):
    """A fixed combination of basis functions, (n, d) -> (n, p).

    It is evaluated in the precision of its coefficients, which may be wider than that of x.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The values at x (n, d): (n, p)."""

    def to(self, dtype: torch.dtype) -> Expansion:
        """The same in another precision."""

    @property
    def coefficient_norm(self) -> float:
        """Largest 2-norm of a column of the coefficients: rounding in the basis functions is amplified by it."""


@runtime_checkable
class Basis(Protocol):
    """r functions F of which the first is the constant 1."""

    @property
    def size(self) -> int:
        """r."""

    def features(self, x: Tensor) -> Tensor:
        """F at points x (n, d): (n, r)."""

    def images(self, x: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        """L F at points: (n, r)."""

    def combine(self, coordinates: Tensor) -> Expansion:
        """x -> F(x) coordinates, coordinates (r, p)."""

    def restrict(self, coordinates: Tensor) -> Basis:
        """The basis [1, F coordinates], coordinates (r, s)."""


@dataclass(frozen=True)
class KernelBasis:
    """F(x) = [1, k(x, C) transform - offset]: centres C (M, d), transform (M, r - 1), offset (r - 1,)."""

    kernel: Kernel
    backend: Backend
    centres: Tensor
    transform: Tensor
    offset: Tensor

    @property
    def size(self) -> int:
        """r."""
        return int(self.transform.shape[1]) + 1

    def features(self, x: Tensor) -> Tensor:
        """F at points x (n, d): (n, r). Cost O(n M (d + r))."""
        sections = self.backend.gram(self.kernel, x, self.centres).matmul(self.transform) - self.offset
        return torch.cat([torch.ones_like(sections[:, :1]) if self.size > 1 else x.new_ones((len(x), 1)), sections], 1)

    def images(self, x: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        """L F at points, from the kernel's derivatives: (n, r); L 1 = 0. Cost O(n M (d + r))."""
        images = self.backend.generator_gram(self.kernel, x, self.centres, drift, diffusion).matmul(self.transform)
        return torch.cat([x.new_zeros((len(x), 1)), images], dim=1)

    def combine(self, coordinates: Tensor) -> KernelExpansion:
        """Folded into kernel sections: constant + k(x, C) weights."""
        weights = self.transform @ coordinates[1:]
        constant = coordinates[0] - self.offset @ coordinates[1:]
        return KernelExpansion(self.kernel, self.backend, self.centres, weights, constant)

    def restrict(self, coordinates: Tensor) -> KernelBasis:
        """[1, F coordinates] with the constants moved into the offset."""
        folded = self.combine(coordinates)
        return KernelBasis(self.kernel, self.backend, self.centres, folded.weights, -folded.constant)


@dataclass(frozen=True)
class KernelExpansion:
    """constant + k(x, C) weights; one GEMM chain a batch. Shapes: centres (M, d), weights (M, p), constant (p,).

    Evaluated in the dtype of the weights, which may be wider than that of x.
    """

    kernel: Kernel
    backend: Backend
    centres: Tensor
    weights: Tensor
    constant: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The values at x (n, d): (n, p), in the dtype of x. Cost O(n M (d + p))."""
        wide = x.to(self.weights.dtype)
        return (self.backend.gram(self.kernel, wide, self.centres).matmul(self.weights) + self.constant).to(x.dtype)

    def to(self, dtype: torch.dtype) -> KernelExpansion:
        """The same in another precision."""
        return KernelExpansion(
            self.kernel, self.backend, self.centres.to(dtype), self.weights.to(dtype), self.constant.to(dtype)
        )

    @property
    def coefficient_norm(self) -> float:
        """Largest 2-norm of a column of the weights."""
        return float(self.weights.norm(dim=0).max()) if self.weights.numel() else 0.0
