"""A part of a process: the same SDE on a shorter interval of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kfpbench.errors import ParameterError
from kfpbench.protocols import Process


@dataclass
class Span:
    """``inner`` on [t_min, t_max]: samplers fitted to it start at its t_max and end at its t_min.

    Raises ParameterError for an interval that is empty or leaves that of ``inner``.
    """

    inner: Process
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not self.inner.t_min <= self.t_min < self.t_max <= self.inner.t_max:
            raise ParameterError(
                "the span of a process is empty or leaves the process's own interval",
                got=(self.t_min, self.t_max),
                allowed=f"{self.inner.t_min:g} <= t_min < t_max <= {self.inner.t_max:g}",
                remedy="Choose both times inside, or widen the process.",
            )

    def alpha(self, t: float) -> float:
        """That of ``inner``, as are all that follow."""
        return self.inner.alpha(t)

    def sigma(self, t: float) -> float:
        """Standard deviation of the noise."""
        return self.inner.sigma(t)

    def drift_rate(self, t: float) -> float:
        """f."""
        return self.inner.drift_rate(t)

    def squared_diffusion(self, t: float) -> float:
        """g^2."""
        return self.inner.squared_diffusion(t)

    def log_ratio(self, t: float) -> float:
        """log(sigma / alpha)."""
        return self.inner.log_ratio(t)

    def time_of(self, log_ratio: float) -> float:
        """The time of a log-ratio."""
        return self.inner.time_of(log_ratio)


def split(process: Process, ratio: float) -> tuple[Span, Span]:
    """The parts of a process before and behind sigma / alpha = ``ratio``, as a sampler passes them.

    Raises ParameterError for a ratio that is not inside the process's interval.
    """

    low, high = process.log_ratio(process.t_min), process.log_ratio(process.t_max)
    if not (ratio > 0 and low < math.log(ratio) < high):
        raise ParameterError(
            "the noise level of the handover is not inside the process",
            got=ratio,
            allowed=f"between {math.exp(low):.4g} and {math.exp(high):.4g} (sigma / alpha)",
            remedy="Choose sigma* between these, or widen the process.",
        )
    time = process.time_of(math.log(ratio))
    return Span(process, time, process.t_max), Span(process, process.t_min, time)
