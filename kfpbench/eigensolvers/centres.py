"""Which of the points serve as centres of a Nystrom approximation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kfpbench.errors import NumericalError
from kfpbench.operators.pairwise import kernel_diagonal, squared_distances
from kfpbench.protocols import Backend, Kernel

Selection = Literal["uniform", "kmeans++", "pivoted_cholesky"]
_BLOCK = 128  # proposals at a time: GEMMs instead of one pass over the points for each centre
_TILE = 4096  # rows of points at a time


def uniform_centres(points: Tensor, count: int, seed: int) -> Tensor:
    """Indices (m,), ascending, of m <= count different rows drawn without replacement; all rows when count >= N.

    A row equal to one already drawn is passed over; m < count when no other is left. Cost O(N + m d log m).
    """
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(points))).to(points.device)
    chosen = order[:0]
    while len(chosen) < count and len(order):
        needed = count - len(chosen)
        candidates = torch.cat([chosen, order[:needed]])
        order = order[needed:]
        _, group = points[candidates].unique(dim=0, return_inverse=True)
        first = torch.full((len(candidates),), len(candidates), device=points.device)
        first.scatter_reduce_(0, group, torch.arange(len(candidates), device=points.device), "amin")
        chosen = candidates[first[first < len(candidates)].sort().values]
    return chosen.sort().values


def kmeans_plus_plus_centres(points: Tensor, weights: Tensor, count: int, seed: int) -> Tensor:
    """Indices (m,), ascending, by D^2 sampling: each centre is row i with probability ~ W_i min_c |x_i - c|^2.

    The first is drawn by the weights. Proposals are drawn in blocks and thinned by rejection, which keeps the law of
    one draw at a time. Rows within rounding of a centre are never drawn: m < count when no other row is left; all rows
    when count >= N. Cost O(N m d). Source: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding",
    SODA 2007, sec. 2.2.
    """
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    generator = np.random.default_rng(seed)
    scale = max(float((tile - points[0]).square().sum(1).max()) for tile in points.split(_TILE))
    rounding = 4.0 * (points.shape[1] + 4) * torch.finfo(points.dtype).eps * scale
    nearest = torch.full_like(weights, torch.inf)

    def distances(rows: Tensor, chosen: Tensor) -> Tensor:
        block = squared_distances(rows - points[0], chosen - points[0])
        return torch.where(block > rounding, block, 0.0)

    def accept(new: Tensor) -> None:
        for start in range(0, len(points), _TILE):
            tile = slice(start, start + _TILE)
            nearest[tile] = torch.minimum(nearest[tile], distances(points[tile], points[new]).amin(1))

    first = _draw(weights, 1, generator)
    accept(first)
    chosen = [int(first)]
    while len(chosen) < count:
        proposals = _draw(weights * nearest, min(_BLOCK, count - len(chosen)), generator)
        if len(proposals) == 0:
            break
        mutual = distances(points[proposals], points[proposals])
        before = nearest[proposals]
        current = before.clone()

        def shrink(place: int, current: Tensor = current, mutual: Tensor = mutual) -> None:
            torch.minimum(current, mutual[place], out=current)

        places = _thinned(before, current, shrink, generator)
        accept(proposals[places])
        chosen += proposals[places].tolist()
    return torch.tensor(sorted(chosen), device=points.device)


def pivoted_cholesky_centres(
    points: Tensor, weights: Tensor, kernel: Kernel, backend: Backend, count: int, seed: int
) -> Tensor:
    """Indices (m,), ascending, by randomly pivoted Cholesky of the weighted Gram matrix.

    Each pivot is row i with probability ~ W_i r_i, r the diagonal of what the pivots so far leave of the Gram matrix.
    Proposals are drawn in blocks and thinned by rejection, which keeps the law of one draw at a time. It stops at
    m < count when the rest is rounding, when more centres would span nothing new; all rows when count >= N. Cost
    O(N m (d + m)) time, O(N m) memory. Sources: Chen, Epperly, Tropp, Webber, "Randomly pivoted Cholesky", CPAM 2025
    (arXiv 2207.06503), alg. 2.1; Epperly, Tropp, Webber, "Embrace rejection", arXiv 2410.03969, for the blocks. Raises
    NumericalError when the kernel is not finite on the points.
    """
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    generator = np.random.default_rng(seed)
    rest = kernel_diagonal(kernel, points, points)
    if not bool(torch.isfinite(rest).all()):
        raise NumericalError("the kernel is not finite on the points", got=kernel.describe())
    rounding = 4.0 * count * torch.finfo(rest.dtype).eps * float(rest.max())
    rest = torch.where(rest > rounding, rest, 0.0)
    factor = points.new_empty((len(points), count))  # K ~ factor factor^T
    chosen: list[int] = []
    while len(chosen) < count:
        done = len(chosen)
        proposals = _draw(weights * rest, min(_BLOCK, count - done), generator)
        if len(proposals) == 0:
            break
        block = backend.gram(kernel, points[proposals], points[proposals]).to_dense()
        block = block - factor[proposals, :done] @ factor[proposals, :done].T
        before = rest[proposals]
        current = before.clone()
        columns: list[Tensor] = []

        def eliminate(
            place: int, current: Tensor = current, block: Tensor = block, columns: list[Tensor] = columns
        ) -> None:
            column = block[:, place] - sum((known * known[place] for known in columns), torch.zeros_like(current))
            column = column / current[place].sqrt()
            column[place] = current[place].sqrt()
            columns.append(column)
            current -= column.square()
            current[place] = 0.0
            current[current <= rounding] = 0.0

        places = _thinned(before, current, eliminate, generator)
        new = proposals[places]
        corner = torch.stack(columns, dim=1)[places].tril()  # (b, b), block[places][:, places] = corner corner^T
        for start in range(0, len(points), _TILE):
            tile = slice(start, start + _TILE)
            fresh = backend.gram(kernel, points[tile], points[new]).to_dense()
            fresh = fresh - factor[tile, :done] @ factor[new, :done].T
            fresh = torch.linalg.solve_triangular(corner, fresh.T, upper=False).T
            factor[tile, done : done + len(new)] = fresh
            rest[tile] -= fresh.square().sum(1)
        rest[rest <= rounding] = 0.0
        rest[new] = 0.0
        chosen += new.tolist()
    return torch.tensor(sorted(chosen), device=points.device)


def _draw(masses: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """``count`` indices drawn independently with probabilities ~ masses; none when there is no mass."""
    cumulated = masses.to(torch.float64).cumsum(0)
    total = float(cumulated[-1])
    if not total > 0.0:
        return torch.empty(0, dtype=torch.long, device=masses.device)
    heights = torch.from_numpy(generator.random(count)).to(cumulated) * total
    return torch.searchsorted(cumulated, heights, right=True).clamp_max(int(masses.nonzero()[-1]))


def _thinned(before: Tensor, current: Tensor, update: Callable[[int], None], generator: np.random.Generator) -> Tensor:
    """Places of the proposals that are accepted, in order: each with probability current / before at its turn.

    Proposals drawn by the masses before the block are so drawn by those at their turn. ``update`` changes ``current``
    for an accepted place. The first is always accepted.
    """
    accepted: list[int] = []
    for place, chance in enumerate(generator.random(len(before)).tolist()):
        if chance * float(before[place]) < float(current[place]):
            accepted.append(place)
            update(place)
    return torch.tensor(accepted, dtype=torch.long, device=before.device)
