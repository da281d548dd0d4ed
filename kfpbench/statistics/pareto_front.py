"""Which points no other point beats: the non-dominated set and its staircase."""

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
    costs = turned(points, better)
    finite = np.isfinite(costs).all(axis=1)
    members = [int(i) for i in np.flatnonzero(finite) if not _beaten(costs[i], costs[finite])]
    return Front(tuple(members), tuple(int(i) for i in np.flatnonzero(~finite)))


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


def turned(points: Sequence[Sequence[float]], better: Sequence[str]) -> NDArray[np.float64]:
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
