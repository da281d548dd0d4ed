"""Reference problems with a known spectrum: particles in wells, and (from ``linear_sde``) Ornstein-Uhlenbeck processes.

A spectral method is judged on them: ``drift``, ``diffusion`` and ``sample`` or ``quadrature`` are what it is given,
``exact_eigenvalues`` is what it should find. Every problem is a data set as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from kfpbench.data.langevin import LangevinLine
from kfpbench.data.linear_sde import AnisotropicOU, LinearSDE, OrnsteinUhlenbeck, RotatingOU
from kfpbench.data.reference_problem import (
    Array,
    ReferenceProblem,
    StationaryRows,
    checked_points,
    tensor_grid,
)
from kfpbench.errors import ParameterError

InverseTemperature = Annotated[float, Field(gt=0, le=1000)]

__all__ = [
    "AnisotropicOU",
    "DoubleWell",
    "LinearSDE",
    "MultiWell",
    "OrnsteinUhlenbeck",
    "QuadrupleWell",
    "ReferenceProblem",
    "RotatingOU",
    "TiltedWell",
]


@dataclass(frozen=True, kw_only=True)
class Well(StationaryRows):
    """Overdamped Langevin dynamics dx = -grad V dt + sqrt(2 / beta) dw, V(x) = sum_i U(x_i) the same U along each axis.

    L phi = -grad V . grad phi + (1 / beta) Laplacian phi; q is proportional to exp(-beta V); detailed balance holds.
    L is a sum of one-dimensional generators, so its eigenvalues are the sums of one eigenvalue of each axis. A well
    gives ``_height`` (U) and ``_slope`` (U'), elementwise. Raises ParameterError unless 0 < beta <= 1000.
    """

    dimension: ClassVar[int] = 1
    reversible: ClassVar[bool] = True

    beta: InverseTemperature = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta <= 1000:
            raise ParameterError(
                "beta out of range", got=self.beta, allowed="above 0, up to 1000", where=f"data set {self.label!r}"
            )

    def _height(self, x: Array) -> Array:
        raise NotImplementedError

    def _slope(self, x: Array) -> Array:
        raise NotImplementedError

    @property
    def diffusion(self) -> float:
        """a = 1 / beta, isotropic."""
        return 1.0 / self.beta

    def potential(self, x: Array) -> Array:
        """V(x) for x (n, d), shape (n,): the drift is -grad V, the density proportional to exp(-beta V)."""
        return np.asarray(self._height(checked_points(x, self.dimension, self.label)).sum(axis=1))

    def drift(self, x: Array) -> Array:
        """b(x) = -grad V(x) for x (n, d), shape (n, d). Raises ShapeError for another shape."""
        return -self._slope(checked_points(x, self.dimension, self.label))

    def log_density(self, x: Array) -> Array:
        """log q(x) for x (n, d), normalised, shape (n,)."""
        return np.asarray(self._line().log_density(checked_points(x, self.dimension, self.label)).sum(axis=1))

    def quadrature(self, count: int) -> tuple[Array, Array]:
        """Points (count^d, d) and weights (count^d,) of E_q: equally spaced along each axis, where q > 1e-16 max q.

        The trapezoidal rule: its error falls geometrically with ``count`` (200 a well is ample). Raises ParameterError
        for count < 2 and above 20 million points.
        """
        return tensor_grid(*self._line().quadrature(count), self.dimension, self.label)

    def exact_eigenvalues(self, count: int) -> Array:
        """The first ``count`` eigenvalues of L, descending, 0 first, with multiplicity; (count,) float64.

        Computed, not in closed form (see ``LangevinLine.eigenvalues``): to 1e-10 relative for eigenvalues above 1e-3 in
        size; a slower rate loses accuracy as 1 / sqrt(|lambda|). Against a finite-volume method the double well's
        slowest rate differs by 1e-14 at beta = 1, 3e-12 at beta = 12 (1e-5) and 5e-11 at beta = 20 (4e-9). Raises
        NumericalError where it cannot be had (beta above 20 or so), ParameterError for count < 1.
        """
        single = self._line().eigenvalues(count)
        sums = single
        for _ in range(self.dimension - 1):  # the first ``count`` sums need the first ``count`` of each axis at most
            sums = np.sort(np.add.outer(sums, single).ravel())[::-1][:count]
        return sums + 0.0

    def _line(self) -> LangevinLine:
        return LangevinLine(self._height, self._slope, self.beta, self.label)

    def _row_length(self) -> int:
        return self.dimension

    def _draw(self, count: int, rng: np.random.Generator) -> Array:
        """The inverse distribution function at uniform numbers, row by row: exact but for rounding (1e-14 in F)."""
        return self._line().inverse_distribution(rng.random(count * self.dimension)).reshape(count, self.dimension)


@dataclass(frozen=True, kw_only=True)
class DoubleWell(Well):
    """V(x) = (x^2 - 1)^2: minima at -1 and 1, a barrier of height 1 at 0.

    The slowest mode, the hopping between the wells, decays about as exp(-beta), so a large beta separates it from the
    others. Rows are (n, 1), in units of the wells' distance from 0; times in those of dx = -V' dt + sqrt(2 / beta) dw.
    Raises ParameterError unless 0 < beta <= 1000. Source: Kramers, "Brownian motion in a field of force and the
    diffusion model of chemical reactions", Physica 7(4):284 (1940), for the rate.
    """

    label: ClassVar[str] = "double_well"

    def _height(self, x: Array) -> Array:
        return (x**2 - 1) ** 2

    def _slope(self, x: Array) -> Array:
        return 4 * x * (x**2 - 1)


@dataclass(frozen=True, kw_only=True)
class QuadrupleWell(DoubleWell):
    """V(x, y) = (x^2 - 1)^2 + (y^2 - 1)^2: the double well along both axes, four minima at (+-1, +-1).

    The eigenvalues are the sums of two of the double well's: three slow ones, of which the first two are equal and the
    third is twice as large. Multiple eigenvalues are listed as often as they occur.
    """

    label: ClassVar[str] = "quadruple_well"
    dimension: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True)
class TiltedWell(Well):
    """V(x) = (x^2 - 1)^2 + tilt x: wells of unequal depth, no symmetry; one well alone beyond |tilt| = 8 / (3 sqrt 3).

    Rows are (n, 1), in units of the untilted wells' distance from 0. Raises ParameterError unless 0 < beta <= 1000,
    and for a tilt that is not finite or above 100 in size.
    """

    label: ClassVar[str] = "tilted_well"

    tilt: Annotated[float, Field(ge=-100, le=100)] = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not abs(self.tilt) <= 100:
            raise ParameterError(
                "tilt out of range", got=self.tilt, allowed="-100 to 100", where="data set 'tilted_well'"
            )

    def _height(self, x: Array) -> Array:
        return (x**2 - 1) ** 2 + self.tilt * x

    def _slope(self, x: Array) -> Array:
        return 4 * x * (x**2 - 1) + self.tilt


@dataclass(frozen=True, kw_only=True)
class MultiWell(Well):
    """V(x) = 4 (x^8 + 0.8 e^(-80 x^2) + 0.2 e^(-80 (x - 1/2)^2) + 0.5 e^(-40 (x + 1/2)^2)): four metastable wells.

    Three slow modes, then a gap: the "Prinz potential" of the literature on Markov state models (Prinz et al., J. Chem.
    Phys. 134:174105, 2011), on the whole line.
    """

    label: ClassVar[str] = "multi_well"

    def _height(self, x: Array) -> Array:
        bumps = 0.8 * np.exp(-80 * x**2) + 0.2 * np.exp(-80 * (x - 0.5) ** 2) + 0.5 * np.exp(-40 * (x + 0.5) ** 2)
        return np.asarray(4 * (x**8 + bumps))

    def _slope(self, x: Array) -> Array:
        middle = 0.8 * 160 * x * np.exp(-80 * x**2)
        right = 0.2 * 160 * (x - 0.5) * np.exp(-80 * (x - 0.5) ** 2)
        left = 0.5 * 80 * (x + 0.5) * np.exp(-40 * (x + 0.5) ** 2)
        return np.asarray(4 * (8 * x**7 - middle - right - left))
