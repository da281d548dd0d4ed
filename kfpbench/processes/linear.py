"""What the linear forward SDEs share: log-ratio and its use as a time variable."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from kfpbench.errors import ParameterError

_FORGOTTEN = 1e-60  # below this alpha, (sigma / alpha)^2 and what is made of it leaves the range of floats


class LinearProcess(ABC):
    """dx = f(t) x dt + g(t) dw with x_t = alpha_t x_0 + sigma_t eps, eps ~ N(0, I).

    Subclasses give alpha, sigma, f = d log(alpha) / dt, g^2 and the inverse of the log-ratio, all in closed form;
    g^2 = d(sigma^2)/dt - 2 f sigma^2 ties them together (asserted in the tests). Times are in the process's own unit.
    """

    t_min: float
    t_max: float

    def _check_times(self) -> None:
        if not 0.0 < self.t_min < self.t_max or not math.isfinite(self.t_max):
            raise ParameterError(
                f"{type(self).__name__}: the time interval is empty or starts at 0",
                got=(self.t_min, self.t_max),
                allowed="0 < t_min < t_max",
                remedy="At t = 0 the score of a point set is not defined.",
            )
        if self.alpha(self.t_max) < _FORGOTTEN:
            raise ParameterError(
                f"{type(self).__name__}: nothing is left of the data at t_max",
                got=f"alpha = {self.alpha(self.t_max):.1e}",
                allowed=f"alpha >= {_FORGOTTEN:.0e}",
                remedy="Take a smaller t_max or rate.",
            )

    @abstractmethod
    def alpha(self, t: float) -> float:
        """Scale of the data at time t."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """Standard deviation of the noise at time t."""

    @abstractmethod
    def drift_rate(self, t: float) -> float:
        """f(t) of the forward drift f(t) x."""

    @abstractmethod
    def squared_diffusion(self, t: float) -> float:
        """g(t)^2 of the forward SDE."""

    @abstractmethod
    def time_of(self, log_ratio: float) -> float:
        """The time t at which log(sigma_t / alpha_t) has the given value."""

    def log_ratio(self, t: float) -> float:
        """log(sigma_t / alpha_t): half the negative log signal-to-noise ratio, strictly increasing in t."""
        return math.log(self.sigma(t)) - math.log(self.alpha(t))
