"""Variance exploding process in the EDM parametrisation."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from kfpbench.errors import ParameterError
from kfpbench.processes.linear import LinearProcess


class VarianceExploding(LinearProcess):
    """dx = sqrt(2 t) dw: alpha_t = 1, sigma_t = t on [t_min, t_max] = [sigma_min, sigma_max].

    Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models" (2022),
    Table 1, column "Ours". Raises ParameterError for an empty interval.
    """

    def __init__(
        self,
        sigma_min: Annotated[float, Field(gt=0)] = 0.002,
        sigma_max: Annotated[float, Field(gt=0)] = 80.0,
    ) -> None:
        self.t_min, self.t_max = float(sigma_min), float(sigma_max)
        if not self.t_min < self.t_max:
            raise ParameterError("ve: sigma_min must be below sigma_max", got=(self.t_min, self.t_max))
        self._check_times()

    def alpha(self, t: float) -> float:
        """1."""
        return 1.0

    def sigma(self, t: float) -> float:
        """t."""
        return t

    def drift_rate(self, t: float) -> float:
        """0."""
        return 0.0

    def squared_diffusion(self, t: float) -> float:
        """2 t."""
        return 2.0 * t

    def time_of(self, log_ratio: float) -> float:
        """exp(log_ratio)."""
        return math.exp(log_ratio)
