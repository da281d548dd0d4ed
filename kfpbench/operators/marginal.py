"""One instant of a forward process, with everything that a frozen operator needs."""

from __future__ import annotations

from dataclasses import dataclass

from kfpbench.protocols import Process


@dataclass(frozen=True)
class Marginal:
    """alpha_t, sigma_t and rho = -log(sigma_t / alpha_t), the reverse time in which all operators are written.

    ``log_scale_rate`` is d log(alpha) / d rho along the reverse direction: -f / (g^2 / (2 sigma^2)).
    """

    time: float
    alpha: float
    sigma: float
    rho: float
    log_scale_rate: float

    @property
    def squared_ratio(self) -> float:
        """(sigma / alpha)^2."""
        return (self.sigma / self.alpha) ** 2


def marginal(process: Process, time: float) -> Marginal:
    """The marginal of a process at one time; d rho / d tau = g^2 / (2 sigma^2)."""
    alpha, sigma = process.alpha(time), process.sigma(time)
    speed = process.squared_diffusion(time) / (2.0 * sigma**2)
    return Marginal(time, alpha, sigma, -process.log_ratio(time), -process.drift_rate(time) / speed)
