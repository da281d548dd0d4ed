"""What the multistep methods share that integrate the denoiser exactly against the exponential of the log-ratio.

With lambda = log(alpha / sigma), D(lambda) the denoised state along the flow and h = lambda' - lambda, the probability
flow from lambda to lambda' is x' = (sigma' / sigma) x + alpha' int_0^h e^(-(h - u)) D(lambda + u) du: the linear part
is exact, and a method is a quadrature x' = (sigma' / sigma) x + alpha' sum_j w_j D_j. Source: Lu, Zhou, Bao, Chen, Li,
Zhu, "DPM-Solver++" (2022), Proposition 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.protocols import Problem, Process

Weights = Callable[[Sequence[float], float], list[float]]
"""w_j from the nodes u_j = lambda_j - lambda (u_0 = 0, older ones negative) and the step h."""

_SERIES = 24  # terms of the power series of phi below |z| = 1: the remainder is under 1 / 24! = 1.6e-24
COINCIDENT = 1e-12  # evaluations nearer in lambda than this hold no difference, only rounding


def half_log_snr(process: Process, t: float) -> float:
    """lambda = log(alpha_t / sigma_t), which grows from the noise to the data."""
    return -process.log_ratio(t)


def phi(order: int, z: float) -> float:
    """phi_k(z) = int_0^1 e^((1 - s) z) s^(k - 1) / (k - 1)! ds, k >= 1; phi_(k+1) = (phi_k - 1/k!) / z, phi_0 = e^z.

    By its power series where the recursion would cancel. Source: Hochbruck and Ostermann, Acta Numerica 19 (2010),
    eqs. (2.10) and (2.11).
    """
    if abs(z) < 1.0:
        return sum(z**j / math.factorial(j + order) for j in range(_SERIES))
    value = math.expm1(z) / z
    for k in range(1, order):
        value = (value - 1.0 / math.factorial(k)) / z
    return value


def euler_weight(step: float) -> float:
    """int_0^h e^(-(h - u)) du = 1 - e^(-h): the weight of a constant denoiser."""
    return -math.expm1(-step)


def interpolation_weights(nodes: Sequence[float], step: float) -> list[float]:
    """w_j = int_0^h e^(-(h - u)) l_j(u) du with the Lagrange polynomials l_j of the p distinct nodes u_j.

    Exact for a denoiser that is a polynomial of degree p - 1 in lambda, so the local error is O(h^(p + 1)). They solve
    sum_j w_j u_j^k = k! h^(k + 1) phi_(k+1)(-h), k < p; nodes and step are scaled by the longest distance first.
    """
    scale = max(abs(step), *(abs(node) for node in nodes))
    ratio = step / scale
    powers = np.vander(np.asarray(nodes) / scale, increasing=True).T  # (p, p): row k holds u_j^k
    moments = [math.factorial(k) * ratio ** (k + 1) * phi(k + 1, -step) for k in range(len(nodes))]
    return [scale * float(weight) for weight in np.linalg.solve(powers, np.asarray(moments))]


def step_orders(order: int, steps: int, lower_order_final: bool) -> list[int]:
    """The order of each step: 1, 2, ... until there is a history, and ..., 2, 1 at the end if so asked."""
    rising = [min(order, index + 1) for index in range(steps)]
    return [min(each, steps - index) for index, each in enumerate(rising)] if lower_order_final else rising


def distinct(nodes: Sequence[float]) -> int:
    """How many of the nodes, newest first, can be interpolated through: those before two coincide."""
    for count, (newer, older) in enumerate(pairwise(nodes), start=1):
        if newer - older <= COINCIDENT:
            return count
    return len(nodes)


def integrate_multistep(
    problem: Problem, times: Sequence[float], x: Tensor, orders: Sequence[int], weights: Weights
) -> Tensor:
    """x at the last time from x (n, d) at the first: x' = (sigma' / sigma) x + alpha' sum_j w_j D_j, step by step.

    ``orders`` says how many of the last evaluations each step uses. One evaluation a step.
    """
    process = problem.process
    history: list[tuple[float, Tensor]] = []  # (lambda, D), newest first
    for (t, following), order in zip(pairwise(times), orders, strict=True):
        sigma, here = process.sigma(t), half_log_snr(process, t)
        history = [(here, problem.score.denoise(x, process.alpha(t), sigma)), *history][: max(orders)]
        nodes = [level - here for level, _ in history[:order]]
        nodes = nodes[: distinct(nodes)]
        scale = process.alpha(following)
        x = process.sigma(following) / sigma * x
        for weight, (_, denoised) in zip(
            weights(nodes, half_log_snr(process, following) - here), history[: len(nodes)], strict=True
        ):
            x = x + scale * weight * denoised
    return x


def check_order(where: str, order: int, highest: int) -> None:
    """Raise ParameterError for an order that the method does not have."""
    if not 1 <= order <= highest:
        raise ParameterError("order out of range", got=order, allowed=f"1 to {highest}", where=where)
