"""Bandwidths from data."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from kfpbench.errors import NumericalError

_LANDMARKS = 1000  # evenly spaced rows from which a bandwidth is taken
_COARSE = 33  # lengths at which the likelihood is looked at before its maximum is refined
_REMEDY = "Give an explicit bandwidth, or check the points."


def auto_length(points: Tensor) -> float:
    """The length of ``bandwidth="auto"`` for points (N, d): local spacing scaled to a cluster of all points.

    From m rows, at most 1,000 evenly spaced ones, without zero distances; k = max(5, 2 % of m); r_k the median over the
    rows of the distance to the k-th neighbour; d_e = log 2 / log(r_2k / r_k), between 1 and d, an effective dimension:

        l = (1/2) d_e^(1/4) r_k (m / k)^(1 / d_e).

    r_k (m / k)^(1 / d_e) is the local density to the power -1 / d_e: it follows the width of the wells that hold the
    points, where the median distance sees how far the wells lie apart. The constants were set on Ornstein-Uhlenbeck
    processes and on double wells. Scale equivariant. Cost O(min(N, 1000)^2 d). Raises NumericalError when fewer than
    two points differ, or points are not finite.
    """
    rows = _landmarks(points)
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    m, d = rows.shape
    if m < 2 or not bool(torch.isfinite(rows).all()):
        return median_distance(points)  # raises
    k = min(max(5, math.ceil(0.02 * m)), max((m - 1) // 2, 1))
    # each row's nearest neighbours in ascending order: to sort whole rows took a third of a fit of 1,000 points
    positive = torch.where(distances > 0, distances, math.inf).topk(min(2 * k, m), dim=1, largest=False).values
    near, far = (float(positive[:, min(j, m - 1) - 1].median()) for j in (k, 2 * k))
    if not 0.0 < near < math.inf:
        return median_distance(points)  # fewer distinct rows than neighbours, or a typed error
    growth = math.log(far / near) if near < far < math.inf else 0.0
    effective = min(max(math.log(2.0) / growth, 1.0), float(d)) if growth > 0.0 else float(d)
    return 0.5 * effective**0.25 * near * (m / k) ** (1.0 / effective)


def median_distance(points: Tensor) -> float:
    """Median distance between distinct pairs of points (N, d), from at most 1,000 evenly spaced rows.

    Cost O(min(N, 1000)^2 d). Source: the "median heuristic", see Garreau, Jitkrittum, Kanagawa (2017). Raises
    NumericalError when fewer than two points differ, or points are not finite.
    """
    distances = torch.nn.functional.pdist(_landmarks(points))
    median = float(distances.median()) if distances.numel() else 0.0
    if not 0.0 < median < math.inf:
        raise NumericalError(
            "the median distance of the points is not positive and finite: all (nearly) equal, or not finite",
            got=median,
            remedy=_REMEDY,
        )
    return median


def max_likelihood_distance(points: Tensor) -> float:
    """The length l of a Gaussian density estimate that maximises its leave-one-out likelihood on points (N, d).

    With n rows, at most 1,000 of them, evenly spaced and without repetitions (a repeated row makes the likelihood grow
    without bound as l tends to 0), and s_ij = |x_i - x_j|^2:

        LL(l) = sum_i log sum_{j != i} exp(-s_ij / (2 l^2)) - n d log l + constant
        dLL / dlog l = sum_i E_i[s] / l^2 - n d,  E_i[s] the mean of s_ij under weights exp(-s_ij / (2 l^2))

    As min_j s_ij <= E_i[s] <= mean_j s_ij, every maximum lies where d l^2 is between the means over i of these two.
    That interval is searched on a grid in log l, since LL may have several maxima, and by Brent's method around the
    best value. The relative accuracy is 1e-6. The density needs neighbours within about l sqrt(d): in high dimension l
    is far below every distance, and as a kernel's length leaves the Gram matrix close to the identity.

    Cost O(min(N, 1000)^2 (d + 60)). Source: Habbema, Hermans, van den Broek (1974); Duin (1976), IEEE Transactions on
    Computers 25(11), 1175-1179. Raises NumericalError when fewer than two points differ, or points are not finite.
    """
    rows = _landmarks(points)
    if len(rows) and bool(rows.isfinite().all()):
        rows = rows.unique(dim=0)
    dimension = rows.shape[1]
    distances = torch.nn.functional.pdist(rows)
    unit = float(distances.square().mean().sqrt()) if distances.numel() else 0.0
    squared = _square_form((distances / unit).square(), len(rows)) if unit else distances.new_zeros(1, 1)
    nearest = float(squared.amin(dim=1).mean())
    if not (0.0 < unit < math.inf and nearest > 0.0):
        raise NumericalError(
            "the points have no bandwidth of maximum likelihood: all (nearly) equal, or not finite",
            got=unit,
            remedy=_REMEDY,
        )

    def loss(log_length: float) -> float:
        exponents = squared * (-0.5 * math.exp(-2.0 * log_length))
        return dimension * log_length - float(exponents.logsumexp(dim=1).mean())

    longest = -0.5 * math.log(dimension)  # in this unit the mean square distance is 1
    shortest = longest + min(0.0, 0.5 * math.log(nearest))
    step = (longest - shortest) / (_COARSE - 1)
    best = min((shortest + index * step for index in range(_COARSE)), key=loss)
    around = (max(shortest, best - step), min(longest, best + step))
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-7})
    return unit * math.exp(float(found.x))


def _square_form(condensed: Tensor, count: int) -> Tensor:
    """The symmetric matrix (n, n) of pairwise entries (n (n - 1) / 2,); infinity on the diagonal: no own neighbour."""
    full = torch.full((count, count), math.inf, dtype=condensed.dtype, device=condensed.device)
    first, second = torch.triu_indices(count, count, 1, device=condensed.device)
    full[first, second] = condensed
    full[second, first] = condensed
    return full


def _landmarks(points: Tensor) -> Tensor:
    """At most 1,000 evenly spaced rows of points (N, d), in float64."""
    count = len(points)
    return points[torch.linspace(0, count - 1, min(count, _LANDMARKS), device=points.device).long()].double()
