"""Mean displacement of the state over a span: the eigen-expansion of a drift, folded into the eigensolver's basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.basis import Expansion
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.errors import NumericalError
from kfpbench.operators.augmented import TimeCoordinate
from kfpbench.operators.generator import FrozenGenerator

COLUMNS = 256  # coordinates whose complex coefficients are in memory at a time
_BEYOND = 0.5  # of its range at the fitted points: how far a displacement may go beyond it
_ROUNDING = 1e-4  # of the points' standard deviation; beyond it a segment is evaluated in float64


@dataclass(frozen=True)
class Displacement:
    """sum_k phi_k(y) c_k folded into one expansion of the eigensolver's basis: one GEMM chain a batch.

    Its coordinates are held within half their range beyond the least and the largest at the fitted points: where a
    sample has left them, kernels extrapolate, and a few such rows would leave for good. It may be evaluated in a wider
    dtype than that of y: large coefficients of both signs cancel in ill-conditioned expansions (many points, few
    dimensions), where float32 would leave little but rounding.
    """

    expansion: Expansion
    low: Tensor  # (d,)
    high: Tensor  # (d,)
    diagnostics: dict[str, Any]

    def __call__(self, y: Tensor) -> Tensor:
        """The displacement at y (n, d). Cost O(n M d) for M centres."""
        return self.expansion(y).clamp(self.low, self.high)


@dataclass(frozen=True)
class AugmentedDisplacement:
    """A displacement of the operator on (y, s), for states at one instant."""

    inner: Displacement
    time: TimeCoordinate
    rho: float

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Those of the eigenproblem."""
        return self.inner.diagnostics

    def __call__(self, y: Tensor) -> Tensor:
        """The displacement of y (n, d) at that instant. Cost O(n M d) for M centres."""
        return self.inner(self.time.append(y, self.rho))


def expand_displacement(
    pairs: Eigenpairs, frozen: FrozenGenerator, length: float, decay: Tensor, dtype: torch.dtype
) -> Displacement:
    """Fold the eigen-expansion of the mean displacement over a span into the basis.

    decay (d,) is the linear flow over the span. In ``dtype``, or in float64 where the rounding of the basis functions,
    eps in each term, would add up to more than 1e-4 standard deviations of the points along any axis. Raises
    NumericalError when the expansion is not finite.
    """
    coefficients = pairs.coefficients(frozen.excess)  # (K, d)
    rates = -decay.log() / length  # (d,): the constant kappa with the exact linear flow
    blocks = []
    for columns in torch.arange(len(rates), device=rates.device).split(COLUMNS):
        blocks.append(propagated(pairs, coefficients[:, columns], rates[columns], length, decay[columns]))
    folded = torch.cat(blocks, dim=1)  # (r, d)
    expansion = pairs.basis.combine(folded)
    growth = float(torch.exp(pairs.values.real.max() * length)) if len(pairs.values) else 1.0
    require_finite(folded, expansion, growth)
    spread = frozen.pencil.points[:, : len(rates)].std(dim=0)  # without the time of augmented points
    expansion, precision = in_precision(expansion, dtype, relative_norm(pairs, folded, spread))
    diagnostics = {**pairs.diagnostics, "kept": len(pairs.values), "largest_growth": growth}
    diagnostics["doubtful"] = sum(bool(flag) for flag in pairs.flags)
    diagnostics["evaluated_in"] = precision
    fitted = pairs.on_points @ folded  # (N, d)
    low, high = fitted.amin(0), fitted.amax(0)
    margin = _BEYOND * (high - low)
    return Displacement(expansion, (low - margin).to(dtype), (high + margin).to(dtype), diagnostics)


def propagated(pairs: Eigenpairs, coefficients: Tensor, rates: Tensor, time: float, decay: Tensor) -> Tensor:
    """int_0^time e^(-kappa (time - s)) P_s B ds in the basis, (r, p), B given by its coefficients (K, p).

    ``rates`` (p,) are kappa and ``decay`` (p,) is e^(-kappa time). Cost O(r K p).
    """
    exponent = (pairs.values[:, None] + rates) * time  # (K, p)
    weighted = coefficients * _varphi_1(exponent) * (time * decay)
    return (pairs.right @ weighted).real


def require_finite(folded: Tensor, expansion: Expansion, growth: float) -> None:
    """Raise NumericalError for an expansion that overflowed; ``growth`` is the largest |e^(lambda D)|."""
    if not bool(torch.isfinite(folded).all()) or not math.isfinite(expansion.coefficient_norm):
        raise NumericalError(
            "the displacement of a segment is not finite",
            got=f"largest growth factor {growth:.1e}",
            remedy="Use more segments, a larger ridge, or a smaller rank.",
        )


def relative_norm(pairs: Eigenpairs, folded: Tensor, scale: Tensor) -> float:
    """Largest 2-norm of the expansion's coefficients of a coordinate, in units of that coordinate's scale (p,).

    Scales of coordinates may differ by orders of magnitude: the largest says nothing about the others' rounding.
    Cost O(M r p), memory O(M).
    """
    unit = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    blocks = torch.arange(len(scale), device=scale.device).split(COLUMNS)
    return max(pairs.basis.combine(folded[:, part] / unit[part]).coefficient_norm for part in blocks)


def in_precision(expansion: Expansion, dtype: torch.dtype, norm: float) -> tuple[Expansion, str]:
    """The expansion in ``dtype``, or in float64 where rounding, eps times a relative norm, would exceed 1e-4; with the
    dtype's name.
    """
    narrow = torch.finfo(dtype).eps * norm <= _ROUNDING
    chosen = dtype if narrow else torch.float64
    return expansion.to(chosen), str(chosen).removeprefix("torch.")


def _varphi_1(z: Tensor) -> Tensor:
    """(e^z - 1) / z for complex z, by its Taylor series near 0, where the quotient cancels."""
    small = z.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(z), z)
    series = 1.0 + z / 2.0 + z * z / 6.0 + z * z * z / 24.0
    return torch.where(small, series, (torch.exp(safe) - 1.0) / safe)
