"""The contract of processes: coefficients that belong to the marginals, and a log-ratio that is a time variable.

Derivatives are central differences of sixth order with steps of t / 200 at times inside the interval, spaced evenly in
log t: an error of 1e-6 of the terms' size is allowed, of which rounding takes 1e-11 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kfpbench.protocols import Process
from kfpbench.testing.contract import Contract, require

CONTRACT = Contract("processes")
_COUNT = 25
_RELATIVE = 1e-6


@CONTRACT
def has_an_interval_of_time(process: Process) -> None:
    """0 < t_min < t_max, both finite: at t = 0 the score of a point set is not defined."""
    ends = (process.t_min, process.t_max)
    sound = all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends) and 0.0 < ends[0] < ends[1]
    require(sound, "the interval of time is empty, or starts at 0", got=ends, allowed="0 < t_min < t_max")


@CONTRACT
def coefficients_are_numbers(process: Process) -> None:
    """alpha and sigma are positive, g^2 is not negative, f is finite, floats all, at all times, ends included."""
    for t in _times(process):
        found: dict[str, Any] = {
            "alpha": process.alpha(t),
            "sigma": process.sigma(t),
            "squared_diffusion": process.squared_diffusion(t),
            "drift_rate": process.drift_rate(t),
        }
        for name, value in found.items():
            require(isinstance(value, float), f"{name} is no float", got=type(value).__name__, remedy="float(...).")
            require(math.isfinite(value), f"{name} is not finite", got=f"{value} at t = {t:.3g}")
            least = {"alpha": value > 0.0, "sigma": value > 0.0, "squared_diffusion": value >= 0.0}
            require(least.get(name, True), f"{name} is out of range", got=f"{value} at t = {t:.3g}")


@CONTRACT
def drift_rate_belongs_to_alpha(process: Process) -> None:
    """f = d log(alpha) / dt: the mean of x_t is alpha x_0."""
    for t in _inner(process):
        slope = _derivative(lambda s: math.log(process.alpha(s)), t)
        found = process.drift_rate(t)
        require(
            abs(slope - found) <= _RELATIVE * max(abs(slope), abs(found), 1e-3 / t),
            "drift_rate is not the derivative of log(alpha)",
            got=f"{found:.6g} at t = {t:.3g}",
            allowed=f"{slope:.6g}",
            remedy="Check the sign, and a factor 1/2: dx = f x dt gives alpha' = f alpha.",
        )


@CONTRACT
def diffusion_belongs_to_alpha_and_sigma(process: Process) -> None:
    """g^2 = d(sigma^2)/dt - 2 f sigma^2, which makes alpha x_0 + sigma eps the marginal of the SDE."""
    for t in _inner(process):
        growth = _derivative(lambda s: process.sigma(s) ** 2, t)
        decay = 2.0 * _derivative(lambda s: math.log(process.alpha(s)), t) * process.sigma(t) ** 2
        found, exact = process.squared_diffusion(t), growth - decay
        require(
            abs(found - exact) <= _RELATIVE * max(abs(growth), abs(decay), abs(found)),
            "squared_diffusion does not belong to alpha and sigma",
            got=f"{found:.6g} at t = {t:.3g}",
            allowed=f"{exact:.6g}",
            remedy="g^2 = d(sigma^2)/dt - 2 f sigma^2; it is g^2 and not g.",
        )


@CONTRACT
def log_ratio_increases(process: Process) -> None:
    """log_ratio is log(sigma / alpha), strictly increasing in t."""
    times = _times(process)
    found = [process.log_ratio(t) for t in times]
    for t, value in zip(times, found, strict=True):
        exact = math.log(process.sigma(t) / process.alpha(t))
        require(
            abs(value - exact) <= 1e-9 * max(1.0, abs(exact)),
            "log_ratio is not log(sigma / alpha)",
            got=f"{value:.9g} at t = {t:.3g}",
            allowed=f"{exact:.9g}",
        )
    rising = bool((np.diff(found) > 0).all())
    require(rising, "log_ratio is not strictly increasing", remedy="Noise must gain on the signal at all times.")


@CONTRACT
def time_of_inverts_the_log_ratio(process: Process) -> None:
    """time_of(log_ratio(t)) = t to a relative 1e-7, at all times."""
    for t in _times(process):
        found = process.time_of(process.log_ratio(t))
        require(
            abs(found - t) <= 1e-7 * t,
            "time_of is not the inverse of log_ratio",
            got=f"{found:.9g}",
            allowed=f"{t:.9g}",
            remedy="Where no closed form exists, a bisection in log t is one.",
        )


def _times(process: Process) -> list[float]:
    inner = np.geomspace(process.t_min, process.t_max, _COUNT)[1:-1]
    return [process.t_min, *(float(t) for t in inner), process.t_max]


def _inner(process: Process) -> list[float]:
    """Times whose steps stay inside the interval, in which alone a process has to answer."""
    return [t for t in _times(process) if t * (1 - 3 / 200) >= process.t_min and t * (1 + 3 / 200) <= process.t_max]


def _derivative(function: Callable[[float], float], t: float) -> float:
    h = t / 200.0
    return sum(c * (function(t + k * h) - function(t - k * h)) for k, c in ((1, 45.0), (2, -9.0), (3, 1.0))) / (60 * h)
