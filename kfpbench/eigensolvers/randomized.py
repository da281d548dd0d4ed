"""Randomized eigensolver: principal functions of all points from a random sketch of the Gram matrix, by products."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.basis import KernelBasis
from kfpbench.eigensolvers.compression import compressed
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.principal import (
    Principal,
    finite,
    with_constant,
)
from kfpbench.eigensolvers.projection import projected_eigenpairs
from kfpbench.eigensolvers.regularised import Regularised, linear_share
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.operators.pairwise import kernel_diagonal
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel


class Randomized(Regularised):
    """The leading ``rank`` principal functions of the centred Gram matrix A = H D K D H, by products with K alone.

    D = W^(1/2) and H = I - s s^T, s = D 1, takes the constant out of every vector exactly. A Gaussian sketch of
    ``rank`` + ``oversampling`` columns and ``power_iterations`` products more give an orthonormal Q with A ~ Q Q^T A;
    then the functions k(., X) D Q, whose values on the points are D^(-1) A Q and whose RKHS products are Q^T A Q, are
    made principal. The subspace agrees with that of ``dense`` when rank exceeds the number of functions above
    ``truncation``; the diagnostic ``cut`` is the last strength kept over the first, so that a rank too small shows as a
    cut above the truncation. Other parameters: see Regularised.

    Cost O(q N^2 (d + r)) with q = power_iterations + 3 and r = rank + oversampling; memory O(N r), with a lazy backend
    never N x N. Source: Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 53(2), 217-288
    (2011), algorithms 4.4 (range) and 5.5 (decomposition). Raises CapabilityError for a kernel too rough for the
    operator or a pencil with centres of its own, NumericalError for a kernel that is constant or not finite on the
    points, or when LAPACK fails.
    """

    def __init__(
        self,
        rank: Annotated[int, Field(ge=1)] = 200,
        oversampling: Annotated[int, Field(ge=0)] = 10,
        power_iterations: Annotated[int, Field(ge=0)] = 2,
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-10,
        max_rank: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto",
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(ridge, truncation, max_rank)
        if rank < 1 or oversampling < 0 or power_iterations < 0 or seed < 0:
            raise ParameterError(
                "Randomized: bad rank, oversampling, power_iterations or seed",
                got=(rank, oversampling, power_iterations, seed),
                allowed="rank 1 and more, the others 0 and more",
            )
        self.rank, self.oversampling, self.power_iterations, self.seed = rank, oversampling, power_iterations, seed

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """Eigenpairs of the projected generator; the kernel is fitted to the points first.

        All of them, or with ``n_eigs`` the leading ones in a basis of their own: see ``compressed``.
        """
        pencil.require_smooth(kernel)
        if pencil.centres is not None:
            raise CapabilityError(
                "randomized takes its functions from all points, not from centres",
                remedy="Leave the centres out, or take the eigensolver nystrom.",
            )
        kernel = kernel.fit(pencil.bulk)
        principal = self._principal(pencil, kernel, backend)
        return compressed(projected_eigenpairs(pencil, principal, self.ridge, {"kernel": kernel.describe()}), n_eigs)

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes: sketches on the points, blocks of the generator for one tile of rows, small square matrices; and what
        the backend takes for the Gram matrix.
        """
        columns, tile = min(self.rank + self.oversampling, points), min(4096, points)
        own = 6 * points * columns + 7 * tile * points + 4 * points * dimension + 18 * columns**2
        return itemsize * own + backend.working_memory(points, points, dimension, columns, itemsize)

    def _principal(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend) -> Principal:
        points, weights = pencil.points, pencil.weights
        root = weights.sqrt()[:, None]
        unit = root / root.norm()
        gram = backend.gram(kernel, points, points)
        size = float(kernel_diagonal(kernel, points, points).mean())

        def without_constant(vectors: Tensor) -> Tensor:
            return vectors - unit @ (unit.T @ vectors)

        def orthonormal(vectors: Tensor) -> Tensor:
            with threads_for(vectors.shape[1]):
                return torch.linalg.qr(without_constant(vectors))[0]

        def product(vectors: Tensor) -> Tensor:
            return finite(gram.matmul(root * vectors), kernel)  # K D Q

        columns = min(self.rank + self.oversampling, len(points) - 1)
        if columns == 0:
            raise NumericalError("one point leaves no function besides the constant", remedy="Give more points.")
        drawn = np.random.default_rng(self.seed).standard_normal((len(points), columns))
        try:
            basis = orthonormal(torch.from_numpy(drawn).to(points))
            for _ in range(self.power_iterations + 1):
                basis = orthonormal(root * product(basis))
            basis = without_constant(basis)
            sections = product(basis)  # values of the functions k(., X) D Q
            mean = weights @ sections
            sections -= mean
            energy = basis.T @ (root * sections)  # Q^T A Q
            with threads_for(columns):
                levels, axes = torch.linalg.eigh(0.5 * (energy + energy.T))
                rounding = len(points) * torch.finfo(levels.dtype).eps
                constant = levels[-1] <= rounding * size  # the Gram matrix is rounding but for its mean
                sound = (levels > rounding * levels[-1]) & ~constant
                whitening = (axes[:, sound] / levels[sound].sqrt()).flip(1)
                _, singular, right = torch.linalg.svd(root * (sections @ whitening), full_matrices=False)
        except torch.linalg.LinAlgError as error:
            raise NumericalError(f"the sketched Gram matrix could not be decomposed: {error}") from error
        strengths = singular.square()
        rounding = (columns * torch.finfo(singular.dtype).eps * float(singular[0])) ** 2 if len(singular) else 0.0
        rank = min(self.resolved(pencil).kept(strengths, rounding), self.rank)
        axes = whitening @ (right[:rank].T / singular[:rank])
        diagnostics = {
            **linear_share(strengths, points.shape[1]),
            "cut": float(strengths[rank - 1] / strengths[0]),
        }
        functions = KernelBasis(kernel, backend, points, root * (basis @ axes), mean @ axes)
        # not by the left singular vectors over D: a point of tiny weight would be given their rounding, divided by it
        on_points = with_constant(sections @ axes)
        return Principal(functions, on_points, strengths[:rank], size, diagnostics)
