"""The generator collocated at its own centres, damped, known by products with blocks of vectors alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kfpbench.errors import NumericalError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel


class DampedCollocation:
    """The pencil A u = lambda B u of order N whose eigenfunctions are c + sum_j alpha_j k(., x_j), sum_j alpha_j = 0.

    With D = W^(1/2), s = D 1 (a unit vector, for the weights sum to 1), P = I - s s^T, K the Gram matrix and
    Psi_ij = (L k(., x_j))(x_i), one N-vector u = c s + beta, beta = P u, holds the constant c and alpha = D beta:

        B = s s^T + P D K D P          (B u = D phi, phi less the mean of its kernel part: symmetric, positive)
        A = D Psi D P - kappa P        (D L phi, less the damping)

    A s = 0 exactly: the constant is an eigenfunction of value 0. ``kappa`` damps: to first order it adds
    -kappa <psi, C^(-1) phi> to a value, C being the kernel's covariance operator, so it leaves functions of strength
    Lam >> kappa / |lambda| alone and drives the directions that the points cannot resolve, Lam -> 0, to -infinity.
    An ordinary ridge lambda (K + gamma W^(-1)) sends those to 0 instead, where they pass for slow modes; kappa is the
    limit gamma -> 0 of that ridge with gamma (lambda + omega), gamma omega = kappa. At kappa = 0 this is the Galerkin
    problem with centres = points without the squared condition (Klus, Nueske, Hamzi, Entropy 22(7):722, 2020).

    A product with p columns costs one pass over the kernel, O(N^2 (d + p)) time, and O(N p) memory beside the
    backend's own. ``passes`` and ``columns`` count them. Raises NumericalError for products that are not finite.
    """

    def __init__(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, kappa: float = 0.0) -> None:
        points = pencil.points
        self.order = len(points)
        self.root = pencil.weights.sqrt()  # (N,), D and s alike
        self.kappa = kappa
        self.passes = self.columns = 0
        self._gram = backend.gram(kernel, points, points)
        self._images = backend.generator_gram(kernel, points, points, pencil.drift, pencil.diffusion)

    def mass(self, vectors: Tensor) -> Tensor:
        """B u of columns u (N, p)."""
        return self.centred(self._spread(self._product(self._gram.matmul, vectors))) + self._constant(vectors)

    def generator(self, vectors: Tensor) -> Tensor:
        """A u of columns u (N, p)."""
        inner = self.centred(vectors)
        return self._spread(self._product(self._images.matmul, vectors)) - self.kappa * inner

    def generator_transposed(self, vectors: Tensor) -> Tensor:
        """A^T y of columns y (N, p)."""
        self._count(vectors)
        product = self._finite(self._images.transpose_matmul(self._spread(vectors)))
        return self.centred(self._spread(product) - self.kappa * vectors)

    def sections(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = D P u and the values K alpha at the points, both (N, p)."""
        return self._spread(self.centred(vectors)), self._product(self._gram.matmul, vectors)

    def centred(self, vectors: Tensor) -> Tensor:
        """P u."""
        return vectors - self._constant(vectors)

    def _constant(self, vectors: Tensor) -> Tensor:
        return self.root[:, None] * (self.root @ vectors)

    def _spread(self, vectors: Tensor) -> Tensor:
        return self.root[:, None] * vectors

    def _product(self, matmul: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        self._count(vectors)
        return self._finite(matmul(self._spread(self.centred(vectors))))

    def _count(self, vectors: Tensor) -> None:
        self.passes += 1
        self.columns += vectors.shape[1]

    @staticmethod
    def _finite(product: Tensor) -> Tensor:
        if not bool(torch.isfinite(product).all()):
            raise NumericalError(
                "a product with the kernel or the generator's images of it is not finite",
                remedy="Check the kernel's derivatives at distance 0, its declared smoothness, and the drift.",
            )
        return product
