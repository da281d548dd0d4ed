"""Ornstein-Uhlenbeck forward process."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from kfpbench.errors import ParameterError
from kfpbench.processes.linear import LinearProcess


class OrnsteinUhlenbeck(LinearProcess):
    """dx = -rate x dt + stationary_std sqrt(2 rate) dw on [t_min, t_max].

    alpha_t = exp(-rate t), sigma_t^2 = stationary_std^2 (1 - exp(-2 rate t)): constant coefficients, so the law forgets
    the data at the stated rate. Source: Uhlenbeck and Ornstein, Phys. Rev. 36, 823 (1930). Raises ParameterError for an
    empty interval, or a rate or deviation that is not positive and finite.
    """

    def __init__(
        self,
        rate: Annotated[float, Field(gt=0)] = 1.0,
        stationary_std: Annotated[float, Field(gt=0)] = 1.0,
        t_min: Annotated[float, Field(gt=0)] = 1e-4,
        t_max: Annotated[float, Field(gt=0)] = 6.0,
    ) -> None:
        if not (0 < rate < math.inf and 0 < stationary_std < math.inf):
            raise ParameterError("ou: rate and stationary_std must be positive and finite", got=(rate, stationary_std))
        self.rate, self.stationary_std = float(rate), float(stationary_std)
        self.t_min, self.t_max = float(t_min), float(t_max)
        self._check_times()

    def alpha(self, t: float) -> float:
        """exp(-rate t)."""
        return math.exp(-self.rate * t)

    def sigma(self, t: float) -> float:
        """stationary_std sqrt(1 - exp(-2 rate t))."""
        return self.stationary_std * math.sqrt(-math.expm1(-2.0 * self.rate * t))

    def drift_rate(self, t: float) -> float:
        """-rate."""
        return -self.rate

    def squared_diffusion(self, t: float) -> float:
        """2 rate stationary_std^2."""
        return 2.0 * self.rate * self.stationary_std**2

    def time_of(self, log_ratio: float) -> float:
        """log(1 + exp(2 log_ratio) / stationary_std^2) / (2 rate)."""
        return math.log1p(math.exp(2.0 * log_ratio) / self.stationary_std**2) / (2.0 * self.rate)
