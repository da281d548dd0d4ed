"""The data of one Galerkin eigenproblem: where the generator is sampled, and what it is there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError, NumericalError, ParameterError, ShapeError
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import BlockKernel, Kernel

_TILE = 4096  # rows checked at a time: the check of all would take more memory than they do


@dataclass(frozen=True)
class GalerkinPencil:
    """L phi = drift . grad phi + tr(a Hess phi) on weighted points, with kernel sections at the centres.

    Shapes: points (N, d), drift (N, d), weights (N,) positive with sum 1, centres (M, d) or None: the points.
    ``reversible`` asserts detailed balance in the points' density, L = L* in L2(q): then <phi, L psi> is the symmetric
    Dirichlet form -E[grad phi . a grad psi], which needs one derivative less and no drift. Noised data never license
    it. Raises ShapeError for mismatched shapes, NumericalError for values that are not finite, ParameterError for bad
    weights or a reversible operator without diffusion.
    """

    points: Tensor
    drift: Tensor
    diffusion: Diffusion
    weights: Tensor
    centres: Tensor | None = None
    reversible: bool = False

    def __post_init__(self) -> None:
        if self.points.ndim != 2:
            raise ShapeError("the pencil's points are not a matrix", got=tuple(self.points.shape), allowed="(N, d)")
        count, dimension = self.points.shape
        expected = {"drift": (count, dimension), "weights": (count,)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(
                    f"the pencil's {name} has the wrong shape",
                    got=tuple(getattr(self, name).shape),
                    allowed=f"{shape} for points {tuple(self.points.shape)}",
                )
        centres = self.centres
        if centres is not None and (centres.ndim != 2 or centres.shape[1] != dimension or not len(centres)):
            raise ShapeError(
                "the centres have the wrong shape", got=tuple(centres.shape), allowed=f"(M, {dimension}), M >= 1"
            )
        self.diffusion.check(self.points)
        for name in ("points", "drift", "weights", "centres"):
            part = getattr(self, name)
            if part is not None and not all(bool(torch.isfinite(rows).all()) for rows in part.split(_TILE)):
                raise NumericalError(f"the pencil's {name} hold NaN or infinity", remedy="Check the score.")
        if not bool((self.weights > 0).all()) or abs(float(self.weights.sum()) - 1.0) > 1e-6:
            raise ParameterError("the pencil's weights must be positive with sum 1", got=float(self.weights.sum()))
        if self.reversible and self.diffusion.is_zero:
            raise ParameterError(
                "a reversible operator needs diffusion",
                remedy="Pure transport has no Dirichlet form: reversible=False.",
            )

    @classmethod
    def uniform(cls, points: Tensor, drift: Tensor, diffusion: Diffusion) -> GalerkinPencil:
        """Equal weights 1 / N: points drawn from the density q in which adjoints are taken."""
        return cls(points, drift, diffusion, points.new_full((len(points),), 1.0 / len(points)))

    @property
    def has_draws(self) -> bool:
        """Whether the points are draws of q (equal weights), and not a quadrature rule."""
        return bool((self.weights == self.weights[0]).all())

    @property
    def bulk(self) -> Tensor:
        """The points that hold the mass, to which kernels are fitted: all when the weights are equal, else those that a
        systematic draw of N by weight hits. A grid reaches far into the tails, where a bandwidth has no business.
        """
        if self.has_draws:
            return self.points
        count = len(self.weights)
        levels = (torch.arange(count, device=self.weights.device, dtype=self.weights.dtype) + 0.5) / count
        hit = torch.searchsorted(self.weights.cumsum(0), levels).clamp_max(count - 1)
        return self.points[hit.unique()]

    @property
    def derivatives(self) -> int:
        """How many continuous derivatives of the kernel the weak or strong form needs."""
        return 1 if self.reversible or self.diffusion.is_zero else 2

    def require_smooth(self, kernel: Kernel) -> None:
        """Raise CapabilityError for a kernel too rough for the operator, or one whose dimension is limited below d."""
        require_smooth(kernel, self.derivatives, self.points.shape[1])


def require_smooth(kernel: Kernel, derivatives: int, dimension: int | None = None) -> None:
    """Raise CapabilityError for a kernel whose functions have fewer continuous derivatives, or in too many dimensions.

    The derivative reproducing property <phi, D^m k(x, .)> = (D^m phi)(x) holds for |m| up to the smoothness.
    """
    if kernel.smoothness < derivatives:
        way_out = (
            ", or `reversible` where detailed balance holds, or eta = 0, which need one" if derivatives == 2 else ""
        )
        raise CapabilityError(
            "the kernel is too rough for this operator: "
            + ("the strong form needs second derivatives" if derivatives == 2 else "it needs first derivatives"),
            got=f"{type(kernel).__name__} with {kernel.smoothness:g} continuous derivatives",
            allowed=f"at least {derivatives}",
            remedy=f"Take a smoother kernel{way_out}.",
        )
    if derivatives == 2 and dimension is not None and isinstance(kernel, BlockKernel) and dimension > kernel.max_dim:
        raise CapabilityError(
            "the kernel's second derivatives are too costly in this dimension",
            got=dimension,
            allowed=f"at most max_dim = {kernel.max_dim}",
            remedy="Take a kernel with a formula, or raise max_dim.",
        )
