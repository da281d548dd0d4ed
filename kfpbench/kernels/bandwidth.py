"""Bandwidths from data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kfpbench.errors import NumericalError

_LANDMARKS = 1000  # evenly spaced rows from which the median is taken


def median_distance(points: Tensor) -> float:
    """Median distance between distinct pairs of points (N, d), from at most 1,000 evenly spaced rows.

    Cost O(min(N, 1000)^2 d). Source: the "median heuristic", see Garreau, Jitkrittum, Kanagawa (2017). Raises
    NumericalError when fewer than two points differ, or points are not finite.
    """
    count = len(points)
    rows = points[torch.linspace(0, count - 1, min(count, _LANDMARKS), device=points.device).long()]
    distances = torch.nn.functional.pdist(rows.double())
    median = float(distances.median()) if distances.numel() else 0.0
    if not 0.0 < median < math.inf:
        raise NumericalError(
            "the median distance of the points is not positive and finite: all (nearly) equal, or not finite",
            got=median,
            remedy="Give an explicit bandwidth, or check the points.",
        )
    return median
