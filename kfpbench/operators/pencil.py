"""The data of one Galerkin eigenproblem: where the generator is sampled, and what it is there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError, ShapeError


@dataclass(frozen=True)
class GalerkinPencil:
    """L phi = drift . grad phi + sum_s diffusion_s d_s^2 phi on weighted points, which are the centres too.

    Shapes: points (N, d), drift (N, d), diffusion (d,), weights (N,) positive with sum 1. Raises ShapeError for
    mismatched shapes, NumericalError for values that are not finite, ParameterError for bad weights or diffusion.
    """

    points: Tensor
    drift: Tensor
    diffusion: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        count, dimension = self.points.shape
        expected = {"drift": (count, dimension), "diffusion": (dimension,), "weights": (count,)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(
                    f"the pencil's {name} has the wrong shape",
                    got=tuple(getattr(self, name).shape),
                    allowed=f"{shape} for points {tuple(self.points.shape)}",
                )
        for name in ("points", "drift", "diffusion", "weights"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise NumericalError(f"the pencil's {name} hold NaN or infinity", remedy="Check the score.")
        if bool((self.diffusion < 0).any()):
            raise ParameterError("the pencil's diffusion is negative", got=float(self.diffusion.min()), allowed=">= 0")
        if not bool((self.weights > 0).all()) or abs(float(self.weights.sum()) - 1.0) > 1e-6:
            raise ParameterError("the pencil's weights must be positive with sum 1", got=float(self.weights.sum()))

    @classmethod
    def uniform(cls, points: Tensor, drift: Tensor, diffusion: Tensor) -> GalerkinPencil:
        """Equal weights 1 / N: points drawn from the density q in which adjoints are taken."""
        return cls(points, drift, diffusion, points.new_full((len(points),), 1.0 / len(points)))
