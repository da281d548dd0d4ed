"""The inverse multiquadric kernel."""

from __future__ import annotations

import math

from torch import Tensor

from kfpbench.kernels.radial import RadialBase


class InverseMultiquadric(RadialBase):
    """h(s) = v^(-1/2) with v = 1 + s / l^2, s = |x - y|^2 and the length l: tails that fall like l / r.

    h' = -v^(-3/2) / (2 l^2), h'' = 3 v^(-5/2) / (4 l^4). Analytic: every operator is admissible. Source: Micchelli,
    Interpolation of scattered data (1986), Constructive Approximation 2, 11-22; Wendland, Scattered Data Approximation
    (2004), chapter 7. Parameters and errors: ``RadialBase``.
    """

    smoothness = math.inf

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape."""
        rate = 1.0 / self._resolved_length() ** 2
        value = (squared_distance * rate + 1.0).rsqrt()
        inverse = value * value  # 1 / v
        first = value * inverse * (-rate / 2.0)
        return value, first, first * inverse * (-1.5 * rate)
