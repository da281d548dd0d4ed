"""Nystrom eigensolver: the generator projected to principal functions spanned by kernel sections at M centres."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.centres import (
    Selection,
    kmeans_plus_plus_centres,
    pivoted_cholesky_centres,
    uniform_centres,
)
from kfpbench.eigensolvers.compression import compressed
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.principal import principal_of_sections
from kfpbench.eigensolvers.projection import projected_eigenpairs
from kfpbench.eigensolvers.regularised import Regularised
from kfpbench.errors import ParameterError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_SELECTIONS = ("uniform", "kmeans++", "pivoted_cholesky")


class Nystrom(Regularised):
    """L phi = lambda phi tested on all N points, with phi in the span of 1 and k(., c_j), j = 1 .. M.

    The features z(x) = k(x, C) K_cc^(-1/2) are orthonormal in the RKHS; eigenvectors of their M x M covariance over the
    points give the principal functions. With M >= N the subspace is that of ``dense``. ``centres`` is M; the pencil's
    own centres, when it has them, take precedence. ``selection``: ``uniform``; ``kmeans++``, spread over the input
    space; ``pivoted_cholesky``, spread over what the kernel tells apart. Other parameters: see Regularised.

    Cost O(N M (d + M) + M^3) time, O(N M + M^2) memory; never N x N, and blocks of the Gram matrix are made for a tile
    of rows at a time whatever the backend. Sources: Williams and Seeger, "Using the Nystrom method to speed up kernel
    machines", NIPS 2000; for generators, gEDMD of Klus, Nueske, Hamzi, Entropy 22(7):722 (2020), sec. 3, with sections
    at the centres as dictionary. Raises CapabilityError for a kernel too rough for the operator, NumericalError for a
    kernel that is constant or not finite on the points, or when LAPACK fails.
    """

    def __init__(
        self,
        centres: Annotated[int, Field(ge=1)] = 500,
        selection: Selection = "uniform",
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-10,
        max_rank: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto",
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(ridge, truncation, max_rank)
        if centres < 1:
            raise ParameterError("Nystrom: centres must be positive", got=centres, allowed="1 and more")
        if selection not in _SELECTIONS:
            raise ParameterError("Nystrom: bad selection", got=selection, allowed=", ".join(_SELECTIONS))
        if seed < 0:
            raise ParameterError("Nystrom: the seed must not be negative", got=seed)
        self.centres, self.selection, self.seed = centres, selection, seed

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """Eigenpairs of the projected generator; the kernel is fitted to the points first.

        All of them, or with ``n_eigs`` the leading ones in a basis of their own: see ``compressed``.
        """
        pencil.require_smooth(kernel)
        kernel = kernel.fit(pencil.bulk)
        centres = pencil.centres
        if centres is None:
            centres = pencil.points[self._select(pencil, kernel, backend)]
        solver = self.resolved(pencil)
        principal = principal_of_sections(kernel, backend, pencil.points, pencil.weights, centres, solver)
        diagnostics = {"kernel": kernel.describe(), "centres": len(centres)}
        return compressed(projected_eigenpairs(pencil, principal, self.ridge, diagnostics), n_eigs)

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes: features on the points, blocks of one tile and its points, square matrices and complex vectors."""
        centres, tile = min(self.centres, points), min(4096, points)
        factor = centres if self.selection == "pivoted_cholesky" else 0
        kept = 0 if n_eigs is None else min(centres, 4 * (4 * n_eigs + 16))
        return itemsize * (
            points * (1 + centres + max(factor, 2 * kept))
            + 8 * tile * centres
            + 4 * (tile + centres) * dimension
            + 18 * centres**2
        )

    def _select(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend) -> Tensor:
        if self.selection == "uniform":
            return uniform_centres(pencil.points, self.centres, self.seed)
        if self.selection == "kmeans++":
            return kmeans_plus_plus_centres(pencil.points, pencil.weights, self.centres, self.seed)
        return pivoted_cholesky_centres(pencil.points, pencil.weights, kernel, backend, self.centres, self.seed)
