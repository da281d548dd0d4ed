"""Overdamped Langevin dynamics on the line: quadrature, exact sampling and the spectrum of its generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from kfpbench.data.reference_problem import TAIL, Array, check_mode_count, trapezoid
from kfpbench.errors import NumericalError

_SCAN = 4001  # nodes that look for the lowest minimum and for the ends of the support
_CELLS = 2048  # of the inverse distribution function
_CHUNK = 100_000  # rows inverted at a time: 8 nodes each, so a few dozen MB
_GRIDS = ((161, 80.0), (321, 90.0), (641, 100.0), (1281, 110.0))  # nodes; beta (V - min V) at the ends
_TOLERANCE = 1e-10
_ROUNDING = 1e-14  # of a singular value, relative to the largest one


@dataclass(frozen=True)
class LangevinLine:
    """dx = -V'(x) dt + sqrt(2 / beta) dw on the real line: L phi = -V' phi' + (1 / beta) phi'', q = exp(-beta V) / Z.

    ``potential`` and ``slope`` are V and V', elementwise on arrays of any shape; V is analytic and grows at least
    quadratically, monotonically outside its wells. ``label`` names the problem in errors.
    """

    potential: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    beta: float
    label: str

    def log_density(self, x: Array) -> Array:
        """log q(x), normalised by a trapezoidal sum that is converged to rounding; shape of x."""
        low, high, lowest = self._support(-math.log(TAIL))
        nodes, steps = trapezoid(low, high, _SCAN, self.label)
        mass = float(np.sum(steps * self._relative(nodes, lowest)))
        return np.asarray(-self.beta * (self.potential(x) - lowest) - math.log(mass))

    def quadrature(self, count: int) -> tuple[Array, Array]:
        """Equally spaced nodes (count,) between the outermost points where q is 1e-16 of its maximum, and weights of q.

        Trapezoidal, so the error falls geometrically with ``count``. Raises ParameterError for count < 2.
        """
        low, high, lowest = self._support(-math.log(TAIL))
        nodes, steps = trapezoid(low, high, count, self.label)
        weights = steps * self._relative(nodes, lowest)
        return nodes, weights / weights.sum()

    def inverse_distribution(self, level: Array) -> Array:
        """x with F(x) = level, F the distribution function of q; level (n,) in [0, 1). |F(x) - level| is about 1e-15.

        F is tabulated at the edges of 2,048 cells; inside a cell, F(x) = level is solved by Newton's method. Both
        integrate q by the Gauss-Legendre rule with 8 nodes. The support is cut where q is e^-40 of its maximum, which
        no double below 1 resolves. Cost O(n).
        """
        low, high, lowest = self._support(40.0)
        edges = np.linspace(low, high, _CELLS + 1)
        width = (high - low) / _CELLS
        mass = self._cell_mass(edges[:-1], np.full(_CELLS, width), lowest)
        cumulated = np.concatenate([[0.0], np.cumsum(mass)])
        found = np.empty_like(level)
        for start in range(0, len(level), _CHUNK):
            target = level[start : start + _CHUNK] * cumulated[-1]
            cell = np.clip(np.searchsorted(cumulated, target, side="right") - 1, 0, _CELLS - 1)
            remaining = target - cumulated[cell]
            step = width * np.clip(remaining / np.maximum(mass[cell], np.finfo(float).tiny), 0.0, 1.0)
            for _ in range(50):
                excess = self._cell_mass(edges[cell], step, lowest) - remaining
                density = self._relative(edges[cell] + step, lowest)
                change = excess / np.maximum(density, np.finfo(float).tiny)
                moved = np.clip(step - change, 0.0, width)
                done = float(np.max(np.abs(moved - step))) <= 1e-13 * width
                step = moved
                if done:
                    break
            found[start : start + _CHUNK] = edges[cell] + step
        return found

    def eigenvalues(self, count: int) -> Array:
        """The first ``count`` eigenvalues of L, descending, the first one 0: minus squared singular values.

        L is unitarily equivalent to -Q^T Q with Q = beta^(-1/2) (d/dx + beta V' / 2), the factored Schroedinger
        operator (Risken, The Fokker-Planck Equation, 2nd ed. 1989, section 5.4). Q is written in the Fourier
        collocation basis with n (odd) nodes on an interval at whose ends the ground state exp(-beta V / 2) is below
        e^-40. Its singular values are taken because squaring them keeps accuracy of a small eigenvalue that an
        eigensolver of Q^T Q would lose. n is doubled, and the interval widened, until two successive results agree to
        1e-10 relative plus the rounding error of the singular values, 1e-14 ||Q||. Cost O(n^3), n at most 1,281.

        Raises NumericalError when they do not agree, or when that rounding error could exceed 1e-6 of the smallest
        singular value but one (beta above 20 or so: the rate falls as exp(-beta)); ParameterError for count < 1.
        """
        check_mode_count(count, self.label)
        before: Array | None = None
        for nodes, level in _GRIDS:
            if nodes < 2 * count:
                continue
            singular, norm = self._singular_values(nodes, level, count)
            rounding = _ROUNDING * norm
            if before is not None and np.all(np.abs(singular - before) <= _TOLERANCE / 2 * singular + rounding):
                if count > 1 and rounding > 1e-6 * singular[1]:
                    raise self._no_spectrum("the slowest mode is too slow to be told from rounding")
                values = -(singular**2)
                values[0] = 0.0  # the constant function, exactly
                return values
            before = singular
        raise self._no_spectrum(f"the first {count} eigenvalues do not converge on {_GRIDS[-1][0]} nodes")

    def _no_spectrum(self, what: str) -> NumericalError:
        return NumericalError(
            what,
            got=f"beta = {self.beta:g}",
            remedy="Ask for fewer eigenvalues, or lower beta.",
            where=f"exact_eigenvalues of {self.label!r}",
        )

    def _singular_values(self, count: int, level: float, wanted: int) -> tuple[Array, float]:
        """The smallest singular values of Q, ascending, and its norm."""
        low, high, _ = self._support(level)
        period = high - low
        x = low + period * (np.arange(count) + 0.5) / count
        apart = np.arange(count)[:, None] - np.arange(count)[None, :]
        sine = np.sin(np.pi * apart / count)
        np.fill_diagonal(sine, 1.0)
        derivative = np.pi / period * np.where(apart % 2 == 0, 1.0, -1.0) / sine  # Fourier collocation, odd count
        np.fill_diagonal(derivative, self.beta * self.slope(x) / 2)
        singular = linalg.svdvals(derivative / math.sqrt(self.beta))[::-1]
        return singular[:wanted], float(singular[-1])

    def _support(self, level: float) -> tuple[float, float, float]:
        """The outermost points where beta (V - min V) is ``level``, and min V (on a grid of 4,001 points)."""
        reach = 1.0
        while True:
            scan = np.linspace(-reach, reach, _SCAN)
            height = self.potential(scan)
            lowest = float(height.min())
            rise = self.beta * (height - lowest) - level
            if rise[0] > 0 and rise[-1] > 0:
                break
            reach *= 1.5
        inside = np.flatnonzero(rise <= 0)
        first, last = int(inside[0]), int(inside[-1])

        def excess(at: float) -> float:
            return float(self.beta * (self.potential(np.array([at]))[0] - lowest) - level)

        return (
            float(optimize.brentq(excess, scan[first - 1], scan[first])),
            float(optimize.brentq(excess, scan[last], scan[last + 1])),
            lowest,
        )

    def _relative(self, x: Array, lowest: float) -> Array:
        """q over (about) its maximum."""
        return np.asarray(np.exp(-self.beta * (self.potential(x) - lowest)))

    def _cell_mass(self, left: Array, width: Array, lowest: float) -> Array:
        """The integral of q over its maximum from left to left + width, both (n,)."""
        nodes, weights = np.polynomial.legendre.leggauss(8)
        at = left[:, None] + width[:, None] * (nodes + 1) / 2  # (n, 8)
        return np.asarray(width / 2 * (self._relative(at, lowest) @ weights))
