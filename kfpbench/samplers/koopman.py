"""Koopman sampler: noise to data by the eigenfunction expansion of the state's mean displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.data.moments import moments_memory
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.augmented import TimeCoordinate, augment
from kfpbench.operators.frames import FRAMES, Frame, WhitenedFrame, WithoutLinearPart
from kfpbench.operators.generator import FrozenGenerator, GeneratorOptions, Segment, freeze, segments
from kfpbench.operators.leading_axes import LeadingAxes
from kfpbench.operators.pencil import require_smooth
from kfpbench.protocols import Backend, Kernel, Problem, ProblemSize
from kfpbench.registry import resolve
from kfpbench.samplers.conditional_noise import (
    COVARIANCES,
    EXACT_DIRECTIONS,
    PROBES,
    Covariance,
    Solved,
)
from kfpbench.samplers.displacement import COLUMNS, AugmentedDisplacement, Displacement, expand_displacement
from kfpbench.samplers.leading_flow import LeadingFlow
from kfpbench.samplers.steps import LeadingStep, Step

_DEFAULT_OPERATOR = GeneratorOptions()
_BY_KERNEL = ("kernel", "kernel_mean")


class Koopman:
    """y_end = m y + sum_k phi_k(y) c_k + s xi over each segment, phi_k the generator's eigenfunctions.

    m is the exact linear flow of the frame, s the conditional standard deviation (none for eta = 0),

        c_k = D e^(-kappa D) varphi_1((lambda_k + kappa) D) <psi_k, B>,  varphi_1(z) = (e^z - 1) / z,

    is the exact integral of the mean excess drift B under the frozen operator over the segment's length D; with
    kappa = 0 it is the displacement D varphi_1(D L) b.

    The kernel part and the Gaussian part are switched apart. ``rank`` keeps the slowest eigenpairs, the constant
    function among them, a conjugate pair whole: null keeps all, 0 none, which leaves the Gaussian part alone, in the
    whitened and the posterior frame with eta = 0 the closed-form Gaussian sampler. ``linear`` none leaves the kernel
    part alone: m = 1, kappa = 0, and B is the whole drift, B - kappa y; with eta = 0 the Gaussian part is the whitened
    frame's own change of coordinates, which frame: raw leaves out.

    ``covariance``, for eta > 0, is where s comes from: ``gaussian``, that of Gaussian data with the training rows'
    moments; ``kernel``, the frozen operator's own, a function of the state (kfpbench.samplers.conditional_noise), at
    the price of a second expansion; ``kernel_mean``, its mean over the points, the same for every state, for dimensions
    in which the function is not to be had; ``none``: conditional means alone, which lose variance.

    ``components`` c gives the kernel part the leading c coordinates of a frame of principal axes; the rest follows the
    Gaussian part alone. null: all. What a kernel can tell of a noisy image lies in few axes, and a sample then streams
    c / d of the numbers.

    Setup: N x segments score evaluations and one eigenproblem a segment. Sampling: no score evaluation, O(N d) for each
    image and segment, O(N c) with ``components``, and O(d^2) for the frame, twice, or once with ``components`` and no
    noise. Source: Wu and Kawahara, Entropy 28(3):290 (2026), for the idea; the formulas are this project's.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"operator": GeneratorOptions(segments=2, points=40)},
        {"operator": GeneratorOptions(segments=2, points=40, eta=1.0)},
        {"operator": GeneratorOptions(time="augmented", segments=2, points=60)},
        {"operator": GeneratorOptions(segments=2, points=40, eta=1.0), "covariance": "kernel"},
        {
            "operator": GeneratorOptions(segments=2, points=40, eta=0.5, centres="training"),
            "covariance": "kernel_mean",
            "linear": "none",
        },
        {"operator": GeneratorOptions(segments=2, points=40, eta=0.5, frame="posterior"), "components": 1},
    )

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        eigensolver: Eigensolver | str = "dense",
        backend: Backend | str = "dense",
        operator: GeneratorOptions = _DEFAULT_OPERATOR,
        rank: Annotated[int, Field(ge=0)] | None = None,
        linear: Literal["gaussian", "none"] = "gaussian",
        covariance: Covariance = "gaussian",
        components: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        if rank is not None and rank < 0:
            raise ParameterError("koopman: rank must not be negative", got=rank, allowed="null, or 0 and more")
        if linear not in ("gaussian", "none"):
            raise ParameterError("koopman: unknown linear part", got=linear, allowed="gaussian, none")
        if covariance not in COVARIANCES:
            raise ParameterError("koopman: unknown covariance", got=covariance, allowed=", ".join(COVARIANCES))
        if components is not None and components < 1:
            raise ParameterError("koopman: components must be positive", got=components, allowed="null, or 1 and more")
        if components is not None and operator.frame == "raw":
            raise CapabilityError(
                "koopman: pixels are not sorted: their leading components mean nothing",
                got="components with frame raw",
                allowed="frame whitened or posterior",
                remedy="Take one of these frames, or components: null.",
            )
        self.kernel: Kernel = resolve("kernels", kernel)
        self.eigensolver: Eigensolver = resolve("eigensolvers", eigensolver)
        self.backend: Backend = resolve("backends", backend)
        self.operator = operator
        self.rank = rank
        self.linear = linear
        self.covariance: Covariance = covariance
        self.components = components

    def fit(self, problem: Problem) -> FittedKoopman | LeadingFlow:
        """Evaluate the drift, solve one eigenproblem a segment, fold the coefficients. Raises NumericalError."""
        if self.rank != 0:  # before any score is evaluated
            self._require_whole_operator()
            seen = min(self.components or problem.dataset.dimension, problem.dataset.dimension)
            require_smooth(self.kernel, 2 if self.operator.eta > 0 else 1, seen)
        whole: Frame = FRAMES[self.operator.frame](problem.dataset, problem.device, problem.dtype)
        leading = self.components is not None and self.components < problem.dataset.dimension
        frame = LeadingAxes(whole, self.components) if leading and self.components else whole
        if self.linear == "none":
            frame = WithoutLinearPart(frame)
        spans = segments(problem, self.operator)
        if self.rank == 0:
            steps = [self._step(frame, span, None, None, problem.dtype) for span in spans]
        elif self.operator.time == "augmented":
            steps = self._augmented(problem, frame, spans)
        else:
            steps = [self._piece(problem, frame, span, draw) for draw, span in enumerate(spans)]
        if not leading:
            return FittedKoopman(frame, steps, problem.dtype)
        if isinstance(whole, WhitenedFrame) and not any(step.noisy for step in steps):
            return LeadingFlow.of(whole, steps, self.operator.eta)
        return FittedKoopman(whole, [self._with_rest(whole, step) for step in steps], problem.dtype)

    def _with_rest(self, whole: Frame, step: Step) -> LeadingStep:
        start, end, eta = step.segment.start, step.segment.end, self.operator.eta
        count = len(step.decay)
        noisy = step.noise_scale is not None
        return LeadingStep(
            step,
            whole.decay(start, end, eta)[count:],
            whole.noise_scale(start, end, eta)[count:] if noisy else None,
        )

    def _piece(self, problem: Problem, frame: Frame, span: Segment, draw: int) -> Step:
        frozen = freeze(problem, self.operator, frame, span.middle, draw)
        pairs = self._pairs(frozen)
        decay = frame.decay(span.start, span.end, self.operator.eta).double()
        displacement = expand_displacement(pairs, frozen, span.length, decay, problem.dtype)
        return self._step(frame, span, displacement, Solved(frozen, pairs), problem.dtype)

    def _step(
        self,
        frame: Frame,
        span: Segment,
        displacement: Displacement | AugmentedDisplacement | None,
        solved: Solved | None,
        dtype: torch.dtype,
    ) -> Step:
        eta = self.operator.eta
        scale, diagnostics = COVARIANCES[self.covariance if eta > 0 else "none"](frame, span, eta, solved, dtype)
        told = {**(displacement.diagnostics if displacement else {}), **diagnostics}
        return Step(span, frame.decay(span.start, span.end, eta), scale, displacement, told)

    def _require_whole_operator(self) -> None:
        """Raise CapabilityError where augmented time meets a few eigenpairs: they are no approximation of it.

        The operator of augmented time is far from normal (time only moves on): its slowest pairs alone say nothing.
        """
        if self.operator.time != "augmented":
            return
        if self.rank is not None or getattr(self.eigensolver, "partial", False):
            raise CapabilityError(
                "koopman: augmented time needs all eigenpairs",
                got=f"rank {self.rank}" if self.rank is not None else type(self.eigensolver).__name__,
                allowed="rank null (or 0), and an eigensolver that finds all pairs",
                remedy="Limit the functions by the eigensolver's max_rank, or take time: piecewise.",
            )
        if self.covariance in _BY_KERNEL and self.operator.eta > 0:
            raise CapabilityError(
                "koopman: a kernel covariance needs points of the span's own instant, augmented time has all instants'",
                got=f"covariance {self.covariance}",
                allowed="none, gaussian",
                remedy="Take time: piecewise, or covariance: gaussian.",
            )

    def _augmented(self, problem: Problem, frame: Frame, spans: list[Segment]) -> list[Step]:
        time = TimeCoordinate.spanning(spans, self.operator.time_width)
        generator = augment(problem, self.operator, frame, spans, time)
        pairs = self._pairs(generator)
        steps = []
        for span in spans:
            decay = frame.decay(span.start, span.end, self.operator.eta).double()
            moved = expand_displacement(pairs, generator, span.length, decay, problem.dtype)
            displacement = AugmentedDisplacement(moved, time, span.start.rho)
            steps.append(self._step(frame, span, displacement, None, problem.dtype))
        return steps

    def _pairs(self, generator: FrozenGenerator) -> Eigenpairs:
        pairs = self.eigensolver.solve(generator.pencil, self.kernel, self.backend, self.rank)
        return pairs if self.rank is None else pairs.slowest(self.rank)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, three batches, and with rank > 0 the steps and one eigenproblem, both at most float64."""
        rotated = self.operator.frame != "raw"
        moments = moments_memory(size.dimension) if rotated else 0
        frame = size.dimension**2 if rotated else size.dimension
        batch = 3 * size.batch * size.dimension
        if self.rank == 0:
            return moments + size.itemsize * (frame + batch)
        points = self.operator.points
        seen = min(self.components or size.dimension, size.dimension)
        by_kernel = self.covariance in _BY_KERNEL and self.operator.eta > 0
        tables = 3 if self.covariance == "kernel" and by_kernel else 2  # centres, and one or two sets of weights
        steps = self.operator.span_count * tables * points * seen + points * size.batch
        folding = 2 * points * seen + 8 * points * min(COLUMNS, seen)
        if by_kernel:
            directions = seen if seen <= EXACT_DIRECTIONS else PROBES
            folding += points * (directions * (points + seen) + seen)
        eigenproblem = self.eigensolver.working_memory(points, seen, self.rank, 8, self.backend)
        return int(moments + size.itemsize * (frame + batch) + 8 * (steps + folding) + eigenproblem)


@dataclass(frozen=True)
class FittedKoopman:
    """A fixed sequence of tensor operations from noise to data: no loop over samples or eigenfunctions."""

    frame: Frame
    steps: Sequence[Step | LeadingStep]
    dtype: torch.dtype

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from x at t_max = sigma_max times draw 0 of the stream; eta > 0 uses draws 1, 2, ..."""
        first, last = self.steps[0].segment.start, self.steps[-1].segment.end
        y = self.frame.encode(first.sigma * noise.normal(0), first)
        for draw, step in enumerate(self.steps, start=1):
            y = step.advance(y, noise.normal(draw) if step.noisy else None)
        return self.frame.decode(y, last)

    def describe(self) -> dict[str, Any]:
        """Diagnostics of every segment's eigenproblem and of its conditional covariance."""
        return {"segments": [{"sigma": step.segment.middle.sigma, **step.diagnostics} for step in self.steps]}
