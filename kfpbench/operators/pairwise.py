"""Blocks of a kernel's Gram matrix and of its generator's, by matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.kernels.jet import Argument, InnerProduct, Jet, SquaredDistance, jet_kernel, metric_root, same_argument
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import BlockKernel, Kernel

_PAIRED = 4096  # rows that are paired with their centres at a time


def check_shapes(x: Tensor, centres: Tensor, drift: Tensor | None = None, diffusion: Diffusion | None = None) -> None:
    """Raise ShapeError unless x (n, d), centres (M, d), drift (n, d), and the diffusion fits x."""
    if x.ndim != 2 or centres.ndim != 2 or x.shape[1] != centres.shape[1]:
        raise ShapeError(
            "points and centres must be matrices with equally many columns",
            got=(tuple(x.shape), tuple(centres.shape)),
            allowed="(n, d) and (M, d)",
        )
    if drift is not None and drift.shape != x.shape:
        raise ShapeError("one drift vector a point is needed", got=tuple(drift.shape), allowed=tuple(x.shape))
    if diffusion is not None:
        diffusion.check(x)


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """|x_i - c_j|^2 (n, M) by one GEMM; rows are centred first, which limits cancellation. Cost O(n M d)."""
    origin = centres.mean(dim=0)
    x, centres = x - origin, centres - origin
    cross = x @ centres.T
    return (x.square().sum(1)[:, None] + centres.square().sum(1)[None, :]).sub_(cross, alpha=2.0).clamp_(min=0.0)


def argument_block(argument: Argument, x: Tensor, centres: Tensor) -> Tensor:
    """z(x_i, c_j), shape (n, M). Cost O(n M d), with a full metric O((n + M) d^2) more. Raises ShapeError for a metric
    of another dimension.
    """
    if argument.metric is not None and len(argument.metric) != x.shape[1]:
        raise ShapeError(
            "the kernel's metric and the points differ in dimension", got=len(argument.metric), allowed=x.shape[1]
        )
    if isinstance(argument, InnerProduct):
        return x @ times_metric(centres, argument.metric).T
    if argument.metric is None:
        return squared_distances(x, centres)
    return squared_distances(times_metric(x, argument.root), times_metric(centres, argument.root))


def times_metric(vectors: Tensor, metric: Tensor | None) -> Tensor:
    """v M of rows v, for a metric None (identity), (d,) or (d, e)."""
    if metric is None:
        return vectors
    metric = metric.to(vectors)
    return vectors * metric if metric.ndim == 1 else vectors @ metric


def gradient_parts(argument: Argument, x: Tensor, centres: Tensor) -> tuple[Tensor | None, Tensor]:
    """grad_x z(x_i, c_j) = first_i + second_j: shapes (n, d) or None (zero), and (M, d)."""
    if isinstance(argument, InnerProduct):
        return None, times_metric(centres, argument.metric)
    origin = centres.mean(dim=0)  # the gradient depends on x - c alone; centred rows cancel less
    return 2.0 * times_metric(x - origin, argument.metric), -2.0 * times_metric(centres - origin, argument.metric)


def kernel_block(kernel: Kernel, x: Tensor, centres: Tensor) -> Tensor:
    """k(x_i, c_j), shape (n, M). Cost O(n M d)."""
    if isinstance(kernel, BlockKernel):
        return kernel.block(x, centres)
    formula = jet_kernel(kernel)
    return formula.jet(*[argument_block(argument, x, centres) for argument in formula.arguments()]).value


def generator_block(kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
    """(L k(., c_j))(x_i), shape (n, M), for L phi = b . grad phi + tr(a Hess phi).

    For k = h(|delta|^2), delta = x_i - c_j: 2 h' (b . delta + tr a) + 4 h'' delta^T a delta; for others by the chain
    rule of kfpbench.kernels.jet. Cost O(n M d) for each argument and pair of arguments: two GEMMs for a radial kernel,
    three when the diffusion is neither zero nor isotropic; O(n M d^2) when it is a matrix at each point. Raises
    CapabilityError for a kernel without the derivatives.
    """
    if isinstance(kernel, BlockKernel):
        return kernel.generator_block(x, centres, drift, diffusion)
    formula = jet_kernel(kernel)
    arguments = formula.arguments()
    blocks = [argument_block(argument, x, centres) for argument in arguments]
    jet = formula.jet(*blocks)
    diffusion = diffusion.to(x)
    without_diffusion = diffusion.is_zero
    require_jet(kernel, jet, without_diffusion)
    gradients = [gradient_parts(argument, x, centres) for argument in arguments]
    total: Tensor | None = None
    for index, first in jet.first.items():
        at_x, at_centre = gradients[index]
        offset = x.new_zeros(len(x)) if at_x is None else (drift * at_x).sum(1)
        if not without_diffusion and isinstance(arguments[index], SquaredDistance):
            offset = offset + 2.0 * diffusion.trace(arguments[index].metric, x.shape[1])
        image = torch.addmm(offset[:, None], drift, at_centre.T)  # b . grad z + tr(a Hess z)
        total = image.mul_(first) if total is None else total.addcmul_(image, first)
    assert total is not None  # require_jet saw to it
    if without_diffusion or jet.second is None:
        return total
    for (a, b), second in jet.second.items():
        if a == b and diffusion.isotropic is not None and same_argument(arguments[a], SquaredDistance()):
            gamma = blocks[a] * (4.0 * diffusion.isotropic)  # 4 a |delta|^2: no further product
        else:
            gamma = carre_du_champ(arguments, gradients, a, b, diffusion)
        total.addcmul_(gamma.expand_as(total), second, value=1.0 if a == b else 2.0)
    return total


def chain_rule(jet: Jet, images: dict[int, Any], gammas: dict[tuple[int, int], Any]) -> Any:
    """L phi(z) = sum_l phi_l L z_l + sum_lm phi_lm Gamma(z_l, z_m), of tensors or symbols; no gammas: first order."""
    second = jet.second or {}
    terms = [images[index] * first for index, first in jet.first.items()]
    terms += [gamma * second[pair] * (1.0 if pair[0] == pair[1] else 2.0) for pair, gamma in gammas.items()]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def kernel_diagonal(kernel: Kernel, x: Tensor, centres: Tensor) -> Tensor:
    """k(x_i, c_i), shape (n,). Cost O(n d), for a BlockKernel that of 64 n entries. Raises ShapeError unless n = M."""
    _require_square(x, centres)
    if isinstance(kernel, BlockKernel):
        blocks = [kernel.block(x[rows], centres[rows]).diagonal() for rows in _diagonal_slices(len(x))]
        return torch.cat([x.new_empty(0), *blocks])
    formula = jet_kernel(kernel)
    values = []
    for start in range(0, len(x), _PAIRED):  # the differences of all rows would be another copy of the points
        rows = slice(start, start + _PAIRED)
        pairs = [_paired(argument, x[rows], centres[rows])[0] for argument in formula.arguments()]
        values.append(formula.jet(*pairs).value)
    return torch.cat([x.new_empty(0), *values])


def generator_diagonal(kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
    """(L k(., c_i))(x_i), shape (n,). Cost O(n d), with matrices O(n d^2). Errors: those of ``generator_block``."""
    _require_square(x, centres)
    if isinstance(kernel, BlockKernel):
        blocks = [
            kernel.generator_block(x[rows], centres[rows], drift[rows], diffusion.rows(rows)).diagonal()
            for rows in _diagonal_slices(len(x))
        ]
        return torch.cat([x.new_empty(0), *blocks])
    formula = jet_kernel(kernel)
    arguments = formula.arguments()
    values, gradients = zip(*[_paired(argument, x, centres) for argument in arguments], strict=True)
    jet = formula.jet(*values)
    diffusion = diffusion.to(x)
    first_order = diffusion.is_zero
    require_jet(kernel, jet, first_order)
    images = {index: (drift * gradients[index]).sum(1) for index in jet.first}
    if first_order or jet.second is None:
        return chain_rule(jet, images, {})
    for index in images:
        if isinstance(arguments[index], SquaredDistance):
            images[index] = images[index] + 2.0 * diffusion.trace(arguments[index].metric, x.shape[1])
    gammas = {(a, b): (gradients[a] * diffusion.apply(gradients[b])).sum(1) for a, b in jet.second}
    return chain_rule(jet, images, gammas)


def _paired(argument: Argument, x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """z(x_i, c_i), shape (n,), and its gradient in x (n, d)."""
    if isinstance(argument, InnerProduct):
        gradient = times_metric(centres, argument.metric)
        return (x * gradient).sum(1), gradient
    delta = x - centres
    return times_metric(delta, argument.root).square().sum(1), 2.0 * times_metric(delta, argument.metric)


def _diagonal_slices(count: int) -> list[slice]:
    return [slice(start, min(start + 64, count)) for start in range(0, count, 64)]


def _require_square(x: Tensor, centres: Tensor) -> None:
    if len(x) != len(centres):
        raise ShapeError("only a square matrix has a diagonal", got=(len(x), len(centres)), allowed="n = M")


def carre_du_champ(
    arguments: tuple[Argument, ...],
    gradients: list[tuple[Tensor | None, Tensor]],
    a: int,
    b: int,
    diffusion: Diffusion,
) -> Tensor:
    """Gamma(z_a, z_b) = grad z_a . a grad z_b, shape (n, M) or one that broadcasts to it."""
    (left_x, left_c), (right_x, right_c) = gradients[a], gradients[b]
    if left_x is not None and a == b and not diffusion.pointwise:
        root = _root(diffusion)  # a squared distance in the metric M a M: never negative
        return squared_distances(times_metric(left_x, root), -times_metric(left_c, root))
    gamma = diffusion.pairs(left_c, right_c)
    gamma = gamma if diffusion.pointwise else gamma[None, :]
    if left_x is not None:
        gamma = gamma + diffusion.apply(left_x) @ right_c.T
    if right_x is not None:
        gamma = gamma + diffusion.apply(right_x) @ left_c.T
    if left_x is not None and right_x is not None:
        gamma = gamma + (diffusion.apply(left_x) * right_x).sum(1)[:, None]
    return gamma


def _root(diffusion: Diffusion) -> Tensor:
    return metric_root(diffusion.values) if diffusion.kind != "scalar" else diffusion.values.sqrt()[None]


def require_jet(kernel: Kernel, jet: Jet, without_diffusion: bool) -> None:
    """Raise CapabilityError when the jet lacks derivatives that the operator needs."""
    if not jet.first or (jet.second is None and not without_diffusion):
        raise CapabilityError(
            "the kernel has not the derivatives that this operator needs",
            got=f"{type(kernel).__name__} with {kernel.smoothness:g} continuous derivatives",
            allowed="1 for an operator without diffusion, 2 with diffusion",
            remedy="Take a smoother kernel.",
        )
