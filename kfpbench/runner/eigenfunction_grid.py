"""The leading eigenfunctions of a spectrum on a grid that spans the fitted points, in one and two dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kfpbench.eigensolvers.spectrum import Spectrum
from kfpbench.store.eigenfunctions import FunctionGrid

Array = NDArray[np.float64]

_SIZES = {1: (200, 6), 2: (40, 3)}  # by dimension: points an axis, functions at most
_TAIL = 1e-3  # share of the weight left out at either end of an axis: there a function is extrapolated
_CONSTANT = 1e-3  # a function that varies less than this share of its size is the constant one
_REAL = 1e-9  # an imaginary part below this share of |value| is none


def function_grid(spectrum: Spectrum, log_density: Callable[[Array], Array] | None = None) -> FunctionGrid | None:
    """Up to 6 functions at 200 points, or up to 3 at 40 x 40; None in more dimensions, or with no function to show.

    The constant function is left out, and of a conjugate pair the second one, whose real part is the first one's. A
    function is turned so that it is real and positive where it is largest. Cost that of 200 or 1,600 evaluations.
    """
    points = spectrum.points.cpu().double().numpy()[spectrum.fitted]
    dimension = points.shape[1]
    if dimension not in _SIZES:
        return None
    count, most = _SIZES[dimension]
    weights = spectrum.pairs.weights.cpu().double().numpy()
    axes = tuple(np.linspace(*_span(points[:, axis], weights), count) for axis in range(dimension))
    at = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension)
    modes: list[int] = []
    shown: list[Array] = []
    for mode, function in enumerate(spectrum.eigenfunctions(at).T):
        largest = function[np.argmax(np.abs(function))]
        if len(modes) == most or not np.isfinite(largest) or largest == 0:
            continue
        value = spectrum.values[mode]
        turned = np.real(function * (np.conj(largest) / abs(largest)))
        if np.ptp(turned) < _CONSTANT * abs(largest) or value.imag < -_REAL * abs(value):
            continue
        modes.append(mode)
        shown.append(turned.reshape([count] * dimension))
    if not modes:
        return None
    density = None if log_density is None else np.exp(log_density(at)).reshape([count] * dimension)
    return FunctionGrid(axes, tuple(modes), np.stack(shown), density)


def _span(coordinate: Array, weights: Array) -> tuple[float, float]:
    """The interval that holds all of the weight but its tails."""
    order = np.argsort(coordinate)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.searchsorted(share, [_TAIL, 1 - _TAIL])
    ordered = coordinate[order]
    return float(ordered[low]), float(ordered[min(high, len(ordered) - 1)])
