"""Ornstein-Uhlenbeck processes dx = A x dt + Sigma dw: Gaussian invariant density, spectrum in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import linalg

from kfpbench.data.dataset import Mixture
from kfpbench.data.eigenvalue_sums import leading_sums
from kfpbench.data.reference_problem import (
    TAIL,
    Array,
    Positive,
    StationaryRows,
    check_mode_count,
    check_positive,
    checked_points,
    tensor_grid,
    trapezoid,
)
from kfpbench.errors import ParameterError

PerAxis = Annotated[Sequence[Positive], Field(min_length=1)]
Matrix = Annotated[Sequence[Sequence[float]], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class LinearProcess(StationaryRows):
    """What the processes of this file share: q = N(0, S), the eigenvalues of L are sums of eigenvalues of A.

    S solves A S + S A^T = -2 a. The eigenfunctions are polynomials of degree n, and lambda = sum_i n_i mu_i for
    every multi-index n_i >= 0, with mu the eigenvalues of A (Metafune, Pallara and Priola, J. Funct. Anal. 196:40,
    2002).
    A process gives ``_matrices`` (A, a) and may replace what is simpler for it.
    """

    def _matrices(self) -> tuple[Array, Array]:
        raise NotImplementedError

    def _relaxation(self) -> NDArray[np.complex128] | Array:
        """The eigenvalues mu of A; real where they are known to be."""
        raise NotImplementedError

    def covariance(self) -> Array:
        """S, the covariance (d, d) of the invariant density. Cost O(d^3)."""
        drift, diffusion = self._matrices()
        solution = linalg.solve_continuous_lyapunov(drift, -2 * diffusion)
        return np.asarray((solution + solution.T) / 2)

    def drift(self, x: Array) -> Array:
        """b(x) = A x for x (n, d), shape (n, d). Raises ShapeError for another shape."""
        return np.asarray(checked_points(x, self._row_length(), self.label) @ self._matrices()[0].T)

    def log_density(self, x: Array) -> Array:
        """log q(x) of N(0, S) for x (n, d), normalised, shape (n,)."""
        points = checked_points(x, self._row_length(), self.label)
        factor = np.linalg.cholesky(self.covariance())
        white = linalg.solve_triangular(factor, points.T, lower=True)  # (d, n)
        constant = len(factor) / 2 * math.log(2 * math.pi) + float(np.log(np.diag(factor)).sum())
        return np.asarray(-(white**2).sum(axis=0) / 2 - constant)

    def quadrature(self, count: int) -> tuple[Array, Array]:
        """Points (count^d, d) and weights (count^d,) of E_q: a grid in whitened coordinates, |z_i| <= 8.6 on each axis.

        The trapezoidal rule: for polynomials of low degree, exact to 1e-13 from count = 24. Raises ParameterError for
        count < 2 and above 20 million points.
        """
        reach = math.sqrt(-2 * math.log(TAIL))
        nodes, steps = trapezoid(-reach, reach, count, self.label)
        white, weights = tensor_grid(nodes, steps * np.exp(-(nodes**2) / 2), self._row_length(), self.label)
        return np.ascontiguousarray(white @ np.linalg.cholesky(self.covariance()).T), weights

    def exact_eigenvalues(self, count: int) -> Array | NDArray[np.complex128]:
        """The first ``count`` sums n . mu with multiplicity, by descending real part, 0 first; exact to rounding.

        float64 when every mu is real, else complex128 with conjugates side by side, positive imaginary part first.
        Cost O(count log count), plus the O(d^3) of the eigenvalues of A. Raises ParameterError for count < 1.
        """
        check_mode_count(count, self.label)
        return leading_sums(self._relaxation(), count)

    def _row_length(self) -> int:
        return len(self._matrices()[0])

    def _draw(self, count: int, rng: np.random.Generator) -> Array:
        factor = np.linalg.cholesky(self.covariance())
        return np.asarray(rng.standard_normal((count, len(factor))) @ factor.T)

    def _law(self) -> Mixture:
        covariance = self.covariance()
        return Mixture(weights=np.ones(1), means=np.zeros((1, len(covariance))), covariances=covariance[None])


@dataclass(frozen=True, kw_only=True)
class OrnsteinUhlenbeck(LinearProcess):
    """dx = -rate x dt + sqrt(2 D) dw in d dimensions: -rate n with multiplicity (n + d - 1 over n); q = N(0, D/rate I).

    ``diffusion`` is D. The multiplicities are 1, d, d (d + 1) / 2, ... Raises ParameterError when a parameter is not
    positive.
    """

    label: ClassVar[str] = "ornstein_uhlenbeck"
    reversible: ClassVar[bool] = True

    dimension: Annotated[int, Field(ge=1, le=10_000)] = 1
    rate: Positive = 1.0
    diffusion: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.label, dimension=self.dimension, rate=self.rate, diffusion=self.diffusion)

    def potential(self, x: Array) -> Array:
        """V(x) = rate |x|^2 / 2 for x (n, d), shape (n,)."""
        return np.asarray(self.rate / 2 * (checked_points(x, self.dimension, self.label) ** 2).sum(axis=1))

    def drift(self, x: Array) -> Array:
        """b(x) = -rate x for x (n, d), shape (n, d). Raises ShapeError for another shape."""
        return -self.rate * checked_points(x, self.dimension, self.label)

    def covariance(self) -> Array:
        """S = D / rate I, (d, d)."""
        return self.diffusion / self.rate * np.eye(self.dimension)

    def _matrices(self) -> tuple[Array, Array]:
        return -self.rate * np.eye(self.dimension), self.diffusion * np.eye(self.dimension)

    def _relaxation(self) -> Array:
        return np.full(self.dimension, -self.rate)

    def _row_length(self) -> int:
        return self.dimension


@dataclass(frozen=True, kw_only=True)
class AnisotropicOU(LinearProcess):
    """dx_i = -rate_i x_i dt + sqrt(2 D_i) dw_i, another rate and another diffusion on each axis: sums of -rate_i.

    ``rates`` and ``diffusions`` hold one positive number an axis; a = diag(diffusions), q = N(0, diag(D_i / rate_i)).
    Raises ParameterError for lengths that differ or a number that is not positive.
    """

    label: ClassVar[str] = "anisotropic_ou"
    reversible: ClassVar[bool] = True

    rates: PerAxis = (1.0, 2.5)
    diffusions: PerAxis = (0.5, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rates", tuple(self.rates))  # a suite gives lists
        object.__setattr__(self, "diffusions", tuple(self.diffusions))
        if len(self.rates) != len(self.diffusions) or not self.rates:
            raise ParameterError(
                "rates and diffusions must have one number an axis each",
                got=f"{len(self.rates)} and {len(self.diffusions)}",
                where=f"data set {self.label!r}",
            )
        for parameter in ("rates", "diffusions"):
            for value in getattr(self, parameter):
                check_positive(self.label, **{parameter: value})

    @property
    def dimension(self) -> int:
        """Number of axes d."""
        return len(self.rates)

    @property
    def diffusion(self) -> Array:
        """a = diag(D_i), (d, d)."""
        return np.diag(self.diffusions)

    def potential(self, x: Array) -> Array:
        """V(x) = sum_i rate_i x_i^2 / 2 for x (n, d), shape (n,). The drift is -grad V; q is not a function of V."""
        return np.asarray(checked_points(x, self.dimension, self.label) ** 2 @ np.array(self.rates) / 2)

    def covariance(self) -> Array:
        """S = diag(D_i / rate_i), (d, d)."""
        return np.diag(np.array(self.diffusions) / np.array(self.rates))

    def _matrices(self) -> tuple[Array, Array]:
        return -np.diag(self.rates), self.diffusion

    def _relaxation(self) -> Array:
        return -np.array(self.rates)


@dataclass(frozen=True, kw_only=True)
class RotatingOU(LinearProcess):
    """dx = (-rate I + omega J) x dt + sqrt(2 D) dw in the plane, J = [[0, -1], [1, 0]]: a circulating current.

    Eigenvalues -rate (m + n) + i omega (m - n), m, n >= 0: complex pairs, yet q = N(0, D / rate I) as without
    rotation. ``diffusion`` is D. Raises ParameterError when rate or diffusion is not positive, or omega not finite.
    """

    label: ClassVar[str] = "rotating_ou"
    dimension: ClassVar[int] = 2

    rate: Positive = 1.0
    omega: Annotated[float, Field(allow_inf_nan=False)] = 2.0
    diffusion: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.label, rate=self.rate, diffusion=self.diffusion)
        if not math.isfinite(self.omega):
            raise ParameterError("omega must be finite", got=self.omega, where=f"data set {self.label!r}")

    @property
    def reversible(self) -> bool:
        """Detailed balance holds without rotation only."""
        return self.omega == 0

    def covariance(self) -> Array:
        """S = D / rate I, (2, 2)."""
        return self.diffusion / self.rate * np.eye(2)

    def _matrices(self) -> tuple[Array, Array]:
        return np.array([[-self.rate, -self.omega], [self.omega, -self.rate]]), self.diffusion * np.eye(2)

    def _relaxation(self) -> NDArray[np.complex128] | Array:
        if self.omega == 0:
            return np.full(2, -self.rate)
        return np.array([complex(-self.rate, self.omega), complex(-self.rate, -self.omega)])


@dataclass(frozen=True, kw_only=True)
class LinearSDE(LinearProcess):
    """dx = A x dt + Sigma dw with any stable A and any diffusion matrix a = (1/2) Sigma Sigma^T: sums of eigenvalues.

    ``drift_matrix`` is A, row by row, all its eigenvalues of negative real part; ``diffusion_matrix`` is a, symmetric
    positive definite. The default is not reversible: eigenvalues -1 and -0.75 +- 1.2 i or so, a with correlated noise.
    The exact values are those of the eigenvalues of A by LAPACK: rounding, times the condition of A's eigenvectors.
    Raises ParameterError for matrices that are not square, of different order, not stable, not positive definite.
    """

    label: ClassVar[str] = "linear_sde"

    drift_matrix: Matrix = ((-1.0, -1.5, 0.0), (1.0, -0.5, 0.3), (0.0, 0.0, -1.0))
    diffusion_matrix: Matrix = ((1.0, 0.4, 0.0), (0.4, 0.7, -0.2), (0.0, -0.2, 0.5))

    def __post_init__(self) -> None:
        super().__post_init__()
        for parameter in ("drift_matrix", "diffusion_matrix"):
            rows = tuple(tuple(float(entry) for entry in row) for row in getattr(self, parameter))
            object.__setattr__(self, parameter, rows)  # a suite gives lists
            if not rows or any(len(row) != len(rows) for row in rows) or not np.isfinite(rows).all():
                raise self._refusal(f"{parameter} must be square and finite", rows)
        drift, diffusion = self._matrices()
        if drift.shape != diffusion.shape:
            raise self._refusal("drift_matrix and diffusion_matrix differ in order", (len(drift), len(diffusion)))
        if np.linalg.eigvals(drift).real.max() >= 0:
            raise self._refusal("drift_matrix is not stable: an eigenvalue has no negative real part", drift.tolist())
        if not np.array_equal(diffusion, diffusion.T) or np.linalg.eigvalsh(diffusion).min() <= 0:
            raise self._refusal("diffusion_matrix is not symmetric positive definite", diffusion.tolist())

    @property
    def dimension(self) -> int:
        """Number of coordinates d."""
        return len(self.drift_matrix)

    @property
    def diffusion(self) -> Array:
        """a, (d, d)."""
        return np.array(self.diffusion_matrix)

    @property
    def reversible(self) -> bool:
        """Detailed balance: A a = a A^T, to rounding (Risken 1989, section 6.4)."""
        drift, diffusion = self._matrices()
        product = drift @ diffusion
        return bool(np.abs(product - product.T).max() <= 1e-13 * np.abs(drift).max() * np.abs(diffusion).max())

    def _matrices(self) -> tuple[Array, Array]:
        return np.array(self.drift_matrix), np.array(self.diffusion_matrix)

    def _relaxation(self) -> NDArray[np.complex128] | Array:
        drift, diffusion = self._matrices()
        if self.reversible:  # A is similar to a symmetric matrix: real eigenvalues, well conditioned
            factor = np.linalg.cholesky(diffusion)
            similar = linalg.solve_triangular(factor, drift @ factor, lower=True)
            return np.asarray(np.linalg.eigvalsh((similar + similar.T) / 2))
        return np.asarray(np.linalg.eigvals(drift), dtype=np.complex128)

    def _refusal(self, what: str, got: object) -> ParameterError:
        return ParameterError(what, got=got, where=f"data set {self.label!r}")
