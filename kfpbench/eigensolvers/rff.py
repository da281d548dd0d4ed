"""Random Fourier features: the generator projected to cosines and sines of random frequencies."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.compression import compressed
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.fourier_basis import FourierBasis, fourier_features
from kfpbench.eigensolvers.principal import Principal
from kfpbench.eigensolvers.principal_axes import principal_axes
from kfpbench.eigensolvers.projection import projected_eigenpairs
from kfpbench.eigensolvers.regularised import Regularised
from kfpbench.eigensolvers.spectral_measure import spectral_sample, variance
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel


class RandomFourierFeatures(Regularised):
    """L phi = lambda phi tested on all points, phi in the span of 1, cos(w_j . x) and sin(w_j . x), j = 1 .. m.

    ``features`` is m; the w_j are drawn from the kernel's spectral measure, so that (k(x, x) / m)^(1/2) [cos, sin] are
    features of the kernel's Monte Carlo estimate k(x, x) mean_j cos(w_j . (x - y)). The features' covariance over the
    points gives the principal functions; their derivatives are in closed form, and no Gram matrix is made: the backend
    is not used. Other parameters: see Regularised.

    Cost O(N m (d + m) + m^3) time, O(N m + m^2) memory. Sources: Rahimi and Recht, "Random Features for Large-Scale
    Kernel Machines", NIPS 2007, with the paired features of Sutherland and Schneider, "On the Error of Random Fourier
    Features", UAI 2015, which vary less than those with a random phase. Raises CapabilityError for a kernel too rough
    for the operator or without a known spectral measure, or for a pencil with centres, NumericalError for a kernel that
    is constant on the points, or when LAPACK fails.
    """

    def __init__(
        self,
        features: Annotated[int, Field(ge=1)] = 500,
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-10,
        max_rank: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto",
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(ridge, truncation, max_rank)
        if features < 1 or seed < 0:
            raise ParameterError(
                "RandomFourierFeatures: bad features or seed",
                got=(features, seed),
                allowed="features 1 and more, seed 0 and more",
            )
        self.features, self.seed = features, seed

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """Eigenpairs of the projected generator; the kernel is fitted to the points first.

        All of them, or with ``n_eigs`` the leading ones in a basis of their own: see ``compressed``.
        """
        pencil.require_smooth(kernel)
        if pencil.centres is not None:
            raise CapabilityError(
                "random Fourier features have frequencies, not centres",
                remedy="Leave the centres out, or take the eigensolver nystrom.",
            )
        kernel = kernel.fit(pencil.bulk)
        principal = self._principal(pencil, kernel)
        diagnostics = {"kernel": kernel.describe(), "features": 2 * self.features}
        return compressed(projected_eigenpairs(pencil, principal, self.ridge, diagnostics), n_eigs)

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes: features on the points, blocks of one tile and its points, square matrices and complex vectors."""
        columns, tile = 2 * self.features, min(4096, points)
        kept = 0 if n_eigs is None else min(columns, 4 * (4 * n_eigs + 16))
        blocks = 8 * tile * columns + (2 * columns + tile) * dimension
        return itemsize * (points * (1 + columns + 2 * kept) + blocks + 18 * columns**2)

    def _principal(self, pencil: GalerkinPencil, kernel: Kernel) -> Principal:
        generator = np.random.default_rng(self.seed)
        dimension = pencil.points.shape[1]
        drawn = spectral_sample(kernel, self.features, dimension, generator).to(pencil.points)
        size = variance(kernel, dimension)

        def features(rows: slice) -> Tensor:
            return fourier_features(pencil.points[rows], drawn) * math.sqrt(size)

        found = principal_axes(features, 2 * self.features, pencil.points, pencil.weights, self.resolved(pencil))
        basis = FourierBasis(drawn, found.axes * math.sqrt(size), found.offset)
        return Principal(basis, found.on_points, found.strengths, size, found.diagnostics)
