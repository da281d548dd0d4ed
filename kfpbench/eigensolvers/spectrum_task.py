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
_TRUSTED = 0.5  # a mode whose residual on held-out points exceeds this share of |value| is flagged


@dataclass(frozen=True)
class Spectrum:
    """The leading eigenvalues (k,), their residuals on held-out points (k,), and the reason of each flagged one."""

    values: list[complex]
    residuals: list[float]
    flags: list[str]
    diagnostics: dict[str, Any]


class SpectrumTask:
    """Leading eigenvalues of the generator frozen at the process's time ``at`` (null: t_min), per unit of rho.

    ``operator`` gives eta, the frame and the number of points; its time handling does not apply. The fit sees every
    other training row, the residuals ||L phi - lambda phi|| / ||phi|| are taken on points made from the rest. Modes
    whose residual exceeds half of |lambda|, or that the solver doubts, are flagged: they are listed with their reason
    (at most ``n_eigs`` of them) and do not count towards ``n_eigs``. Cost: that of the eigensolver, and 2 N score
    evaluations.
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
        """Fit on N points of p_t and measure the residuals on N held-out ones. Raises ParameterError for a bad time."""
        process = problem.process
        time = process.t_min if self.at is None else self.at
        if not process.t_min <= time <= process.t_max:
            raise ParameterError(
                "spectrum: `at` lies outside the process", got=time, allowed=f"{process.t_min:g} to {process.t_max:g}"
            )
        at = marginal(process, time)
        options = replace(self.operator, time="frozen")
        frame = FRAMES[options.frame](problem.dataset, problem.device, problem.dtype)
        rows = problem.dataset.train
        fitted, held_out = (freeze(problem, options, frame, at, draw, rows[draw::2]).pencil for draw in (0, 1))
        pairs = self.eigensolver.solve(fitted, self.kernel, self.backend)
        return self._leading(pairs, pairs.residuals(held_out))

    def _leading(self, pairs: Eigenpairs, residuals: torch.Tensor) -> Spectrum:
        values, measured = pairs.values.tolist(), residuals.tolist()
        flags = [
            flag or (_doubt(residual) if residual > _TRUSTED * abs(value) else "")
            for flag, value, residual in zip(pairs.flags, values, measured, strict=True)
        ]
        sound = count = 0
        while count < min(len(values), 2 * self.n_eigs) and sound < self.n_eigs:
            sound += not flags[count]
            count += 1
        return Spectrum(
            [complex(value) for value in values[:count]], measured[:count], flags[:count], pairs.diagnostics
        )

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the frame, and one eigenproblem in float64: Gram matrices and complex eigenvectors, at full rank."""
        points = self.operator.points
        frame = size.dimension**2 if self.operator.frame == "whitened" else size.dimension
        return 8 * (frame + 18 * points**2 + 8 * points * size.dimension)


def _doubt(residual: float) -> str:
    return f"residual {residual:.2g} on held-out points exceeds {_TRUSTED:g} |value|"
