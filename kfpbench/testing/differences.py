"""Generators applied to functions by finite differences, and the points on which contracts look."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kfpbench.operators.diffusion import Diffusion

# central differences of sixth order: Fornberg, Math. Comp. 51(184):699 (1988), table 1
_FIRST = (3.0 / 4.0, -3.0 / 20.0, 1.0 / 60.0)
_SECOND = (3.0 / 2.0, -3.0 / 20.0, 1.0 / 90.0)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers, float64, the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator_by_differences(
    function: Callable[[Tensor], Tensor], x: Tensor, drift: Tensor, diffusion: Diffusion, step: float
) -> Tensor:
    """(L phi)(x_i) of phi: (n, d) -> (n, ...), L phi = b . grad phi + tr(a Hess phi), shape of phi(x).

    tr(a Hess phi) = sum_s d^2/dt^2 phi(x + t sigma_s), a = sum_s sigma_s sigma_s^T. Fields are scaled to length one, so
    that ``step`` is a distance. Error O(step^6) and eps |phi| / step^2. Cost 6 (d + 1) evaluations.
    """
    total = _directional(function, x, drift, step, order=1)
    if not diffusion.is_zero:
        for field in diffusion.to(x).root_fields(x):
            total = total + _directional(function, x, field, step, order=2)
    return total


def _directional(function: Callable[[Tensor], Tensor], x: Tensor, field: Tensor, step: float, order: int) -> Tensor:
    """The first or second derivative of t -> phi(x + t field) at 0."""
    speed = field.norm(dim=1, keepdim=True)
    unit = field / speed.clamp_min(torch.finfo(x.dtype).tiny)
    values = function(x)
    total = torch.zeros_like(values)
    for k, (first, second) in enumerate(zip(_FIRST, _SECOND, strict=True), start=1):
        ahead, behind = function(x + k * step * unit), function(x - k * step * unit)
        total = total + (first * (ahead - behind) if order == 1 else second * (ahead - 2.0 * values + behind))
    scale = (speed / step) ** order
    return total * scale.reshape(-1, *[1] * (values.ndim - 1))


def diffusions(dimension: int, count: int) -> dict[str, Diffusion]:
    """Every form of diffusion for points (count, dimension): none; scalar, diagonal, full, constant and pointwise."""
    axes = 0.2 + normal((dimension,), 90).abs()
    root = normal((count + 1, dimension, dimension), 91)
    full = 0.5 * root @ root.mT + 0.1 * torch.eye(dimension, dtype=torch.float64)
    return {
        "none": Diffusion.constant(torch.zeros((), dtype=torch.float64)),
        "scalar": Diffusion.constant(torch.tensor(0.7, dtype=torch.float64)),
        "diagonal": Diffusion.constant(axes),
        "matrix": Diffusion.constant(full[0]),
        "scalar at points": Diffusion.at_points(0.2 + normal((count,), 92).abs()),
        "diagonal at points": Diffusion.at_points(0.2 + normal((count, dimension), 93).abs()),
        "matrix at points": Diffusion.at_points(full[1:]),
    }
