"""Diffusions whose spectrum and invariant density are known: what each of them answers, and its rows as a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kfpbench.data.dataset import Dataset, Mixture, Reference
from kfpbench.data.fingerprint import fingerprint
from kfpbench.errors import ParameterError, ShapeError

Array = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0)]
Rows = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0)]

TAIL = 1e-16  # a quadrature grid ends where the density has fallen to this share of its maximum
_GRID_LIMIT = 20_000_000  # points of a tensor grid


@runtime_checkable
class ReferenceProblem(Protocol):
    """The stationary diffusion dx = b(x) dt + Sigma dw with L phi = b . grad phi + tr(a Hess phi), known spectrum.

    q is its invariant density; arrays are float64. Problems whose drift is a gradient also have ``potential(x)``, shape
    (n,), with b = -grad V; where the diffusion is a float a as well, q is proportional to exp(-V / a).
    """

    @property
    def dimension(self) -> int:
        """Number of coordinates d."""

    @property
    def diffusion(self) -> float | Array:
        """a = (1/2) Sigma Sigma^T, constant: a float where it is that multiple of I, else a matrix (d, d)."""

    @property
    def reversible(self) -> bool:
        """Whether detailed balance holds, so that L is self-adjoint in L2(q)."""

    def drift(self, x: Array) -> Array:
        """b(x) for x (n, d), shape (n, d)."""

    def log_density(self, x: Array) -> Array:
        """log q(x) for x (n, d), normalised, shape (n,)."""

    def sample(self, count: int, seed: int) -> Array:
        """``count`` independent draws from q, (count, d)."""

    def quadrature(self, count: int) -> tuple[Array, Array]:
        """Points (N, d) and positive weights (N,) of sum 1, sum_i w_i u(x_i) = E_q[u]; N = count^d, a tensor grid."""

    def exact_eigenvalues(self, count: int) -> Array | NDArray[np.complex128] | None:
        """The first ``count`` eigenvalues of L with multiplicity, 0 included, by descending real part.

        float64 when all are real, else complex128 with conjugates side by side, the positive imaginary part first (the
        end may cut a pair in two). None where they are not known.
        """


@dataclass(frozen=True, kw_only=True)
class StationaryRows:
    """The data set of a reference problem: three splits drawn independently from its invariant density.

    ``train``, ``validation`` and ``test`` are row counts. Raises ParameterError for a count below 1 or a negative seed.
    """

    label: ClassVar[str]  # the registered name

    train: Rows = 20_000
    validation: Rows = 2_000
    test: Rows = 50_000
    seed: Seed = 0

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            if getattr(self, split) < 1:
                raise ParameterError(
                    f"{split} must be at least 1 row", got=getattr(self, split), where=f"data set {self.label!r}"
                )
        if self.seed < 0:
            raise ParameterError("a seed must not be negative", got=self.seed, where=f"data set {self.label!r}")

    def _row_length(self) -> int:
        raise NotImplementedError

    def _draw(self, count: int, rng: np.random.Generator) -> Array:
        raise NotImplementedError

    def _law(self) -> Mixture | None:
        return None

    def sample(self, count: int, seed: int) -> Array:
        """``count`` independent draws from the invariant density, (count, d); the seed fixes them."""
        if count < 1 or seed < 0:
            raise ParameterError(
                "count must be at least 1 and the seed not negative",
                got=(count, seed),
                where=f"sample of {self.label!r}",
            )
        return self._draw(count, np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))))

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of ``for_reference("test")``."""
        return self.train + (self.validation if reference == "test" else 0), self._row_length()

    def load(self) -> Dataset:
        """Draw the three splits from the invariant density, each from a random stream of its own; float32 rows."""
        streams = [np.random.Generator(np.random.Philox(child)) for child in np.random.SeedSequence(self.seed).spawn(3)]
        counts = (self.train, self.validation, self.test)
        splits = [
            self._draw(count, rng).astype(np.float32, order="C") for count, rng in zip(counts, streams, strict=True)
        ]
        rows = {declared.name for declared in fields(StationaryRows)}
        own = (declared.name for declared in fields(self) if declared.name not in rows)
        parameters = ", ".join(f"{name}={getattr(self, name)!r}" for name in own)
        return Dataset(
            name=self.label,
            train=splits[0],
            validation=splits[1],
            test=splits[2],
            law=self._law(),
            source=f"invariant density of {self.label}({parameters}); rows drawn with seed {self.seed}",
            fingerprint=fingerprint(*splits),
        )


def checked_points(x: Array, dimension: int, label: str) -> Array:
    """The points as float64. Raises ShapeError unless their shape is (n, dimension)."""
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != dimension:
        raise ShapeError("wrong shape of points", got=points.shape, allowed=f"(n, {dimension})", where=label)
    return points


def check_positive(label: str, **values: float) -> None:
    """Raises ParameterError for a value that is not positive and finite."""
    for parameter, value in values.items():
        if not 0 < value < float("inf"):
            raise ParameterError(f"{parameter} must be positive and finite", got=value, where=f"data set {label!r}")


def check_mode_count(count: int, label: str) -> None:
    """Raises ParameterError unless at least one eigenvalue is asked for."""
    if count < 1:
        raise ParameterError("at least one eigenvalue", got=count, where=f"exact_eigenvalues of {label!r}")


def trapezoid(low: float, high: float, count: int, label: str) -> tuple[Array, Array]:
    """``count`` equally spaced nodes from low to high and the weights of the trapezoidal rule, both (count,).

    For an analytic integrand that vanishes at both ends the rule converges geometrically in the number of nodes
    (Trefethen and Weideman, SIAM Review 56(3):385, 2014). Raises ParameterError for fewer than 2 nodes.
    """
    if count < 2:
        raise ParameterError(
            "a grid needs at least 2 points along an axis", got=count, where=f"quadrature of {label!r}"
        )
    weights = np.full(count, (high - low) / (count - 1))
    weights[[0, -1]] /= 2
    return np.linspace(low, high, count), weights


def tensor_grid(nodes: Array, weights: Array, dimension: int, label: str) -> tuple[Array, Array]:
    """The product rule of one rule (m,) along every axis: points (m^d, d), weights (m^d,) of sum 1. Cost O(d m^d).

    Raises ParameterError above 20 million points.
    """
    if len(nodes) ** dimension > _GRID_LIMIT:
        raise ParameterError(
            "the tensor grid has too many points",
            got=f"{len(nodes)}^{dimension}",
            allowed=f"at most {_GRID_LIMIT:,}",
            remedy="Ask for fewer points along an axis, or use sample().",
            where=f"quadrature of {label!r}",
        )
    weights = weights / weights.sum()
    points = np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    product = weights
    for _ in range(dimension - 1):
        product = np.multiply.outer(product, weights).ravel()
    return points, product / product.sum()
