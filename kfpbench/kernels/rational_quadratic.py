"""The rational quadratic kernel."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.kernels.radial import DEFAULT_BANDWIDTH, Bandwidth, RadialBase


class RationalQuadratic(RadialBase):
    """h(s) = v^-alpha with v = 1 + s / (2 alpha l^2), s = |x - y|^2 and the length l: a mixture of Gaussian kernels.

    h' = -v^(-alpha - 1) / (2 l^2), h'' = ((alpha + 1) / alpha) v^(-alpha - 2) / (4 l^4). The squared inverse lengths of
    the mixture are gamma distributed with shape ``alpha``: small values give heavy tails, and for alpha to infinity the
    kernel tends to RBF. Analytic: every operator is admissible. Source: Rasmussen and Williams, Gaussian Processes for
    Machine Learning (2006), equation 4.19. Raises ParameterError for an alpha that is not positive; other parameters
    and errors: ``RadialBase``.
    """

    smoothness = math.inf

    def __init__(
        self,
        alpha: Annotated[float, Field(gt=0)] = 1.0,
        bandwidth: Bandwidth = DEFAULT_BANDWIDTH,
        factor: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__(bandwidth, factor)
        if not 0 < alpha < math.inf:
            raise ParameterError("RationalQuadratic: bad alpha", got=alpha, allowed="a positive number")
        self.alpha = alpha

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape."""
        rate = 0.5 / self._resolved_length() ** 2
        excess = squared_distance * (rate / self.alpha)
        v = excess + 1.0
        inverse = 1.0 / v
        # log(1 + excess): the second term restores what rounding v lost, which a large alpha would multiply
        logarithm = v.log() + (excess - (v - 1.0)) * inverse
        value = (logarithm * -self.alpha).exp()
        first = value * inverse * -rate
        return value, first, first * inverse * (-rate * (1.0 + 1.0 / self.alpha))

    def describe(self) -> dict[str, Any]:
        """The parameters, with the resolved length."""
        return {"alpha": self.alpha, **super().describe()}
