"""The eigenpair problem of a suite's `spectrum:` block: one frozen operator, no sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field

from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.errors import ParameterError
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze
from kfpbench.operators.marginal import marginal
from kfpbench.protocols import Backend, Kernel, Problem, ProblemSize
from kfpbench.registry import resolve

_DEFAULT_OPERATOR = GeneratorOptions(eta=1.0, time="frozen")
_HELD_OUT_DRAW = 1  # residual points come from another draw than the fitted ones


@dataclass(frozen=True)
class Spectrum:
    """The leading eigenvalues (k,), their residuals on held-out points (k,), and the reason of each flagged one."""

    values: list[complex]
    residuals: list[float]
    flags: list[str]
    diagnostics: dict[str, Any]


class SpectrumTask:
    """Leading eigenvalues of the generator frozen at the process's time ``at`` (null: t_min), per unit of rho.

    ``operator`` gives eta, the frame and the number of points; its time handling does not apply. Modes that the solver
    flags are reported with their reason and do not count towards ``n_eigs``. Cost: that of the eigensolver, and N score
    evaluations twice (fit and held-out points).
    """

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        eigensolver: Eigensolver | str = "dense",
        backend: Backend | str = "dense",
        operator: GeneratorOptions = _DEFAULT_OPERATOR,
        n_eigs: Annotated[int, Field(ge=1, le=1000)] = 6,
        at: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        self.kernel: Kernel = resolve("kernels", kernel)
        self.eigensolver: Eigensolver = resolve("eigensolvers", eigensolver)
        self.backend: Backend = resolve("backends", backend)
        self.operator = operator
        self.n_eigs = n_eigs
        self.at = at

    def solve(self, problem: Problem) -> Spectrum:
        """Fit on N points of p_t and measure the residuals on as many others. Raises ParameterError for a bad time."""
        process = problem.process
        time = process.t_min if self.at is None else self.at
        if not process.t_min <= time <= process.t_max:
            raise ParameterError(
                "spectrum: `at` lies outside the process", got=time, allowed=f"{process.t_min:g} to {process.t_max:g}"
            )
        at = marginal(process, time)
        options = replace(self.operator, time="frozen")
        frame = FRAMES[options.frame](problem.dataset, problem.device, problem.dtype)
        pairs = self.eigensolver.solve(freeze(problem, options, frame, at, 0).pencil, self.kernel, self.backend)
        residuals = pairs.residuals(freeze(problem, options, frame, at, _HELD_OUT_DRAW).pencil)
        return self._leading(pairs, residuals)

    def _leading(self, pairs: Eigenpairs, residuals: torch.Tensor) -> Spectrum:
        sound = 0
        count = 0
        for flag in pairs.flags:
            if sound == self.n_eigs:
                break
            sound += not flag
            count += 1
        return Spectrum(
            [complex(value) for value in pairs.values[:count].tolist()],
            [float(value) for value in residuals[:count].tolist()],
            list(pairs.flags[:count]),
            pairs.diagnostics,
        )

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, and one eigenproblem in float64: Gram matrices and complex eigenvectors, at full rank."""
        points = self.operator.points
        frame = size.dimension**2 if self.operator.frame == "whitened" else size.dimension
        return 8 * (frame + 18 * points**2 + 8 * points * size.dimension)
