"""The Matern kernel of order 5/2."""

from __future__ import annotations

from torch import Tensor

from kfpbench.kernels.radial import RadialBase


class Matern52(RadialBase):
    """h(s) = (1 + u + u^2 / 3) e^-u with u = sqrt(2 nu) r / l = sqrt(5 s) / l, nu = 5/2, r^2 = s = |x - y|^2.

    h' = -(5 / (6 l^2)) (1 + u) e^-u, h'' = (25 / (12 l^4)) e^-u: finite at s = 0, where the factors 1 / u of the chain
    rule have cancelled. Functions of the RKHS have two continuous derivatives, which a generator with diffusion needs.
    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 4.17. Parameters and
    errors: ``RadialBase``.
    """

    smoothness = 2

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape."""
        rate = 5.0 / self._resolved_length() ** 2  # u^2 = rate s
        u = (squared_distance * rate).sqrt()
        decay = (-u).exp()
        value = ((u / 3.0 + 1.0) * u + 1.0) * decay
        return value, (u + 1.0) * decay * (-rate / 6.0), decay * (rate**2 / 12.0)
