"""Variance preserving process with a linear noise schedule."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from kfpbench.errors import ParameterError
from kfpbench.processes.linear import LinearProcess


class VariancePreserving(LinearProcess):
    """dx = -(1/2) beta(t) x dt + sqrt(beta(t)) dw, beta(t) = beta_min + t (beta_max - beta_min), t in (0, 1].

    alpha_t = exp(-B(t)/2) and sigma_t^2 = 1 - exp(-B(t)) with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2.
    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, "Score-Based Generative Modeling through SDEs" (2021),
    eqs. (11) and (32). Raises ParameterError for an empty interval, or a schedule that
    is not positive and increasing.
    """

    def __init__(
        self,
        beta_min: Annotated[float, Field(gt=0)] = 0.1,
        beta_max: Annotated[float, Field(gt=0)] = 20.0,
        t_min: Annotated[float, Field(gt=0)] = 1e-4,
        t_max: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        if not 0 < beta_min < beta_max < math.inf:
            raise ParameterError(
                "vp: the schedule must be positive and increasing",
                got=(beta_min, beta_max),
                allowed="0 < beta_min < beta_max",
            )
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)
        self.t_min, self.t_max = float(t_min), float(t_max)
        self._check_times()

    def _integrated_beta(self, t: float) -> float:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def alpha(self, t: float) -> float:
        """exp(-B(t) / 2)."""
        return math.exp(-0.5 * self._integrated_beta(t))

    def sigma(self, t: float) -> float:
        """sqrt(1 - exp(-B(t)))."""
        return math.sqrt(-math.expm1(-self._integrated_beta(t)))

    def drift_rate(self, t: float) -> float:
        """-beta(t) / 2."""
        return -0.5 * self.squared_diffusion(t)

    def squared_diffusion(self, t: float) -> float:
        """beta(t)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def time_of(self, log_ratio: float) -> float:
        """The root of B(t) = log(1 + exp(2 log_ratio)), in the form that does not cancel for small t."""
        total = math.log1p(math.exp(2.0 * log_ratio))
        slope = self.beta_max - self.beta_min
        return 2.0 * total / (self.beta_min + math.sqrt(self.beta_min**2 + 2.0 * slope * total))
