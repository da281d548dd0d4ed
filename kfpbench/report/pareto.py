"""Which points no other point beats: the non-dominated set, its staircase, and dominance beyond the
intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import ParameterError, ShapeError

_SIGN = {"lower": 1.0, "higher": -1.0}


@dataclass(frozen=True)
class Front:
    """Row numbers: ``members`` are not dominated, ``excluded`` have a coordinate that is not finite."""

    members: tuple[int, ...]
    excluded: tuple[int, ...]


def pareto_front(points: Sequence[Sequence[float]], better: Sequence[str]) -> Front:
    """The rows that no other row dominates; rows that are not finite neither dominate nor count.

    A row dominates another when it is at least as good in every coordinate and better in one, so rows that
    tie in every coordinate are on the front together. ``better`` says 'lower' or 'higher' per coordinate.
    Cost O(n^2 k).

    Raises ShapeError when points and better do not agree, ParameterError for an unknown direction.
    """
    costs = _costs(points, better)
    finite = np.isfinite(costs).all(axis=1)
    members = [int(i) for i in np.flatnonzero(finite) if not _beaten(costs[i], costs[finite])]
    return Front(tuple(members), tuple(int(i) for i in np.flatnonzero(~finite)))


def clearly_dominated(
    lows: Sequence[Sequence[float]], highs: Sequence[Sequence[float]], better: Sequence[str]
) -> tuple[int, ...]:
    """Rows whose interval lies, in every coordinate, wholly on the worse side of the interval of one same
    other row.

    A stricter notion than domination of the point estimates: a dominated row that is not listed here might be
    on the front. A coordinate without an interval is given as low = high. Rows that are not finite are left
    out.

    Raises ShapeError and ParameterError as ``pareto_front``.
    """
    first, second = _costs(lows, better), _costs(highs, better)
    best, worst = np.minimum(first, second), np.maximum(first, second)
    finite = np.isfinite(best).all(axis=1) & np.isfinite(worst).all(axis=1)
    return tuple(int(i) for i in np.flatnonzero(finite) if (worst[finite] < best[i]).all(axis=1).any())


def staircase(
    points: Sequence[tuple[float, float]], better: tuple[str, str], corner: tuple[float, float]
) -> tuple[list[float], list[float]]:
    """The boundary of what the front attains in the plane, as the corners of a polyline, from best x to best
    y.

    ``corner`` is the worst point of the figure: the line enters at its y and leaves at its x. Empty for no
    points.
    """
    front = pareto_front(points, better)
    if not front.members:
        return [], []
    ordered = sorted({points[i] for i in front.members}, key=lambda point: _SIGN[better[0]] * point[0])
    xs, ys = [ordered[0][0]], [corner[1]]
    for x, y in ordered:
        xs += [x, x]
        ys += [ys[-1], y]
    return [*xs[1:], corner[0]], [*ys[1:], ys[-1]]


def _beaten(row: NDArray[np.float64], rows: NDArray[np.float64]) -> bool:
    return bool(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any())


def _costs(points: Sequence[Sequence[float]], better: Sequence[str]) -> NDArray[np.float64]:
    """The points with every coordinate turned so that lower is better, shape (n, k)."""
    unknown = [direction for direction in better if direction not in _SIGN]
    if unknown:
        raise ParameterError("a front needs a direction", got=unknown[0], allowed=tuple(_SIGN))
    if len(points) == 0:
        return np.empty((0, len(better)))
    costs = np.asarray(points, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[1] != len(better):
        raise ShapeError("one direction per coordinate", got=costs.shape, allowed=f"(n, {len(better)})")
    return costs * np.array([_SIGN[direction] for direction in better])
