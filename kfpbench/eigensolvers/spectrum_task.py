"""The eigenpair problem of a suite's `spectrum:` block: one frozen operator, no sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from kfpbench.data.reference_problem import ReferenceProblem
from kfpbench.eigensolvers.eigenpairs import Eigensolver
from kfpbench.eigensolvers.estimate import estimate_spectrum
from kfpbench.eigensolvers.spectrum import Spectrum, leading_spectrum
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze
from kfpbench.operators.marginal import marginal
from kfpbench.protocols import Backend, Kernel, Problem, ProblemSize
from kfpbench.registry import resolve

_DEFAULT_OPERATOR = GeneratorOptions(eta=1.0, time="frozen")
_FEWEST_PER_AXIS = 2


class SpectrumTask:
    """Leading eigenvalues of the generator frozen at the process's time ``at`` (null: t_min), per unit of rho.

    ``operator`` gives eta, the frame and the number of points; its time handling does not apply. The fit sees every
    other training row, the residuals ||L phi - lambda phi|| / ||phi|| are taken on points made from the rest; they
    decide which modes are flagged (kfpbench.eigensolvers.doubts). Cost: that of the eigensolver, and 2 N score
    evaluations.

    Without score and process, on a reference problem, the generator is that of the data set's own stationary dynamics,
    per unit of its time, and ``operator.points`` alone applies. ``sampling``: ``draws`` are N independent rows of the
    invariant density, of which a fifth is held out for the residuals; ``quadrature`` is a weighted tensor grid of
    round(N^(1/d)) points an axis, with residuals half-way between its points. ``reversible`` fits the symmetric
    Dirichlet form, which detailed balance permits. Both are for reference problems alone: noised data never license
    detailed balance (under VE the frozen operator's invariant density is not p_t), and have no quadrature rule.
    """

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        eigensolver: Eigensolver | str = "dense",
        backend: Backend | str = "dense",
        operator: GeneratorOptions = _DEFAULT_OPERATOR,
        n_eigs: Annotated[int, Field(ge=1, le=1000)] = 6,
        at: Annotated[float, Field(gt=0)] | None = None,
        sampling: Literal["draws", "quadrature"] = "draws",
        reversible: bool = False,
    ) -> None:
        self.kernel: Kernel = resolve("kernels", kernel)
        self.eigensolver: Eigensolver = resolve("eigensolvers", eigensolver)
        self.backend: Backend = resolve("backends", backend)
        self.operator = operator
        self.n_eigs = n_eigs
        self.at = at
        if sampling not in ("draws", "quadrature"):
            raise ParameterError("spectrum: unknown sampling", got=sampling, allowed="draws, quadrature")
        self.sampling = sampling
        self.reversible = reversible

    def solve(self, problem: Problem) -> Spectrum:
        """Fit on N points of p_t and measure the residuals on N held-out ones.

        Raises ParameterError for a bad time, CapabilityError for what reference problems alone have.
        """
        process = problem.process
        time = process.t_min if self.at is None else self.at
        if not process.t_min <= time <= process.t_max:
            raise ParameterError(
                "spectrum: `at` lies outside the process", got=time, allowed=f"{process.t_min:g} to {process.t_max:g}"
            )
        if self.sampling != "draws" or self.reversible:
            given = "sampling: quadrature" if self.sampling != "draws" else "reversible: true"
            raise CapabilityError(
                "the generator of a reverse process has neither a quadrature rule nor detailed balance",
                got=given,
                remedy="Leave it out; or leave out score and process, for a reference problem's own dynamics.",
                where="spectrum",
            )
        at = marginal(process, time)
        options = replace(self.operator, time="frozen")
        frame = FRAMES[options.frame](problem.dataset, problem.device, problem.dtype)
        rows = problem.dataset.train
        fitted, held_out = (freeze(problem, options, frame, at, draw, rows[draw::2]).pencil for draw in (0, 1))
        pairs = self.eigensolver.solve(fitted, self.kernel, self.backend, self.n_eigs)
        return leading_spectrum(
            pairs,
            fitted,
            held_out,
            self.n_eigs,
            residual_points="points made from held-out rows",
            fitted=np.arange(len(fitted.points)),
            points=fitted.points,
        )

    def solve_reference(
        self, problem: ReferenceProblem, seed: int, device: torch.device, dtype: torch.dtype
    ) -> Spectrum:
        """The spectrum of the problem's own generator L phi = b . grad phi + tr(a Hess phi), in the dtype given.

        Raises CapabilityError for ``reversible`` where detailed balance does not hold, and for a quadrature grid of
        fewer than two points an axis.
        """
        if self.reversible and not problem.reversible:
            raise CapabilityError(
                "reversible: true, but detailed balance does not hold for this problem",
                got=type(problem).__name__,
                remedy="Leave it out.",
                where="spectrum",
            )
        points, weights = self._points(problem, seed)
        return estimate_spectrum(
            points,
            problem.drift,
            problem.diffusion,
            weights=weights,
            kernel=self.kernel,
            eigensolver=self.eigensolver,
            backend=self.backend,
            n_eigs=self.n_eigs,
            reversible=self.reversible,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
        )

    def _points(self, problem: ReferenceProblem, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        if self.sampling == "draws":
            return problem.sample(self.operator.points, seed), None
        per_axis = round(self.operator.points ** (1 / problem.dimension))
        if per_axis < _FEWEST_PER_AXIS:
            raise CapabilityError(
                f"a quadrature grid in {problem.dimension} dimensions needs more points",
                got=self.operator.points,
                allowed=f"at least 2^{problem.dimension}",
                remedy="Raise operator.points, or use sampling: draws.",
                where="spectrum",
            )
        return problem.quadrature(per_axis)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, and one eigenproblem in float64: Gram matrices and complex eigenvectors, at full rank."""
        points = self.operator.points
        frame = size.dimension**2 if self.operator.frame != "raw" else size.dimension
        solving = self.eigensolver.working_memory(points, size.dimension, self.n_eigs, 8, self.backend)
        return int(8 * frame + solving)
