"""The probability-flow ODE's right-hand side, in x and t or in x / alpha and sigma / alpha."""

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


def scaled_velocity(problem: Problem, y: Tensor, level: float) -> Tensor:
    """dy/dq = (y - D(y; q)) / q in y = x / alpha at q = sigma / alpha = ``level``, shape (n, d); one score evaluation.

    The same for every linear process, and defined at any level, above that of t_max too. Source: Karras et al. (2022),
    eq. (3) with sigma(t) = t.
    """
    return (y - problem.score.denoise(y, 1.0, level)) / level
