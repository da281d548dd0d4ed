"""Eigenvalues beside the exact ones: which mode stands for which, and how far off it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ZERO_SHARE = 0.1  # of the slowest exact rate: a mode slower than this is the constant function
_SAME_REAL_PART = 1e-6  # exact values whose real parts agree to this are one group
SPARE = 8  # exact values beyond those that are matched, so that the last group is seen whole


@dataclass(frozen=True)
class Match:
    """The exact value that a mode stands for, and |value - exact| / |exact|."""

    exact: complex
    error: float


def match_eigenvalues(
    values: NDArray[np.complex128], flags: Sequence[str], exact: NDArray[np.complex128]
) -> list[Match | None]:
    """A match for each sound non-zero mode, None for the others; one entry for each value.

    The k-th sound non-zero mode by descending real part stands for the k-th exact non-zero value: a spurious mode that
    is not flagged shifts those after it, and shows. Within a group of exact values of one same real part (a conjugate
    pair, a real value beside one) modes are matched to the nearest imaginary part, as rounding decides their order.

    Shapes: values (k,), flags (k,), exact (m,) by descending real part, 0 first. Cost O(k^3) for one group of k.
    """
    from scipy.optimize import linear_sum_assignment

    truth = exact[exact != 0]
    matches: list[Match | None] = [None] * len(values)
    sound = [place for place, flag in enumerate(flags) if not flag]
    if len(truth) == 0 or not sound:
        return matches
    slowest = min(sound, key=lambda place: abs(values[place]))
    if abs(values[slowest]) < ZERO_SHARE * abs(truth[0]):
        sound.remove(slowest)
    sound.sort(key=lambda place: -values[place].real)
    for group in _groups(truth):
        places = np.array(sound[group.start : group.stop], dtype=int)
        if len(places) == 0:
            break
        members = truth[group]
        distance = np.abs(values[places].imag[:, None] - members.imag[None, :])
        for row, column in zip(*linear_sum_assignment(distance), strict=True):
            value, stands_for = complex(values[places[row]]), complex(members[column])
            matches[places[row]] = Match(stands_for, abs(value - stands_for) / abs(stands_for))
    return matches


def _groups(exact: NDArray[np.complex128]) -> list[slice]:
    """Runs of values of one same real part."""
    groups, start = [], 0
    for place in range(1, len(exact) + 1):
        if place == len(exact) or abs(exact[place].real - exact[start].real) > _SAME_REAL_PART * abs(exact[start].real):
            groups.append(slice(start, place))
            start = place
    return groups
