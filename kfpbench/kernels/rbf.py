"""The Gaussian (radial basis function) kernel."""

from __future__ import annotations

import math

from torch import Tensor

from kfpbench.kernels.radial import RadialBase


class RBF(RadialBase):
    """h(s) = exp(-s / (2 l^2)), h' = -h / (2 l^2), h'' = h / (4 l^4), with s = |x - y|^2 and the length l.

    Analytic: every operator is admissible. Source: Rasmussen and Williams, Gaussian Processes for Machine Learning
    (2006), equation 4.9. Parameters and errors: ``RadialBase``.
    """

    smoothness = math.inf

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape."""
        rate = -0.5 / self._resolved_length() ** 2
        value = (squared_distance * rate).exp()
        first = value * rate
        return value, first, first * rate
