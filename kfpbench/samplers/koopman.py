"""Koopman sampler: noise to data by the eigenfunction expansion of the state's mean displacement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.moments import moments_memory
from kfpbench.eigensolvers.basis import Expansion
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.augmented import TimeCoordinate, augment
from kfpbench.operators.frames import FRAMES, Frame
from kfpbench.operators.generator import FrozenGenerator, GeneratorOptions, Segment, freeze, segments
from kfpbench.operators.pencil import require_smooth
from kfpbench.protocols import Backend, Kernel, Problem, ProblemSize
from kfpbench.registry import resolve

_DEFAULT_OPERATOR = GeneratorOptions()
_COLUMNS = 256  # coordinates whose complex coefficients are in memory at a time
_BEYOND = 0.5  # of its range at the fitted points: how far a displacement may go beyond it
_ROUNDING = 1e-4  # of the points' standard deviation; beyond it a segment is evaluated in float64


class Koopman:
    """y_end = m y + sum_k phi_k(y) c_k + s xi over each segment, phi_k the generator's eigenfunctions.

    m is the exact linear flow of the frame, s the conditional standard deviation of its Gaussian part (0 for eta = 0),

        c_k = D e^(-kappa D) varphi_1((lambda_k + kappa) D) <psi_k, B>,  varphi_1(z) = (e^z - 1) / z,

    is the exact integral of the mean excess drift B under the frozen operator over the segment's length D; with
    kappa = 0 it is the displacement D varphi_1(D L) b. ``rank`` keeps the slowest eigenpairs, the constant function
    among them, a conjugate pair whole: null keeps all, 0 none, which in the whitened frame with eta = 0 is the
    closed-form Gaussian sampler.

    Setup: N x segments score evaluations and one eigenproblem a segment. Sampling: no score evaluation, O(N d) for each
    image and segment. Source: Wu and Kawahara, Entropy 28(3):290 (2026), for the idea; the formulas are this project's.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"operator": GeneratorOptions(segments=2, points=40)},
        {"operator": GeneratorOptions(segments=2, points=40, eta=1.0)},
        {"operator": GeneratorOptions(time="augmented", segments=2, points=60)},
    )

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        eigensolver: Eigensolver | str = "dense",
        backend: Backend | str = "dense",
        operator: GeneratorOptions = _DEFAULT_OPERATOR,
        rank: Annotated[int, Field(ge=0)] | None = None,
    ) -> None:
        if rank is not None and rank < 0:
            raise ParameterError("koopman: rank must not be negative", got=rank, allowed="null, or 0 and more")
        self.kernel: Kernel = resolve("kernels", kernel)
        self.eigensolver: Eigensolver = resolve("eigensolvers", eigensolver)
        self.backend: Backend = resolve("backends", backend)
        self.operator = operator
        self.rank = rank

    def fit(self, problem: Problem) -> FittedKoopman:
        """Evaluate the drift, solve one eigenproblem a segment, fold the coefficients. Raises NumericalError."""
        if self.rank != 0:  # before any score is evaluated
            self._require_whole_operator()
            require_smooth(self.kernel, 2 if self.operator.eta > 0 else 1, problem.dataset.dimension)
        frame = FRAMES[self.operator.frame](problem.dataset, problem.device, problem.dtype)
        spans, eta = segments(problem, self.operator), self.operator.eta
        if self.rank == 0:
            displacements: list[Displacement | AugmentedDisplacement | None] = [None] * len(spans)
        elif self.operator.time == "augmented":
            displacements = [*self._augmented(problem, frame, spans)]
        else:
            displacements = [self._displacement(problem, frame, span, draw) for draw, span in enumerate(spans)]
        steps = []
        for segment, displacement in zip(spans, displacements, strict=True):
            steps.append(
                Step(
                    segment,
                    frame.decay(segment.start, segment.end, eta),
                    frame.noise_scale(segment.start, segment.end, eta) if eta > 0 else None,
                    displacement,
                )
            )
        return FittedKoopman(frame, steps, problem.dtype)

    def _displacement(self, problem: Problem, frame: Frame, segment: Segment, draw: int) -> Displacement:
        frozen = freeze(problem, self.operator, frame, segment.middle, draw)
        pairs = self._pairs(frozen)
        decay = frame.decay(segment.start, segment.end, self.operator.eta).double()
        return expand_displacement(pairs, frozen, segment.length, decay, problem.dtype)

    def _require_whole_operator(self) -> None:
        """Raise CapabilityError where augmented time meets a few eigenpairs: they are no approximation of it.

        The operator of augmented time is far from normal (time only moves on): its slowest pairs alone say nothing.
        """
        partial = getattr(self.eigensolver, "partial", False)
        if self.operator.time == "augmented" and (self.rank is not None or partial):
            raise CapabilityError(
                "koopman: augmented time needs all eigenpairs",
                got=f"rank {self.rank}" if self.rank is not None else type(self.eigensolver).__name__,
                allowed="rank null (or 0), and an eigensolver that finds all pairs",
                remedy="Limit the functions by the eigensolver's max_rank, or take time: piecewise.",
            )

    def _augmented(self, problem: Problem, frame: Frame, spans: list[Segment]) -> list[AugmentedDisplacement]:
        time = TimeCoordinate.spanning(spans, self.operator.time_width)
        generator = augment(problem, self.operator, frame, spans, time)
        pairs = self._pairs(generator)
        displacements = []
        for span in spans:
            decay = frame.decay(span.start, span.end, self.operator.eta).double()
            moved = expand_displacement(pairs, generator, span.length, decay, problem.dtype)
            displacements.append(AugmentedDisplacement(moved, time, span.start.rho))
        return displacements

    def _pairs(self, generator: FrozenGenerator) -> Eigenpairs:
        pairs = self.eigensolver.solve(generator.pencil, self.kernel, self.backend, self.rank)
        return pairs if self.rank is None else pairs.slowest(self.rank)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, three batches, and with rank > 0 the steps and one eigenproblem, both at most float64."""
        whitened = self.operator.frame == "whitened"
        moments = moments_memory(size.dimension) if whitened else 0
        frame = size.dimension**2 if whitened else size.dimension
        batch = 3 * size.batch * size.dimension
        if self.rank == 0:
            return moments + size.itemsize * (frame + batch)
        points = self.operator.points
        steps = self.operator.span_count * 2 * points * size.dimension + points * size.batch
        folding = 2 * points * size.dimension + 8 * points * min(_COLUMNS, size.dimension)
        eigenproblem = self.eigensolver.working_memory(points, size.dimension, self.rank, 8, self.backend)
        return int(moments + size.itemsize * (frame + batch) + 8 * (steps + folding) + eigenproblem)


@dataclass(frozen=True)
class Displacement:
    """sum_k phi_k(y) c_k folded into one expansion of the eigensolver's basis: one GEMM chain a batch.

    Its coordinates are held within half their range beyond the least and the largest at the fitted points: where a
    sample has left them, kernels extrapolate, and a few such rows would leave for good. It may be evaluated in a wider
    dtype than that of y: large coefficients of both signs cancel in ill-conditioned expansions (many points, few
    dimensions), where float32 would leave little but rounding.
    """

    expansion: Expansion
    low: Tensor  # (d,)
    high: Tensor  # (d,)
    diagnostics: dict[str, Any]

    def __call__(self, y: Tensor) -> Tensor:
        """The displacement at y (n, d). Cost O(n M d) for M centres."""
        return self.expansion(y).clamp(self.low, self.high)


@dataclass(frozen=True)
class AugmentedDisplacement:
    """A displacement of the operator on (y, s), for states at one instant."""

    inner: Displacement
    time: TimeCoordinate
    rho: float

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Those of the eigenproblem."""
        return self.inner.diagnostics

    def __call__(self, y: Tensor) -> Tensor:
        """The displacement of y (n, d) at that instant. Cost O(n M d) for M centres."""
        return self.inner(self.time.append(y, self.rho))


def expand_displacement(
    pairs: Eigenpairs, frozen: FrozenGenerator, length: float, decay: Tensor, dtype: torch.dtype
) -> Displacement:
    """Fold the eigen-expansion of the mean displacement over a span into the basis.

    decay (d,) is the linear flow over the span. In ``dtype``, or in float64 where the rounding of the basis functions,
    eps in each term, would add up to more than 1e-4 standard deviations of the points. Raises NumericalError when the
    expansion is not finite.
    """
    coefficients = pairs.coefficients(frozen.excess)  # (K, d)
    rates = -decay.log() / length  # (d,): the constant kappa with the exact linear flow
    blocks = []
    for columns in torch.arange(len(rates), device=rates.device).split(_COLUMNS):
        exponent = (pairs.values[:, None] + rates[columns]) * length  # (K, columns)
        weighted = coefficients[:, columns] * _varphi_1(exponent) * (length * decay[columns])
        blocks.append((pairs.right @ weighted).real)
    folded = torch.cat(blocks, dim=1)  # (r, d)
    expansion = pairs.basis.combine(folded)
    norm = expansion.coefficient_norm
    growth = float(torch.exp(pairs.values.real.max() * length)) if len(pairs.values) else 1.0
    if not bool(torch.isfinite(folded).all()) or not math.isfinite(norm):
        raise NumericalError(
            "the displacement of a segment is not finite",
            got=f"largest growth factor {growth:.1e}",
            remedy="Use more segments, a larger ridge, or a smaller rank.",
        )
    spread = float(frozen.pencil.points.std(dim=0).max())
    wide = dtype if torch.finfo(dtype).eps * norm <= _ROUNDING * spread else torch.float64
    diagnostics = {**pairs.diagnostics, "kept": len(pairs.values), "largest_growth": growth}
    diagnostics["doubtful"] = sum(bool(flag) for flag in pairs.flags)
    diagnostics["evaluated_in"] = str(wide).removeprefix("torch.")
    fitted = pairs.on_points @ folded  # (N, d)
    low, high = fitted.amin(0), fitted.amax(0)
    margin = _BEYOND * (high - low)
    return Displacement(expansion.to(wide), (low - margin).to(dtype), (high + margin).to(dtype), diagnostics)


def _varphi_1(z: Tensor) -> Tensor:
    """(e^z - 1) / z for complex z, by its Taylor series near 0, where the quotient cancels."""
    small = z.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(z), z)
    series = 1.0 + z / 2.0 + z * z / 6.0 + z * z * z / 24.0
    return torch.where(small, series, (torch.exp(safe) - 1.0) / safe)


@dataclass(frozen=True)
class Step:
    """One segment of a fitted sampler: linear flow (d,), noise scale (d,) or None, displacement or None at rank 0."""

    segment: Segment
    decay: Tensor
    noise_scale: Tensor | None
    displacement: Displacement | AugmentedDisplacement | None


@dataclass(frozen=True)
class FittedKoopman:
    """A fixed sequence of tensor operations from noise to data: no loop over samples or eigenfunctions."""

    frame: Frame
    steps: list[Step]
    dtype: torch.dtype

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from x at t_max = sigma_max times draw 0 of the stream; eta > 0 uses draws 1, 2, ..."""
        first, last = self.steps[0].segment.start, self.steps[-1].segment.end
        y = self.frame.encode(first.sigma * noise.normal(0), first)
        for draw, step in enumerate(self.steps, start=1):
            moved = step.decay * y
            if step.displacement is not None:
                moved = moved + step.displacement(y)
            if step.noise_scale is not None:
                moved = moved + step.noise_scale * noise.normal(draw)
            y = moved
        return self.frame.decode(y, last)

    def describe(self) -> dict[str, Any]:
        """Diagnostics of every segment's eigenproblem."""
        return {
            "segments": [
                {"sigma": step.segment.middle.sigma, **(step.displacement.diagnostics if step.displacement else {})}
                for step in self.steps
            ]
        }
