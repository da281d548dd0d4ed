"""Kernels as the contracts look at them: fitted, by value, and on the scale of their own length."""

from __future__ import annotations

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError, NumericalError, ShapeError
from kfpbench.operators.pairwise import kernel_diagonal
from kfpbench.protocols import BlockKernel, Kernel
from kfpbench.testing.contract import ContractError, remembered
from kfpbench.testing.differences import normal

_DIMENSIONS = (1, 2, 3, 8)
_CHECKED = 3  # of the dimensions above: with 1 and 3 usable, 2 tells nothing more


def fitted(kernel: Kernel, dimension: int) -> Kernel:
    """The kernel fitted on 50 points of unit scale."""
    found: Kernel = remembered(kernel, f"fitted {dimension}", lambda: kernel.fit(normal((50, dimension), 0)))
    return found


def usable_dimensions(kernel: Kernel) -> tuple[int, ...]:
    """1, 3 and 8, or those of 1, 2, 3, 8 that the kernel takes: one with a list of scales takes one of them.

    Raises ContractError for a kernel that can be fitted in none of them.
    """
    dimensions: tuple[int, ...] = remembered(kernel, "dimensions", lambda: _usable_dimensions(kernel))
    return dimensions


def _usable_dimensions(kernel: Kernel) -> tuple[int, ...]:
    found = []
    refusal: Exception | None = None
    for dimension in _DIMENSIONS:
        try:
            fitted(kernel, dimension)
            found.append(dimension)
        except (ShapeError, NumericalError, CapabilityError) as error:  # refused by a typed error, with a reason
            refusal = error
    if not found:
        raise ContractError(
            "fit refuses 50 standard normal points in every dimension",
            got=str(refusal),
            allowed=f"points of at least one of the dimensions {', '.join(map(str, _DIMENSIONS))}",
            remedy="Parameters with an entry for each coordinate need contract_examples with 1, 2, 3 or 8 of them.",
        )
    return tuple(found) if len(found) <= _CHECKED else tuple(d for d in found if d != 2)


def kernel_matrix(kernel: Kernel, x: Tensor, centres: Tensor) -> Tensor:
    """k(x_i, c_j), (n, M); formulas are evaluated at differences of points, which cancel less than products."""
    if isinstance(kernel, BlockKernel):
        return kernel.block(x, centres)
    n, m = len(x), len(centres)
    return kernel_diagonal(kernel, x.repeat_interleave(m, 0), centres.repeat(n, 1)).reshape(n, m)


def correlation_length(kernel: Kernel, dimension: int) -> float:
    """The distance from a point at which the correlation k(x, y) / sqrt(k(x, x) k(y, y)) has fallen to a half.

    The shortest along the axes and four other directions, on a grid of 1e-3 to 1e3; 1 when it does not fall so far.
    """
    length: float = remembered(kernel, f"length {dimension}", lambda: _correlation_length(kernel, dimension))
    return length


def _correlation_length(kernel: Kernel, dimension: int) -> float:
    distances = torch.logspace(-3, 3, 61, dtype=torch.float64)
    directions = torch.cat([torch.eye(dimension, dtype=torch.float64), normal((4, dimension), 20)])
    origin = 0.1 * normal((1, dimension), 21)
    shortest = 1e3
    for direction in torch.nn.functional.normalize(directions, dim=1):
        y = origin + distances[:, None] * direction
        along = kernel_matrix(kernel, y, origin)[:, 0]
        own = kernel_diagonal(kernel, y, y)
        correlation = along / (own * kernel_matrix(kernel, origin, origin)[0, 0]).sqrt()
        fallen = torch.nonzero(correlation.abs() < 0.5).flatten()
        if len(fallen):
            shortest = min(shortest, float(distances[fallen[0]]))
    return shortest if shortest < 1e3 else 1.0
