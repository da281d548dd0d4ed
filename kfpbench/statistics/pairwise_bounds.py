"""The ends of the differences between all pairs of cells, at a stated error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import ParameterError
from kfpbench.metrics.intervals import jackknife_factor
from kfpbench.statistics.mean_interval import t_quantile
from kfpbench.statistics.observation import Observation
from kfpbench.statistics.paired_difference import FEWEST_ROWS, mean_difference, unpaired_stretch

Cells = Sequence[Sequence[Observation]]  # the repeats of every cell
Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


def pairwise_bounds(cells: Cells, one_sided: float) -> Bounds:
    """low, high (m, m): the ends of theta_i - theta_j, each of which errs with probability ``one_sided``.

    As ``paired_difference(...).bounds(one_sided)`` of every pair; all at once where the cells have equal seeds and are
    halved alike, which is the rule. A pair that may not be compared (another n, data set or features, no seed in
    common), or of which one metric could give no interval, has the ends -inf and inf: nothing is known of it. Cost
    O(m^2 R), memory O(m^2 + m R).
    """
    if _alike(cells):
        firsts = [repeats[0] for repeats in cells]
        if len(cells[0]) > 1:
            return _of_seeds(cells, one_sided)
        counts = {len(one.replicates) for one in firsts}
        if counts == {0} and not any(one.unknown for one in firsts):
            return _of_intervals(firsts, one_sided)
        if len(counts) == 1 and counts != {0} and firsts[0].n and len({one.n for one in firsts}) == 1:
            return _of_halves(firsts, firsts[0].n, one_sided)
    return _one_by_one(cells, one_sided)


def _alike(cells: Cells) -> bool:
    """Whether all cells may be compared, are finite and have the same seeds, in the same order."""
    everyone = [one for repeats in cells for one in repeats]
    if not everyone or any(one.matched != everyone[0].matched or not math.isfinite(one.value) for one in everyone):
        return False
    seeds = [one.seed for one in cells[0]]
    return len(set(seeds)) == len(seeds) and all([one.seed for one in repeats] == seeds for repeats in cells)


def _of_seeds(cells: Cells, one_sided: float) -> Bounds:
    """Student's interval of the differences per seed."""
    values = np.array([[one.value for one in repeats] for repeats in cells])  # (m, S)
    seeds = values.shape[1]
    half = t_quantile(1 - one_sided, seeds - 1) / math.sqrt(seeds) * _spread(values)
    means = values.mean(axis=1)
    fraction = np.array([any(one.fraction for one in repeats) for repeats in cells])
    return _open_where_few(means[:, None] - means, half, fraction, cells[0][0].n, seeds)


def _of_halves(cells: Sequence[Observation], n: int, one_sided: float) -> Bounds:
    """The delete-half jackknife's interval of the differences."""
    replicates = np.array([one.replicates for one in cells])  # (m, R)
    extra = np.array([one.extra_sd for one in cells])
    error = np.sqrt((jackknife_factor(n) * _spread(replicates)) ** 2 + extra[:, None] ** 2 + extra**2)
    values = np.array([one.value for one in cells])
    difference = values[:, None] - values
    half = t_quantile(1 - one_sided, replicates.shape[1] - 1) * error
    return _open_where_few(difference, half, np.array([one.fraction for one in cells]), n, 1)


def _of_intervals(cells: Sequence[Observation], one_sided: float) -> Bounds:
    """Interval arithmetic of the cells' own intervals; exact where one of the two has none."""
    values, lows, highs = (np.array([getattr(one, name) for one in cells]) for name in ("value", "low", "high"))
    known = np.array([one.has_interval for one in cells])
    both = known[:, None] & known
    difference = values[:, None] - values
    stretch = unpaired_stretch(one_sided)
    below = np.where(both, stretch * ((values - lows)[:, None] + (highs - values)), 0.0)
    above = np.where(both, stretch * ((highs - values)[:, None] + (values - lows)), 0.0)
    return difference - below, difference + above


def _one_by_one(cells: Cells, one_sided: float) -> Bounds:
    low, high = np.zeros((len(cells), len(cells))), np.zeros((len(cells), len(cells)))
    for i in range(len(cells)):
        for j in range(i):
            try:
                low[i, j], high[i, j] = mean_difference([(cells[i], cells[j])]).bounds(one_sided)
            except ParameterError:
                low[i, j], high[i, j] = -math.inf, math.inf
            low[j, i], high[j, i] = -high[i, j], -low[i, j]
    return low, high


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviations (m, m) of the differences of the rows of (m, R)."""
    return np.array([np.std(values - row, axis=1, ddof=1) for row in values])


def _open_where_few(
    difference: NDArray[np.float64], half: NDArray[np.float64], fraction: NDArray[np.bool_], n: int | None, seeds: int
) -> Bounds:
    """difference -+ half, widened to hold 0 where fractions (m,) of n rows differ by too few of them."""
    low, high = difference - half, difference + half
    rows = math.inf if n is None else np.round(np.abs(difference) * n * seeds, 6)
    few = (fraction[:, None] | fraction) & (rows < FEWEST_ROWS)
    return np.where(few, np.minimum(low, 0.0), low), np.where(few, np.maximum(high, 0.0), high)
