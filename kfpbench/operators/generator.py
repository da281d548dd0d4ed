"""The generator family of the reverse process: options, time segments, and one frozen operator a segment."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.frames import FRAMES, Frame
from kfpbench.operators.marginal import Marginal, marginal
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Problem

FIT_STREAM = 1  # noise of the fit is independent of the samples' own


@dataclass(frozen=True)
class GeneratorOptions:
    """Which operator is approximated, and where it is sampled.

    ``eta`` 0 is the probability-flow ODE's transport operator, 1 the reverse SDE's generator. ``time``: ``frozen`` uses
    one operator for the whole span, ``piecewise`` one for each of ``segments`` spans of equal length in
    log(sigma / alpha), frozen at its midpoint, ``augmented`` one operator on (x, t) which carries the state over
    ``segments`` hops. ``frame``: ``raw`` pixels, ``whitened`` coordinates, or those of the Gaussian ``posterior`` mean,
    whose distances see the signal alone (kfpbench.operators.frames). ``points`` is the number N of points
    x_i ~ p_t at which the drift is evaluated: the setup's NFE is N for each operator. ``time_width`` is half the length
    of the span in the coordinate s of ``augmented`` time, beside state coordinates y: of unit scale in the whitened
    frame, in the others on the scale of the data.

    ``centres`` says where kernel sections stand: at the ``noised`` points themselves, or at the ``training`` rows that
    these were made from, scaled and without their noise, c_j = y(alpha x_0j). Eigensolvers that take other centres than
    the points: dense, nystrom; the others refuse. Raises CapabilityError for ``training`` with ``augmented`` time,
    whose points belong to different instants, ParameterError for other impossible values.
    """

    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    time: Literal["frozen", "piecewise", "augmented"] = "piecewise"
    segments: Annotated[int, Field(ge=1, le=10_000)] = 8
    frame: Literal["raw", "whitened", "posterior"] = "whitened"
    points: Annotated[int, Field(ge=2)] = 1000
    time_width: Annotated[float, Field(gt=0)] = 1.0
    centres: Literal["noised", "training"] = "noised"

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ParameterError("operator: eta out of range", got=self.eta, allowed="0 to 1")
        if self.frame not in FRAMES:
            raise ParameterError("operator: unknown frame", got=self.frame, allowed=", ".join(FRAMES))
        if self.time not in ("frozen", "piecewise", "augmented"):
            raise ParameterError(
                "operator: unknown time handling", got=self.time, allowed="frozen, piecewise, augmented"
            )
        if not 0.0 < self.time_width < math.inf:
            raise ParameterError("operator: bad time_width", got=self.time_width, allowed="a positive number")
        if self.centres not in ("noised", "training"):
            raise ParameterError("operator: unknown centres", got=self.centres, allowed="noised, training")
        if self.centres == "training" and self.time == "augmented":
            raise CapabilityError(
                "operator: in augmented time the points belong to different instants, and so would training centres",
                got="centres training, time augmented",
                allowed="centres noised, or time frozen or piecewise",
            )
        if self.segments < 1 or self.points < 2:
            raise ParameterError(
                "operator: at least 1 segment and 2 points are needed", got=(self.segments, self.points)
            )

    @property
    def span_count(self) -> int:
        """Number of spans that a sample passes."""
        return 1 if self.time == "frozen" else self.segments

    @property
    def operator_count(self) -> int:
        """Number of eigenproblems, each on N points."""
        return self.segments if self.time == "piecewise" else 1


@dataclass(frozen=True)
class Segment:
    """A span of reverse time: from ``start`` (noisier) to ``end``, its operator frozen at ``middle``."""

    start: Marginal
    middle: Marginal
    end: Marginal

    @property
    def length(self) -> float:
        """Length in rho = -log(sigma / alpha)."""
        return self.end.rho - self.start.rho


def segments(problem: Problem, options: GeneratorOptions) -> list[Segment]:
    """Spans of equal length in rho from t_max to t_min, in the order in which a sample passes them."""
    process = problem.process
    first, last = process.log_ratio(process.t_max), process.log_ratio(process.t_min)
    count = options.span_count

    def at(share: float) -> Marginal:
        # the ends are taken as they are: a round trip through the logarithm would move them by an ulp
        time = {0.0: process.t_max, 1.0: process.t_min}.get(share)
        return marginal(process, process.time_of(first + share * (last - first)) if time is None else time)

    edges = [at(index / count) for index in range(count + 1)]
    middles = [at((index + 0.5) / count) for index in range(count)]
    return [Segment(a, m, b) for a, m, b in zip(edges[:-1], middles, edges[1:], strict=True)]


@dataclass(frozen=True)
class FrozenGenerator:
    """An operator without time: its Galerkin data, and the observable B whose mean displaces the state.

    ``excess`` (N, d) is the drift without its linear part -kappa y, which is solved exactly.
    """

    pencil: GalerkinPencil
    excess: Tensor


def noised_rows(
    problem: Problem, rows: NDArray[np.float32], at: Marginal, count: int, draw: int
) -> tuple[NDArray[np.int64], Tensor, Tensor]:
    """Row numbers (n,), x_0 (n, d) and x = alpha x_0 + sigma eps (n, d), x_0 drawn from ``rows`` with replacement.

    The same ``draw`` gives the same row numbers and the same eps at every instant. No score evaluation; O(n d).
    """
    noise = fit_noise(problem, count, rows.shape[1])
    chosen = noise.uniform_integers(2 * draw, len(rows)).cpu().numpy()
    origin = torch.as_tensor(rows[chosen], device=problem.device, dtype=problem.dtype)  # n rows travel, not all
    return chosen, origin, at.alpha * origin + at.sigma * noise.normal(2 * draw + 1)


def fit_noise(problem: Problem, count: int, dimension: int) -> NoiseStream:
    """The noise of a fit, one sample index a point: draws 2 k and 2 k + 1 belong to ``noised_rows`` with draw k."""
    return NoiseStream.of_range(problem.seed, 0, count, dimension, problem.device, problem.dtype, stream=FIT_STREAM)


def freeze(
    problem: Problem,
    options: GeneratorOptions,
    frame: Frame,
    at: Marginal,
    draw: int,
    rows: NDArray[np.float32] | None = None,
) -> FrozenGenerator:
    """Sample the generator at N points of p_t: x_i = alpha x_0 + sigma eps, x_0 a training row drawn with replacement.

    ``draw`` numbers the segment, so that segments see independent points; ``rows`` (N_0, d) are the training rows by
    default. The pencil is float64. Cost: N score evaluations.
    """
    rows = problem.dataset.train if rows is None else rows
    chosen, _, x = noised_rows(problem, rows, at, options.points, draw)
    denoised = problem.score.denoise(x, at.alpha, at.sigma)
    y = frame.encode(x, at).double()
    excess = frame.excess_drift(x, denoised, at, options.eta).double()
    drift = excess - frame.decay_rate(at, options.eta).double() * y
    diffusion = Diffusion.constant(frame.diffusion(at, options.eta).double())
    pencil = GalerkinPencil.uniform(y, drift, diffusion)
    if options.centres == "training":
        distinct = torch.as_tensor(rows[np.unique(chosen)], device=problem.device, dtype=problem.dtype)
        pencil = replace(pencil, centres=frame.encode(at.alpha * distinct, at).double())
    return FrozenGenerator(pencil, excess)
