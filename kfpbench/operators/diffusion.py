"""The diffusion matrix a = (1/2) Sigma Sigma^T of a generator: scalar, diagonal or full, constant or pointwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError, ShapeError

_ROUNDING = 1e-10  # relative to the largest entry: asymmetry and negative eigenvalues below it are rounding


@dataclass(frozen=True)
class Diffusion:
    """a at the points of a problem.

    Shapes of ``values``: scalar () or (n,), diagonal (d,) or (n, d), matrix (d, d) or (n, d, d); the latter of each
    pair when ``pointwise``. Build it by ``constant``, ``diagonal`` or ``at_points``, which check it.
    """

    values: Tensor
    kind: Literal["scalar", "diagonal", "matrix"]
    pointwise: bool = False

    @classmethod
    def constant(cls, value: float | Tensor) -> Diffusion:
        """The same a everywhere: a number (), the diagonal (d,), or a symmetric (d, d). Raises ParameterError."""
        values = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)
        kinds: tuple[Literal["scalar", "diagonal", "matrix"], ...] = ("scalar", "diagonal", "matrix")
        if values.ndim > 2 or (values.ndim == 2 and values.shape[0] != values.shape[1]):
            raise ShapeError(
                "a constant diffusion has the wrong shape", got=tuple(values.shape), allowed="(), (d,), (d, d)"
            )
        return cls(values, kinds[values.ndim])._checked()

    @classmethod
    def at_points(cls, values: Tensor) -> Diffusion:
        """One a for each of n points: numbers (n,), diagonals (n, d), or symmetric matrices (n, d, d)."""
        kinds: dict[int, Literal["scalar", "diagonal", "matrix"]] = {1: "scalar", 2: "diagonal", 3: "matrix"}
        if values.ndim not in kinds or (values.ndim == 3 and values.shape[1] != values.shape[2]):
            raise ShapeError(
                "a diffusion at points has the wrong shape",
                got=tuple(values.shape),
                allowed="(n,), (n, d), (n, d, d)",
            )
        return cls(values, kinds[values.ndim], pointwise=True)._checked()

    def _checked(self) -> Diffusion:
        if not bool(torch.isfinite(self.values).all()):
            raise NumericalError("the diffusion holds NaN or infinity")
        if self.kind == "matrix":
            scale = float(self.values.abs().max()) if self.values.numel() else 0.0
            if float((self.values - self.values.mT).abs().max() if self.values.numel() else 0.0) > _ROUNDING * scale:
                raise ParameterError("the diffusion matrix is not symmetric", remedy="Give a = Sigma Sigma^T / 2.")
            lowest = float(torch.linalg.eigvalsh(self.values).min()) if self.values.numel() else 0.0
            if lowest < -_ROUNDING * scale:
                raise ParameterError("the diffusion matrix is not positive semi-definite", got=lowest, allowed=">= 0")
        elif bool((self.values < 0).any()):
            raise ParameterError("the diffusion is negative", got=float(self.values.min()), allowed=">= 0")
        return self

    def check(self, points: Tensor) -> None:
        """Raise ShapeError unless it fits points (n, d)."""
        n, d = points.shape
        inner = {"scalar": (), "diagonal": (d,), "matrix": (d, d)}[self.kind]
        expected = (n, *inner) if self.pointwise else inner
        if tuple(self.values.shape) != expected:
            raise ShapeError(
                "the diffusion does not fit the points",
                got=tuple(self.values.shape),
                allowed=f"{expected} for points {(n, d)}",
            )

    @property
    def is_zero(self) -> bool:
        """No point diffuses along any axis: the operator is of first order."""
        return not bool(self.values.any())

    @property
    def isotropic(self) -> float | None:
        """The number a when it is the same everywhere and along every axis, else None."""
        if self.kind == "matrix" or self.values.numel() == 0:
            return None
        first = self.values.flatten()[0]
        return float(first) if bool((self.values == first).all()) else None

    def rows(self, rows: slice | Tensor) -> Diffusion:
        """a at some of the points."""
        return Diffusion(self.values[rows], self.kind, True) if self.pointwise else self

    def to(self, like: Tensor) -> Diffusion:
        """The same in the dtype and on the device of a tensor."""
        return Diffusion(self.values.to(dtype=like.dtype, device=like.device), self.kind, self.pointwise)

    def apply(self, vectors: Tensor) -> Tensor:
        """a v, shape (n, d), of one vector a point (n, d); of any number of vectors when a is constant."""
        if self.kind == "matrix":
            return torch.einsum("nij,nj->ni", self.values, vectors) if self.pointwise else vectors @ self.values
        return vectors * (self.values[:, None] if self.kind == "scalar" and self.pointwise else self.values)

    def trace(self, metric: Tensor | None, dimension: int) -> Tensor:
        """tr(a M), shape () or (n,), for a metric M: None (identity), (d,) or (d, d)."""
        metric = None if metric is None else metric.to(self.values)
        if self.kind == "matrix":
            if metric is None:
                return self.values.diagonal(dim1=-2, dim2=-1).sum(-1)
            if metric.ndim == 1:
                return (self.values.diagonal(dim1=-2, dim2=-1) * metric).sum(-1)
            return (self.values * metric).sum((-2, -1))
        weights = None if metric is None else metric if metric.ndim == 1 else metric.diagonal()
        if self.kind == "scalar":
            return self.values * (float(dimension) if weights is None else weights.sum())
        return self.values.sum(-1) if weights is None else self.values @ weights

    def pairs(self, left: Tensor, right: Tensor) -> Tensor:
        """u_j^T a_i v_j of vectors u, v (M, d): (M,) when a is constant, (n, M) when pointwise. Cost O(n M d), with
        matrices O(n M d^2).
        """
        if not self.pointwise:
            return (self.apply(left) * right).sum(1)
        if self.kind == "scalar":
            return self.values[:, None] * (left * right).sum(1)
        if self.kind == "diagonal":
            return self.values @ (left * right).T
        return self.values.flatten(1) @ (left[:, :, None] * right[:, None, :]).flatten(1).T

    def root_fields(self, points: Tensor) -> Iterator[Tensor]:
        """d vector fields sigma_s, each (n, d), with sum_s sigma_s sigma_s^T = a at the points (n, d)."""
        n, d = points.shape
        if self.kind == "matrix":
            levels, axes = torch.linalg.eigh(self.values)
            roots = axes * levels.clamp_min(0.0).sqrt()[..., None, :]  # (..., d, d), column s is sigma_s
            for axis in range(d):
                yield roots[..., axis].expand(n, d)
            return
        scales = self.values.sqrt()
        for axis in range(d):
            field = points.new_zeros((n, d))
            field[:, axis] = scales[..., axis] if self.kind == "diagonal" else scales
            yield field
