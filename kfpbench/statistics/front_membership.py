"""Which cells are on the Pareto front surely, possibly, or not, given what their differences leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import ParameterError, ShapeError
from kfpbench.statistics.mean_interval import CONFIDENCE
from kfpbench.statistics.observation import Observation
from kfpbench.statistics.pairwise_bounds import Cells, pairwise_bounds

Membership = Literal["surely", "possibly", "not"]
_SIGN = {"lower": 1.0, "higher": -1.0}


@dataclass(frozen=True)
class FrontMembership:
    """The class of every cell, and the error of one end of one difference from which they were made."""

    classes: tuple[Membership, ...]
    one_sided: float

    def members(self, which: Membership) -> tuple[int, ...]:
        """The numbers of the cells of that class."""
        return tuple(i for i, own in enumerate(self.classes) if own == which)


def front_membership(
    objectives: Sequence[Cells], better: Sequence[str], *, error: float = (1 - CONFIDENCE) / 2
) -> FrontMembership:
    """The class of every cell: ``objectives[k][i]`` are the repeats of cell i in objective k.

    Every pair of cells has an interval of its difference in every objective: paired where the cells are, else
    interval arithmetic; a value without an interval is exact. Let cost be the objective turned so that lower is
    better. Cell i is

        'not'       when one other cell j is surely no worse in every objective and surely better in one:
                    low_k(i, j) >= 0 for all k and > 0 for one: i is dominated for every combination of values in the
                    intervals;
        'surely'    when no combination of values in the intervals lets another cell dominate it: for every j there
                    is an objective with high_k(i, j) < 0, or both are exact and equal in all objectives;
        'possibly'  otherwise: the front's members cannot be told apart from it.

    Error: each end of a difference errs with probability e = ``error`` / (J K), J other cells and K objectives with
    intervals (Bonferroni). A wrong 'surely' needs one of J K ends to err, a wrong 'not' one of J; a cell is either on
    the front or not, so its class 'surely' or 'not' is wrong with probability at most ``error`` = 2.5 %, for each cell.
    It is not corrected for the number of cells that are classified. With one objective this is a choice of the best
    cell, as in multiple comparisons with the best (Hsu, "Multiple Comparisons", 1996, ch. 4).

    Values must be finite. Cost O(m^2 (R + K)). Raises ShapeError and ParameterError for objectives and directions that
    do not agree.
    """
    if len(objectives) != len(better) or len({len(cells) for cells in objectives}) > 1:
        raise ShapeError("one direction per objective, and every cell in each", got=(len(objectives), len(better)))
    if unknown := [direction for direction in better if direction not in _SIGN]:
        raise ParameterError("a front needs a direction", got=unknown[0], allowed=tuple(_SIGN))
    count = len(objectives[0]) if objectives else 0
    uncertain = sum(any(map(_is_uncertain, cells)) for cells in objectives)
    one_sided = error / (max(count - 1, 1) * max(uncertain, 1))
    lows, highs = [], []
    for cells, direction in zip(objectives, better, strict=True):
        low, high = pairwise_bounds(cells, one_sided)
        lows.append(low if direction == "lower" else -high)
        highs.append(high if direction == "lower" else -low)
    return FrontMembership(_classes(np.array(lows), np.array(highs)) if count else (), one_sided)


def _classes(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[Membership, ...]:
    """Classes from the bounds of cost_i - cost_j, (K, m, m)."""
    others = ~np.eye(low.shape[1], dtype=np.bool_)
    # [i, j]: j dominates i whatever the values, and: some values let j dominate i
    beaten: NDArray[np.bool_] = np.all(low >= 0, axis=0) & np.any(low > 0, axis=0) & others
    reachable: NDArray[np.bool_] = np.all(high >= 0, axis=0) & np.any(high > 0, axis=0) & others
    return tuple(
        "not" if is_beaten else "possibly" if is_reached else "surely"
        for is_beaten, is_reached in zip(np.any(beaten, axis=1), np.any(reachable, axis=1), strict=True)
    )


def _is_uncertain(repeats: Sequence[Observation]) -> bool:
    return len(repeats) > 1 or any(one.has_interval for one in repeats)
