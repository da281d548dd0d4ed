"""Blocks of a kernel's Gram matrix and of its generator's, by matrix products."""

from __future__ import annotations

from torch import Tensor

from kfpbench.errors import ShapeError
from kfpbench.protocols import Kernel


def check_shapes(x: Tensor, centres: Tensor, drift: Tensor | None = None, diffusion: Tensor | None = None) -> None:
    """Raise ShapeError unless x (n, d), centres (M, d), drift (n, d), diffusion (d,)."""
    if x.ndim != 2 or centres.ndim != 2 or x.shape[1] != centres.shape[1]:
        raise ShapeError(
            "points and centres must be matrices with equally many columns",
            got=(tuple(x.shape), tuple(centres.shape)),
            allowed="(n, d) and (M, d)",
        )
    if drift is not None and drift.shape != x.shape:
        raise ShapeError("one drift vector a point is needed", got=tuple(drift.shape), allowed=tuple(x.shape))
    if diffusion is not None and diffusion.shape != x.shape[1:]:
        raise ShapeError(
            "the diffusion must hold the d diagonal entries of a", got=tuple(diffusion.shape), allowed=(x.shape[1],)
        )


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """|x_i - c_j|^2 (n, M) by one GEMM; rows are centred first, which limits cancellation. Cost O(n M d)."""
    origin = centres.mean(dim=0)
    x, centres = x - origin, centres - origin
    cross = x @ centres.T
    return (x.square().sum(1)[:, None] + centres.square().sum(1)[None, :]).sub_(cross, alpha=2.0).clamp_(min=0.0)


def kernel_block(kernel: Kernel, x: Tensor, centres: Tensor) -> Tensor:
    """k(x_i, c_j), shape (n, M). Cost O(n M d)."""
    return kernel.profile(squared_distances(x, centres))[0]


def generator_block(kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Tensor) -> Tensor:
    """(L k(., c_j))(x_i), shape (n, M), for L phi = b . grad phi + sum_s a_s d_s^2 phi.

    With delta = x_i - c_j and k = h(|delta|^2): 2 h' (b . delta + sum_s a_s) + 4 h'' sum_s a_s delta_s^2.
    Cost O(n M d): two GEMMs, three when the diffusion is neither zero nor the same along every axis.
    """
    origin = centres.mean(dim=0)
    squared = squared_distances(x, centres)
    _, first, second = kernel.profile(squared)
    along = (drift * (x - origin)).sum(1)[:, None] - drift @ (centres - origin).T  # b_i . delta_ij
    if not bool(diffusion.any()):
        return along.mul_(2.0).mul_(first)
    block = along.add_(diffusion.sum()).mul_(2.0).mul_(first)
    if bool((diffusion == diffusion[0]).all()):
        weighted = squared.mul_(diffusion[0])
    else:
        root = diffusion.sqrt()
        weighted = squared_distances(x * root, centres * root)
    return block.add_(weighted.mul_(4.0).mul_(second))  # what the kernel returned stays as it is
