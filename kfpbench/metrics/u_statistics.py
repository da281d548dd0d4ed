"""Means of a kernel over all pairs of rows, tile by tile, and the variance of what two samples make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.metrics.pairwise_distances import TILE_ELEMENTS, squared_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Block = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class KernelMeans:
    """Means of k(a_i, b_j), for a = b over the pairs i != j.

    ``of_subsets`` (S,) over the pairs of each subset; over all pairs: ``of_rows`` (n,) over j, ``of_columns`` (m,)
    over i, ``of_squares`` the mean of k^2.
    """

    of_subsets: NDArray[np.float64]
    of_rows: NDArray[np.float64]
    of_columns: NDArray[np.float64]
    of_squares: float


def distance_block(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """|a_i - b_j|, (len(a), len(b)); pass clouds that are ``centred``."""
    squared = squared_distances(a, b)
    return np.sqrt(squared, out=squared)


def kernel_means(
    block: Block,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    parts_a: NDArray[np.bool_],
    parts_b: NDArray[np.bool_],
    elements: int = TILE_ELEMENTS,
) -> KernelMeans:
    """Means over pairs of rows of a (n, d) and b (m, d), or over pairs i != j where a is b.

    ``block`` returns a fresh array of k(a_i, b_j) for a few rows of a and all of b. Subsets: parts_a (S, n), parts_b
    (S, m) boolean. Each value of k is computed once. Cost O(n m (c + S)) for a kernel of cost c, memory O(elements +
    (n + m) S).
    """
    same = a is b
    n, m = len(a), len(b)
    in_a, in_b = parts_a.T.astype(np.float64), parts_b.T.astype(np.float64)
    subsets, of_rows, of_columns, squares = np.zeros(len(parts_a)), np.empty(n), np.zeros(m), 0.0
    step = max(1, elements // m)
    for start in range(0, n, step):
        tile = block(a[start : start + step], b)
        rows = slice(start, start + len(tile))
        if same:
            here = np.arange(len(tile))
            tile[here, start + here] = 0.0
        subsets += np.einsum("is,is->s", in_a[rows], tile @ in_b)
        of_rows[rows] = tile.sum(axis=1)
        of_columns += tile.sum(axis=0)
        squares += float(np.vdot(tile, tile))
    size_a, size_b = in_a.sum(axis=0), in_b.sum(axis=0)
    own = 1 if same else 0
    return KernelMeans(
        of_subsets=subsets / (size_a * (size_b - own)),
        of_rows=of_rows / (m - own),
        of_columns=of_columns / (n - own),
        of_squares=squares / (n * (m - own)),
    )


def two_sample_statistic(
    block: Block,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    parts_x: NDArray[np.bool_],
    parts_y: NDArray[np.bool_],
    elements: int = TILE_ELEMENTS,
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The U-statistic mean k(x, x') + mean k(y, y') - 2 mean k(x, y), and the two parts of its variance.

    Shapes: x (n, d), y (m, d), parts_x (S, n), parts_y (S, m) boolean -> the statistic of each pair of subsets (S,),
    and for all rows (first, second), whose sum is its variance; NaN for fewer than four rows. Unbiased: the diagonals
    are left out.

    The variance follows from Hoeffding's decomposition, whose parts are uncorrelated,

        first = 4 s_x / n + 4 s_y / m
        second = 2 z_xx / (n (n - 1)) + 2 z_yy / (m (m - 1)) + 4 z_xy / (n m)

    where s_x is the variance over x of E k(x, x') - E k(x, y), likewise s_y, and z the variance of k less its means
    given one argument. Each is estimated from means over rows and over squares, with the part of z in the variance of
    such a mean subtracted. Between equal laws the first part vanishes, and the second, which an estimate by the
    delete-half jackknife holds three times, is the variance; the estimate of the first is then noise cut at 0.

    Source: Hoeffding, Ann. Math. Stat. 19(3):293 (1948), section 5; for the estimate of such a variance from sums over
    rows Sutherland et al., "Generative models and model criticism via optimized MMD", ICLR 2017.
    """
    within_x = kernel_means(block, x, x, parts_x, parts_x, elements)
    within_y = kernel_means(block, y, y, parts_y, parts_y, elements)
    across = kernel_means(block, x, y, parts_x, parts_y, elements)
    values = within_x.of_subsets + within_y.of_subsets - 2.0 * across.of_subsets
    n, m = len(x), len(y)
    if min(n, m) < 4:
        return values, (math.nan, math.nan)
    z_xx, z_yy, z_xy = _interaction_within(within_x), _interaction_within(within_y), _interaction_across(across)
    s_x = float(np.var(within_x.of_rows - across.of_rows, ddof=1)) - z_xx / (n - 1) - z_xy / m
    s_y = float(np.var(within_y.of_rows - across.of_columns, ddof=1)) - z_yy / (m - 1) - z_xy / n
    first = max(4.0 * s_x / n + 4.0 * s_y / m, 0.0)
    second = 2.0 * z_xx / (n * (n - 1)) + 2.0 * z_yy / (m * (m - 1)) + 4.0 * z_xy / (n * m)
    return values, (first, second)


def _interaction_within(means: KernelMeans) -> float:
    """Var k(x, x') less twice the variance of E[k | x], at least 0."""
    n = len(means.of_rows)
    variance = means.of_squares - float(means.of_rows.mean()) ** 2
    excess = variance - 2.0 * float(np.var(means.of_rows, ddof=1))
    return max(excess * (n - 1) / (n - 3), 0.0)  # a mean over n - 1 rows holds 1 / (n - 1) of it


def _interaction_across(means: KernelMeans) -> float:
    """Var k(x, y) less the variances of E[k | x] and E[k | y], at least 0."""
    n, m = len(means.of_rows), len(means.of_columns)
    variance = means.of_squares - float(means.of_rows.mean()) ** 2
    excess = variance - float(np.var(means.of_rows, ddof=1)) - float(np.var(means.of_columns, ddof=1))
    return max(excess / (1.0 - 1.0 / n - 1.0 / m), 0.0)
