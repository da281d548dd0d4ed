"""The Matern kernel of order 3/2."""

from __future__ import annotations

from torch import Tensor

from kfpbench.kernels.radial import RadialBase


class Matern32(RadialBase):
    """h(s) = (1 + u) e^-u with u = sqrt(2 nu) r / l = sqrt(3 s) / l, nu = 3/2, r^2 = s = |x - y|^2, and the length l.

    h' = -(3 / (2 l^2)) e^-u. h'' = (9 / (4 l^4)) e^-u / u is infinite at s = 0 and is not returned: functions of the
    RKHS have one continuous derivative, so that the kernel serves first-order operators (and Dirichlet forms) only.
    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 4.17. Parameters and
    errors: ``RadialBase``.
    """

    smoothness = 1

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor]:
        """h and h' at squared distances of any shape."""
        rate = 3.0 / self._resolved_length() ** 2  # u^2 = rate s
        u = (squared_distance * rate).sqrt()
        decay = (-u).exp()
        return (u + 1.0) * decay, decay * (-rate / 2.0)
