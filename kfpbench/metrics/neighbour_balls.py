"""Balls that reach to the k-th nearest neighbour: the manifold estimate of precision, recall and coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.errors import ParameterError
from kfpbench.metrics.intervals import REPLICATES
from kfpbench.metrics.pairwise_distances import TILE_ELEMENTS, row_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BallCounts:
    """For points x and balls around y, on each of S subsets: who lies in what.

    ``balls_of_point`` (S, n) counts the balls that hold x_i; ``point_in_ball`` (S, m) says whether the ball
    of y_j holds any point. Rows that are not of the subset count 0 and False.
    """

    balls_of_point: NDArray[np.int64]
    point_in_ball: NDArray[np.bool_]


def check_neighbours(k: int, n: int, where: str) -> None:
    """Refuse a k that n points do not have. Raises ParameterError."""
    if not 1 <= k < n:
        raise ParameterError(
            "there are not that many neighbours",
            got=k,
            allowed=f"1 <= k < n = {n}",
            remedy="Lower k, or draw more samples.",
            where=where,
        )


def squared_radii(
    points: NDArray[np.float64], k: int, parts: NDArray[np.bool_], elements: int = TILE_ELEMENTS
) -> NDArray[np.float64]:
    """Squared distance of each point to its k-th nearest other point, within each subset.

    Shapes: points (n, d), parts (S, n) boolean -> (S, n), -inf (an empty ball) for points outside the subset.
    Every subset needs more than k points. Each distance is computed once: a list of the 4 k + 40 nearest
    serves all subsets, and the few rows whose list holds fewer than k of a subset are looked up in full. Cost
    O(n^2 d) plus O(S n k); memory O(elements + S n).
    """
    radii = np.full(parts.shape, -np.inf)
    listed = min(len(points) - 1, 4 * k + 40)
    for start, tile in row_tiles(points, points, elements):
        rows = np.arange(len(tile))
        tile[rows, start + rows] = np.inf  # a point is not its own neighbour; its copies are
        nearest = np.argpartition(tile, listed - 1, axis=1)[:, :listed]
        distances = np.take_along_axis(tile, nearest, axis=1)
        order = np.argsort(distances, axis=1)
        nearest = np.take_along_axis(nearest, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        for s, part in enumerate(parts):
            chosen = np.flatnonzero(part[start : start + len(tile)])
            kth = (part[nearest[chosen]].cumsum(axis=1) < k).sum(axis=1)  # its place in the list
            found = kth < listed
            radii[s, start + chosen[found]] = distances[chosen[found], kth[found]]
            rest = chosen[~found]
            if len(rest):
                block = tile[np.ix_(rest, np.flatnonzero(part))]
                radii[s, start + rest] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return radii


def count_balls(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    radii_y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    *,
    tolerance: float,
    elements: int = TILE_ELEMENTS,
) -> BallCounts:
    """Count closed balls |x - y_j|^2 <= radii_y[s, j] + tolerance on each subset.

    Shapes: x (n, d), y (m, d), radii_y (S, m) squared, -inf for no ball; parts_x (S, n) boolean.
    ``tolerance`` is the rounding of squared distances, so that a point on the boundary is inside on every
    machine and for every tiling. Each distance is computed once: only pairs inside the largest of a ball's S
    radii are looked at again. Cost O(n m d) plus O(S) per such pair (about n k of them), memory O(elements).
    """
    subsets, n, m = len(parts_x), len(x), len(y)
    counts = np.zeros((subsets, n), dtype=np.int64)
    hit = np.zeros((subsets, m), dtype=bool)
    bounds = radii_y + tolerance
    largest = bounds.max(axis=0)
    for start, tile in row_tiles(x, y, elements):
        row, ball = np.nonzero(tile <= largest)
        squared = tile[row, ball]
        row += start
        for s in range(subsets):
            inside = parts_x[s, row] & (squared <= bounds[s, ball])
            counts[s] += np.bincount(row[inside], minlength=n)
            hit[s, ball[inside]] = True
    return BallCounts(counts, hit)


def replicates_for(n: int, k: int) -> int:
    """Half-samples for an interval: 20, or 0 where a half has at most k rows, so no k-th neighbour."""
    return REPLICATES if n // 2 > k else 0
