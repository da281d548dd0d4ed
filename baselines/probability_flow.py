"""The probability-flow ODE's right-hand side."""

from __future__ import annotations

from torch import Tensor

from kfpbench.protocols import Problem


def velocity(problem: Problem, x: Tensor, t: float) -> Tensor:
    """dx/dt = f(t) x - (1/2) g(t)^2 grad log p_t(x), shape (n, d); one score evaluation.

    Source: Song et al., "Score-Based Generative Modeling through SDEs" (2021), eq. (13).
    """
    process = problem.process
    score = problem.score.score(x, process.alpha(t), process.sigma(t))
    return process.drift_rate(t) * x - 0.5 * process.squared_diffusion(t) * score
