"""The Matern kernel of order 7/2."""

from __future__ import annotations

from torch import Tensor

from kfpbench.kernels.radial import RadialBase


class Matern72(RadialBase):
    """h(s) = (1 + u + 2 u^2 / 5 + u^3 / 15) e^-u with u = sqrt(2 nu) r / l = sqrt(7 s) / l, nu = 7/2, s = |x - y|^2.

    h' = -(7 / (10 l^2)) (1 + u + u^2 / 3) e^-u, h'' = (49 / (60 l^4)) (1 + u) e^-u: finite at s = 0, where the factors
    1 / u of the chain rule have cancelled. Functions of the RKHS have three continuous derivatives. Source: Rasmussen
    and Williams, Gaussian Processes for Machine Learning (2006), equation 4.16 with p = 3. Parameters and errors:
    ``RadialBase``.
    """

    smoothness = 3

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape."""
        rate = 7.0 / self._resolved_length() ** 2  # u^2 = rate s
        u = (squared_distance * rate).sqrt()
        decay = (-u).exp()
        value = (((u / 15.0 + 0.4) * u + 1.0) * u + 1.0) * decay
        first = ((u / 3.0 + 1.0) * u + 1.0) * decay * (-rate / 10.0)
        return value, first, (u + 1.0) * decay * (rate**2 / 60.0)
