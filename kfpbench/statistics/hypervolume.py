"""Hypervolume: the share of a box that a set of points dominates, exact in two and three objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import CapabilityError, ParameterError, ShapeError
from kfpbench.metrics.intervals import jackknife_sd
from kfpbench.statistics.mean_interval import CONFIDENCE, mean_and_error, t_quantile
from kfpbench.statistics.observation import Observation
from kfpbench.statistics.pairwise_bounds import Cells
from kfpbench.statistics.pareto_front import turned

MARGIN = 0.1
_UPPER = 0.5 + CONFIDENCE / 2


@dataclass(frozen=True)
class Volume:
    """A share of the box between the best values and the reference point, with its 95 % interval (NaN: none)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    how: str = "no interval"


@dataclass(frozen=True)
class Frame:
    """The box in which volumes are taken: costs (lower is better, logarithms where ``log``), ideal and reference."""

    better: tuple[str, ...]
    log: tuple[bool, ...]
    ideal: NDArray[np.float64]
    reference: NDArray[np.float64]

    def costs(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (m, K) in the box's unit coordinates: 0 ideal, 1 the reference point."""
        return (_costs(points, self.better, self.log) - self.ideal) / (self.reference - self.ideal)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Lebesgue measure of the points that some given point dominates and that dominate ``reference``; lower is better.

    Points (m, K), K = 1, 2 or 3; those that do not dominate the reference strictly count nothing. In the plane a sweep
    along the first coordinate, O(m log m); in three dimensions the sum over slices of the third, O(m^2 log m). Raises
    ShapeError for points of another dimension than the reference, ParameterError for NaN, CapabilityError for K > 3.
    Source: Zitzler and Thiele, PPSN V, LNCS 1498, p. 292 (1998).
    """
    corner = np.asarray(reference, dtype=np.float64)
    rows = np.asarray(points, dtype=np.float64).reshape(len(points), -1) if len(points) else np.empty((0, len(corner)))
    if corner.ndim != 1 or rows.shape[1] != len(corner):
        raise ShapeError("one coordinate per objective", got=(rows.shape, corner.shape), allowed="(m, K) and (K,)")
    if np.isnan(rows).any() or not np.isfinite(corner).all():
        raise ParameterError("a volume needs numbers", got="NaN", allowed="points without NaN, a finite reference")
    if not 1 <= len(corner) <= 3:
        raise CapabilityError("hypervolumes are exact in one to three objectives", got=len(corner), allowed="1, 2, 3")
    return _volume(rows[(rows < corner).all(axis=1)], corner)


def _volume(rows: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    if len(rows) == 0:
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - rows.min())
    if len(corner) == 2:
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        height = np.minimum.accumulate(rows[:, 1])  # of the staircase right of each point
        widths = np.diff(np.append(rows[:, 0], corner[0]))
        return float(widths @ (corner[1] - height))
    rows = rows[np.argsort(rows[:, 2])]
    depths = np.diff(np.append(rows[:, 2], corner[2]))
    return math.fsum(
        depth * _volume(rows[: number + 1, :2], corner[:2]) for number, depth in enumerate(depths) if depth > 0
    )


def frame_of(points: Sequence[Sequence[float]], better: Sequence[str], log: Sequence[bool]) -> Frame:
    """The box of the points (m, K) of all cells that are compared.

    ``log`` takes the logarithm of an objective (seconds: a factor of two is worth the same everywhere). Ideal: the
    best value of each objective. Reference point: the worst value of each, moved a tenth (``MARGIN``) of the range
    further, so that the extreme cells count too (Ishibuchi et al., GECCO 2018, on that choice); where all are equal,
    one unit further. Raises ParameterError for no points, values that are not finite, or not positive under ``log``.
    """
    if len(points) == 0:
        raise ParameterError("a box needs points")
    costs = _costs(np.asarray(points, dtype=np.float64), better, log)
    if not np.isfinite(costs).all():
        raise ParameterError("a volume needs finite values, positive ones on a logarithmic scale", got="others")
    best, worst = costs.min(axis=0), costs.max(axis=0)
    span = worst - best
    return Frame(tuple(better), tuple(log), best, worst + np.where(span > 0, MARGIN * span, 1.0))


def front_volume(objectives: Sequence[Cells], frame: Frame, without: Sequence[int] = ()) -> Volume:
    """The share of ``frame``'s box that the cells dominate, or, with ``without``, what those cells add to the others.

    ``objectives[k][i]`` are the repeats of cell i in objective k. What cells add is V(all) - V(the others) >= 0.
    Interval: cells of one seed were halved alike, so the volume of the cells' r-th half-sample values, r = 1..R, gives
    V_r, and V -+ t_(R-1) s is the delete-half jackknife's interval. Half-sample values are moved by a constant to have
    the cell's value as their mean: the bias of n/2 (twice that of n for a Frechet distance) would carry them out of the
    box, where nothing varies. Objectives without half-sample values (times) stay at their values: their part in the
    uncertainty, small beside that of the qualities, is left out, and said so in ``how``. With several common seeds:
    Student's interval of the volumes per seed. The value is that of the means over the seeds (its own for one seed). A
    volume of estimates is biased upwards, since noise that looks like progress counts; the interval is about the
    expectation at this n, bias included. Cost O((R + 1) V), V one ``hypervolume``.
    """
    values = np.array([[_mean(repeats) for repeats in cells] for cells in objectives]).T  # (m, K)
    value = _share(values, frame, without)
    varied, n, how = _variations(objectives)
    if varied is None:
        return Volume(value)
    volumes = [_share(points, frame, without) for points in varied]
    error = mean_and_error(volumes)[1] if n is None else jackknife_sd(volumes, n)
    half = t_quantile(_UPPER, len(volumes) - 1) * error
    return Volume(value, max(value - half, 0.0), min(value + half, 1.0), how)


def _share(points: NDArray[np.float64], frame: Frame, without: Sequence[int]) -> float:
    ones = [1.0] * len(frame.better)
    units = frame.costs(points).clip(0.0)  # half-sample values may lie outside the box of the whole samples
    whole = hypervolume(units.tolist(), ones)
    if not without:
        return whole
    kept = [i for i in range(len(units)) if i not in set(without)]
    return whole - hypervolume(units[kept].tolist(), ones)


def _variations(objectives: Sequence[Cells]) -> tuple[list[NDArray[np.float64]] | None, int | None, str]:
    """Points (m, K) per seed, or per half-sample of the one seed; n in the latter case; and what was done."""
    everyone = [repeats for cells in objectives for repeats in cells]
    common = set.intersection(*({one.seed for one in repeats} for repeats in everyone))
    if len(common) > 1:
        return [_points(objectives, seed) for seed in sorted(common)], None, f"t over {len(common)} seeds"
    halved = [cells for cells in objectives if all(len(repeats) == 1 and repeats[0].replicates for repeats in cells)]
    firsts = [repeats[0] for cells in halved for repeats in cells]
    counts = {len(one.replicates) for one in firsts}
    sizes = {(one.n, one.seed) for one in firsts}
    if len(counts) != 1 or len(sizes) != 1:
        return None, None, "no interval"
    n = firsts[0].n
    columns = [  # of each objective, (m, R)
        np.array([_centred(repeats[0]) if cells in halved else [_mean(repeats)] * min(counts) for repeats in cells])
        for cells in objectives
    ]
    points = list(np.stack(columns).transpose(2, 1, 0))
    fixed = "" if len(halved) == len(objectives) else "; the times are taken as exact"
    return points, n, f"delete-half jackknife, R = {len(points)}{fixed}"


def _centred(one: Observation) -> NDArray[np.float64]:
    """The half-sample values about the value, (R,)."""
    replicates = np.asarray(one.replicates)
    return one.value + replicates - replicates.mean()


def _points(objectives: Sequence[Cells], seed: int) -> NDArray[np.float64]:
    return np.array([[next(one.value for one in r if one.seed == seed) for r in cells] for cells in objectives]).T


def _mean(repeats: Sequence[Observation]) -> float:
    return math.fsum(one.value for one in repeats) / len(repeats)


def _costs(points: NDArray[np.float64], better: Sequence[str], log: Sequence[bool]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(np.asarray(log, dtype=bool), np.log(np.where(log, points, 1.0)), points)
    return turned(scaled.tolist(), better)
