"""Density sampler: the Fokker-Planck equation solved by eigenfunctions, as weights of noised rows, then drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from kfpbench.data.moments import moments_memory, training_moments
from kfpbench.eigensolvers.eigenpairs import Eigensolver
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES, Frame
from kfpbench.operators.generator import GeneratorOptions, Segment, fit_noise, freeze, noised_rows, segments
from kfpbench.operators.marginal import Marginal
from kfpbench.operators.pencil import require_smooth
from kfpbench.protocols import Backend, Kernel, Problem, ProblemSize
from kfpbench.registry import resolve
from kfpbench.samplers.fokker_planck_weights import WeightedPoints, carry, clipped, growth_record, transfer
from kfpbench.samplers.local_gaussians import LocalGaussians
from kfpbench.samplers.smoothing import Isotropic, Renoised, SmoothedPoints

_DEFAULT_OPERATOR = GeneratorOptions()
_START_DRAWS = 4096  # of N(0, sigma_T^2 I), where they are independent of the points

Smoothing = Literal["isotropic", "local_low_rank", "renoised"]


class Density:
    """p at t_min as sum_j v_j delta(x_j), signed, clipped, smoothed by a normalised kernel, and drawn from.

    Over each segment the law is carried by the eigenpairs of its generator as weights w of the points y_i ~ p at the
    midpoint (``fokker_planck_weights``), the operator in the frame being the whole one, its linear part included:

        w^(s) = W Re sum_k e^(lambda_k D) a_k conj(psi_k(y_i)),  a_k = sum_i w_i^(s-1) phi_k(y_i^(s-1)).

    The start, a_k of the first segment, is the mean of phi_k over fixed draws of N(0, sigma_T^2 I). The points of the
    last segment have the noise of its midpoint. So its law is at the end moved (``transfer``) to P = ``particles`` rows
    noised to t_min itself, x_j = alpha x_0^(j) + sigma eps_j: the density relative to p_{t_min} that has the same
    moments in the last basis. Evaluating psi_k there instead would give one relative to the midpoint's p.

    ``draws: independent`` makes the start from 4,096 draws of its own, every segment and the particles from rows and
    noise of their own: r functions add about r / N to the variance of N w_i in each segment, and the weights mend what
    is accidental in the particles, such as unequal shares of modes. ``common`` takes the same row and the same eps for
    point i of every segment, for its start draw and its particle: errors that they share cancel, and the particles'
    accidents stay.

    ``rank`` keeps the slowest eigenpairs, a conjugate pair whole: null keeps all; 1 is the frozen generator's invariant
    density; 0 uses no operator and no score: uniform weights, the control. Where the score is exact for the training
    rows, uniform weights are right but for the particles' sampling error: more is to be won only where it is not.

    ``smoothing``: ``isotropic`` (``bandwidth`` in standard deviations in the frame, ``silverman`` by default),
    ``local_low_rank`` (``clusters`` Gaussians, covariances of rank ``components`` plus a diagonal; hands no row on),
    ``renoised`` (each particle's noise drawn anew).

    frame: posterior has coordinates that grow, and over a segment of length D the law outgrows the midpoint's points by
    up to e^(D / 2): it has a density in L2(q) only for short segments (D < log 2 for a Gaussian), where whitened always
    has one. At eta = 1 kappa = 0: for Gaussian data L = tr(a Hess) has no invariant density, and Jordan blocks on
    polynomials, which eigenpairs carry wrongly.

    eta = 0 (pure transport) is allowed: the weights' formula needs no diffusion, but the spectrum is not discrete, and
    only all pairs together mean something. Setup: N x segments score evaluations and one eigenproblem a segment.
    Sampling: no score evaluation, O(d) a row and O(d^2) for a change of coordinates. Source:
    Wu and Kawahara, Entropy 28(3):290 (2026), for the idea; the formulas are this project's. Order: 2 in the segments'
    length, that of freezing at the midpoint.

    Raises ParameterError for impossible parameters, CapabilityError for augmented time or a kernel too rough.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"operator": GeneratorOptions(segments=2, points=60)},
        {"operator": GeneratorOptions(segments=2, points=60, eta=1.0, frame="raw"), "draws": "independent"},
        {"operator": GeneratorOptions(segments=2, points=60, eta=1.0), "smoothing": "local_low_rank", "clusters": 3},
        {"operator": GeneratorOptions(segments=2, points=60), "smoothing": "renoised", "rank": 0},
    )

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        eigensolver: Eigensolver | str = "dense",
        backend: Backend | str = "dense",
        operator: GeneratorOptions = _DEFAULT_OPERATOR,
        rank: Annotated[int, Field(ge=0)] | None = None,
        draws: Literal["common", "independent"] = "common",
        particles: Annotated[int, Field(ge=2)] | None = None,
        smoothing: Smoothing = "isotropic",
        bandwidth: Annotated[float, Field(gt=0)] | Literal["silverman"] = "silverman",
        clusters: Annotated[int, Field(ge=1)] = 10,
        components: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        if rank is not None and rank < 0:
            raise ParameterError("density: rank must not be negative", got=rank, allowed="null, or 0 and more")
        if draws not in ("common", "independent"):
            raise ParameterError("density: unknown draws", got=draws, allowed="common, independent")
        if smoothing not in ("isotropic", "local_low_rank", "renoised"):
            raise ParameterError(
                "density: unknown smoothing", got=smoothing, allowed="isotropic, local_low_rank, renoised"
            )
        if bandwidth != "silverman" and not 0.0 < bandwidth < float("inf"):
            raise ParameterError("density: bad bandwidth", got=bandwidth, allowed="silverman, or a positive number")
        if clusters < 1 or components < 1 or (particles is not None and particles < 2):
            raise ParameterError(
                "density: bad clusters, components or particles",
                got=(clusters, components, particles),
                allowed="1 and more, 1 and more, null or 2 and more",
            )
        if operator.time == "augmented":
            raise CapabilityError(
                "density: augmented time is not carried by weights",
                got="augmented",
                allowed="frozen, piecewise",
                remedy="Its points lie at all times of the span at once: they carry no law at one time.",
            )
        self.kernel: Kernel = resolve("kernels", kernel)
        self.eigensolver: Eigensolver = resolve("eigensolvers", eigensolver)
        self.backend: Backend = resolve("backends", backend)
        self.operator, self.rank, self.draws, self.particles = operator, rank, draws, particles
        self.smoothing, self.bandwidth = smoothing, bandwidth
        self.clusters, self.components = clusters, components

    def fit(self, problem: Problem) -> FittedDensity:
        """Carry the weights through all segments, move them to t_min, fit the smoothing kernel.

        Raises CapabilityError for a kernel too rough, NumericalError for weights that are not finite.
        """
        if self.rank != 0:  # before any score is evaluated
            require_smooth(self.kernel, 2 if self.operator.eta > 0 else 1, problem.dataset.dimension)
        frame = FRAMES[self.operator.frame](problem.dataset, problem.device, problem.dtype)
        spans = segments(problem, self.operator)
        end, count = spans[-1].end, self.operator.points if self.particles is None else self.particles
        _, origin, x = noised_rows(problem, problem.dataset.train, end, count, self._draw(len(spans)))
        y = frame.encode(x, end).double()
        law, records = self._solve(problem, frame, spans, y)
        return FittedDensity(self._smooth(problem, frame, end, origin, x, law), law.weights, records)

    def _draw(self, segment: int) -> int:
        """Number of the draw of a segment's points; that of the particles follows the last."""
        return segment if self.draws == "independent" else 0

    def _solve(
        self, problem: Problem, frame: Frame, spans: list[Segment], y: Tensor
    ) -> tuple[WeightedPoints, list[dict[str, Any]]]:
        """The law at the end on the particles y (P, d), and a record for each segment."""
        if self.rank == 0:
            return WeightedPoints.uniform(y), [{"sigma": span.middle.sigma} for span in spans]
        law, records, basis = self._start(problem, frame, spans[0].start), [], None
        for number, span in enumerate(spans):
            frozen = freeze(problem, self.operator, frame, span.middle, self._draw(number))
            pairs = self.eigensolver.solve(frozen.pencil, self.kernel, self.backend, self.rank)
            pairs = pairs if self.rank is None else pairs.slowest(self.rank)
            law, basis = carry(pairs, frozen.pencil.points, law, span.length), pairs.basis
            records.append({"sigma": span.middle.sigma, **growth_record(pairs, span.length), **law.describe()})
        assert basis is not None  # there is at least one span
        return transfer(law, basis, y), records

    def _start(self, problem: Problem, frame: Frame, at: Marginal) -> WeightedPoints:
        """Draws of N(0, sigma_T^2 I): the points' own eps with common draws, else 4,096 behind all others."""
        common = self.draws == "common"
        draw = 1 if common else 2 * (self.operator.span_count + 1) + 1
        count = self.operator.points if common else _START_DRAWS
        eps = fit_noise(problem, count, problem.dataset.dimension).normal(draw)
        return WeightedPoints.uniform(frame.encode(at.sigma * eps, at).double())

    def _smooth(
        self, problem: Problem, frame: Frame, end: Marginal, origin: Tensor, x: Tensor, law: WeightedPoints
    ) -> SmoothedPoints:
        weights, dtype = clipped(law.weights), problem.dtype
        if self.smoothing == "isotropic":
            return Isotropic.fit(frame, end, law.points, weights, self.bandwidth, dtype)
        if self.smoothing == "renoised":
            return Renoised(end.alpha * origin, weights.cumsum(0), end.sigma)
        return LocalGaussians.fit(
            x.double(),
            weights,
            training_moments(problem.dataset),
            end.alpha,
            self.clusters,
            self.components,
            problem.seed,
            dtype,
        )

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, particles and a batch; with rank > 0 one eigenproblem and the basis on the particles."""
        d, points = size.dimension, self.operator.points
        count = points if self.particles is None else self.particles
        rotated = self.operator.frame != "raw" or self.smoothing == "local_low_rank"
        frame = moments_memory(d) + 3 * 8 * d**2 if rotated else size.itemsize * d
        local = self.smoothing == "local_low_rank"
        rank = min(self.components, d)
        clusters = 8 * self.clusters * (2 * d + 3 * rank**2) if local else 0
        gathered = size.itemsize * size.batch * (3 * d + (2 * rank**2 if local else 0))
        held = 8 * count * d * (5 if local else 3) + 2 * size.itemsize * count * d
        if self.rank == 0:
            return int(frame + held + clusters + gathered)
        start = points if self.draws == "common" else _START_DRAWS
        tile = min(max(start, count), 4096)  # rows whose kernel sections and features are in memory at a time
        carried = 8 * (6 * points * d + 2 * start * d + 2 * count * points + 2 * tile * points)
        eigenproblem = self.eigensolver.working_memory(points, d, self.rank, 8, self.backend)
        return int(frame + held + clusters + gathered + carried + eigenproblem)


@dataclass(frozen=True)
class FittedDensity:
    """A smoothed weighting of particles at t_min; ``weights`` (P,) are the signed ones, before clipping."""

    law: SmoothedPoints
    weights: Tensor
    segments: list[dict[str, Any]]

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from draws 0 (which particle or cluster) and 1 (the kernel) of the stream."""
        return self.law.sample(noise)

    def describe(self) -> dict[str, Any]:
        """Negative mass, effective size and largest ratio at the end of every segment and on the particles."""
        final = WeightedPoints(self.weights[:, None], self.weights).describe()
        return {"segments": self.segments, "particles": {"count": len(self.weights), **final, **self.law.describe()}}
