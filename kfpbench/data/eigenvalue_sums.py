"""Sums of relaxation rates: the spectrum of a linear diffusion, in order, without enumerating what is not asked for."""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def leading_sums(single: NDArray[np.complex128] | Array, count: int) -> Array | NDArray[np.complex128]:
    """The ``count`` sums n . mu, n_i >= 0, of largest real part, with multiplicity; mu (d,) with negative real parts.

    Best first: a multiset of indices i_1 <= ... <= i_k has at most two successors, the last index repeated and the
    last index advanced, neither of larger real part, and every multiset has one predecessor. Each sum is rounded once
    (fsum), so equal sums are equal floats. Conjugates stay side by side: the positive imaginary part first.
    """
    order = np.lexsort((-single.imag, np.abs(single.imag), -single.real))
    real, imaginary = single.real[order].tolist(), single.imag[order].tolist()
    oscillates = any(imaginary)
    heap: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    values: list[complex] = []
    while heap:
        negative, chosen = heapq.heappop(heap)
        # complex values of one real part are put in order below: all of them are needed
        if len(values) >= count and not (oscillates and negative <= -values[-1].real * (1 + 1e-12)):
            break
        values.append(complex(0.0 - negative, math.fsum(imaginary[i] for i in chosen)))
        last = chosen[-1] if chosen else 0
        successors = [(*chosen, last)]
        if chosen and last + 1 < len(real):
            successors.append((*chosen[:-1], last + 1))
        for successor in successors:
            heapq.heappush(heap, (-math.fsum(real[i] for i in successor), successor))
    if not oscillates:
        return np.array([value.real for value in values]) + 0.0
    upper = sorted((value for value in values if value.imag >= 0), key=lambda value: (-value.real, value.imag))
    paired = [each for value in upper for each in ((value, value.conjugate()) if value.imag else (value,))]
    return np.array(paired[:count], dtype=np.complex128)
