"""Frames: the coordinates y in which the operator acts, and the part of the dynamics that they make exact.

In rho = -log(sigma/alpha) the family with stochasticity eta reads, in either frame,

    dy = (-kappa y + B(y)) d rho + sqrt(2 a) dw,

where the linear part is solved exactly (``decay``) and B, the excess drift, is what kernels approximate.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError
from kfpbench.operators.marginal import Marginal

_LEAST_VARIANCE = 1e-12  # of the largest


class Frame(ABC):
    """Coordinates y of the state x at a marginal, shapes (n, d)."""

    @abstractmethod
    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """y of x."""

    @abstractmethod
    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """x of y."""

    @abstractmethod
    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """B at the points x, from the denoiser's values E[x_0 | x]; in units of y per unit rho."""

    @abstractmethod
    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """kappa (d,): the rate of the linear part at one instant."""

    @abstractmethod
    def decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """exp(-integral of kappa), (d,): the exact linear flow between two instants."""

    @abstractmethod
    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """a (d,): the diagonal of the diffusion matrix, so that L has the term sum_s a_s d_s^2."""

    @abstractmethod
    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """Standard deviation (d,) of y_end given y_start for Gaussian data: the covariance carried along."""

    @abstractmethod
    def scale(self, at: Marginal) -> Tensor:
        """Standard deviation (d,) of y for Gaussian data: the unit in which lengths in y are to be read."""

    def span_diffusion(self, start: Marginal, middle: Marginal, end: Marginal, eta: float) -> Tensor:
        """a (d,) that stands for a whole span: that of the middle, where the drift is frozen too."""
        return self.diffusion(middle, eta)


class RawFrame(Frame):
    """y = x: B is the whole drift, kappa = 0.

    The conditional covariance is that of isotropic Gaussian data with the training rows' mean variance.
    """

    def __init__(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> None:
        # in blocks of columns: a float64 copy of all rows would be larger than the rows
        blocks = [dataset.train[:, start : start + 64] for start in range(0, dataset.dimension, 64)]
        self.variance = sum(float(block.var(axis=0, dtype="float64").sum()) for block in blocks) / dataset.dimension
        self._ones = torch.ones(dataset.dimension, device=device, dtype=dtype)

    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """x."""
        return x

    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """y."""
        return y

    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """(d log alpha / d rho) x + (1 + eta^2) (alpha E[x_0 | x] - x)."""
        return at.log_scale_rate * x + (1.0 + eta**2) * (at.alpha * denoised - x)

    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """0."""
        return 0.0 * self._ones

    def decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """1."""
        return self._ones

    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """eta^2 sigma^2."""
        return eta**2 * at.sigma**2 * self._ones

    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """sqrt(S_end (1 - (R_end / R_start)^(eta^2))), R = variance + (sigma / alpha)^2, S = alpha^2 R."""
        ratio = (self.variance + end.squared_ratio) / (self.variance + start.squared_ratio)
        spread = end.alpha**2 * (self.variance + end.squared_ratio)
        return math.sqrt(max(spread * (1.0 - ratio ** (eta**2)), 0.0)) * self._ones

    def scale(self, at: Marginal) -> Tensor:
        """alpha sqrt(R): that of isotropic Gaussian data."""
        return at.alpha * math.sqrt(self.variance + at.squared_ratio) * self._ones


class WhitenedFrame(Frame):
    """y = S_t^(-1/2) U^T (x - alpha mu), S_t = alpha^2 lam + sigma^2, with the training rows' PCA (mu, U, lam).

    kappa = eta^2 sigma^2 / S and B = (1 + eta^2) alpha S^(-1/2) U^T (D - D_G): the denoiser's excess over that of
    Gaussian data, zero when the data are Gaussian. Then y is standard normal at every time, and with eta = 0 it does
    not move: rank 0 is the closed-form Gaussian sampler.
    """

    def __init__(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> None:
        moments = training_moments(dataset)
        self.mean, self.basis, self.variances = (
            torch.tensor(part, device=device, dtype=dtype) for part in (moments.mean, moments.basis, moments.variances)
        )

    def _spread(self, at: Marginal) -> Tensor:
        return at.alpha**2 * self.variances + at.sigma**2

    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """S^(-1/2) U^T (x - alpha mu). Cost O(n d^2)."""
        return ((x - at.alpha * self.mean) @ self.basis) / self._spread(at).sqrt()

    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """Alpha mu + U S^(1/2) y. Cost O(n d^2)."""
        return (y * self._spread(at).sqrt()) @ self.basis.T + at.alpha * self.mean

    def axes_in(self, at: Marginal) -> Tensor:
        """The matrix A (d, d) of ``encode``: y = (x - alpha mu) A, A = U S^(-1/2). Cost O(d^2)."""
        return self.basis / self._spread(at).sqrt()

    def axes_out(self, at: Marginal) -> Tensor:
        """Its inverse, of ``decode``: x = y A^(-1) + alpha mu, A^(-1) = S^(1/2) U^T. Cost O(d^2)."""
        return (self.basis * self._spread(at).sqrt()).T

    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """(1 + eta^2) alpha S^(-1/2) (U^T (E[x_0 | x] - mu) - (alpha lam / S) U^T (x - alpha mu)). Cost O(n d^2)."""
        spread = self._spread(at)
        excess = (denoised - self.mean) @ self.basis
        excess -= ((x - at.alpha * self.mean) @ self.basis) * (at.alpha * self.variances / spread)
        return excess * ((1.0 + eta**2) * at.alpha / spread.sqrt())

    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """eta^2 sigma^2 / S."""
        return eta**2 * at.sigma**2 / self._spread(at)

    def decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """(R_end / R_start)^(eta^2 / 2), R = lam + (sigma / alpha)^2."""
        return self._log_decay(start, end, eta).exp()

    def _log_decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        return 0.5 * eta**2 * _log_ratio(self.variances, start, end)

    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """eta^2 sigma^2 / S."""
        return self.decay_rate(at, eta)

    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """sqrt(1 - decay^2): y stays standard normal when the data are Gaussian."""
        return (-torch.expm1(2.0 * self._log_decay(start, end, eta))).sqrt()

    def scale(self, at: Marginal) -> Tensor:
        """1."""
        return torch.ones_like(self.variances)

    def span_diffusion(self, start: Marginal, middle: Marginal, end: Marginal, eta: float) -> Tensor:
        """The a for which constant a and kappa give ``noise_scale`` exactly; here the mean of a = kappa over the span.

        noise_scale^2 = 2 a int_0^D e^(-2 kappa r) dr, D the span's length and kappa = -log(decay) / D.
        """
        exponent = 2.0 * self._log_decay(start, end, eta)  # -2 kappa D
        safe = torch.where(exponent == 0.0, torch.ones_like(exponent), exponent)
        mean = torch.where(exponent == 0.0, torch.ones_like(exponent), torch.expm1(safe) / safe)
        return self.noise_scale(start, end, eta).square() / (2.0 * (end.rho - start.rho) * mean)


class PosteriorFrame(WhitenedFrame):
    """y = U^T (D_G(x) - mu), D_G(x) = mu + U (alpha lam / S) U^T (x - alpha mu) the posterior mean of Gaussian data.

    It is W times the whitened coordinates, W = lam / (lam + (sigma / alpha)^2)^(1/2): directions that the noise hides
    shrink, so that distances, and with them kernels, see the signal alone; at sigma = 0 they are distances of data.
    The excess drift is W times the whitened one, and W's own growth is linear, so it is solved exactly: kappa is that
    of the whitened frame less d log W / d rho = (sigma / alpha)^2 / (lam + (sigma / alpha)^2). Rank 0 with eta = 0 is
    the closed-form Gaussian sampler here too.

    Coordinates have the standard deviation W (``scale``), which differs between axes by orders of magnitude and grows
    over a span: lengths in y mean something in units of it alone. With eta = 1 kappa = 0 but for axes without variance:
    what is left of the linear part is a Brownian motion, whose operator has no discrete spectrum. In W, lam is at least
    1e-12 of the largest, so that an axis without variance can be decoded. Raises CapabilityError for training rows that
    are all the same.
    """

    def __init__(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(dataset, device, dtype)
        largest = float(self.variances.max())
        if not largest > 0.0:
            raise CapabilityError(
                "the posterior frame needs training rows that differ: their posterior mean is a constant",
                got=dataset.name,
                remedy="Take frame: whitened, or raw.",
            )
        self._seen = self.variances.clamp_min(_LEAST_VARIANCE * largest)  # lam in W alone: S stays what it is

    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """(alpha lam / S) U^T (x - alpha mu). Cost O(n d^2)."""
        return super().encode(x, at) * self.scale(at)

    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """Alpha mu + U (S / (alpha lam)) y. Cost O(n d^2)."""
        return super().decode(y / self.scale(at), at)

    def axes_in(self, at: Marginal) -> Tensor:
        """A = U (alpha lam / S)."""
        return super().axes_in(at) * self.scale(at)

    def axes_out(self, at: Marginal) -> Tensor:
        """Its inverse, (S / (alpha lam)) U^T."""
        return super().axes_out(at) / self.scale(at)[:, None]

    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """W times that of the whitened frame. Cost O(n d^2)."""
        return super().excess_drift(x, denoised, at, eta) * self.scale(at)

    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """eta^2 sigma^2 / S - (sigma / alpha)^2 / (lam + (sigma / alpha)^2): not positive, the coordinates grow."""
        return super().decay_rate(at, eta) - at.squared_ratio / (self._seen + at.squared_ratio)

    def _log_decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """That of the whitened frame and log(W_end / W_start)."""
        return super()._log_decay(start, end, eta) - 0.5 * _log_ratio(self._seen, start, end)

    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """W^2 eta^2 sigma^2 / S."""
        return super().decay_rate(at, eta) * self.scale(at).square()

    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """W_end times that of the whitened frame."""
        return (-torch.expm1(2.0 * super()._log_decay(start, end, eta))).sqrt() * self.scale(end)

    def scale(self, at: Marginal) -> Tensor:
        """W."""
        return self._seen / (self._seen + at.squared_ratio).sqrt()


def _log_ratio(variances: Tensor, start: Marginal, end: Marginal) -> Tensor:
    """log(R_end / R_start) (d,), R = lam + (sigma / alpha)^2, without the rounding of a ratio that is almost 1."""
    first = variances + start.squared_ratio
    fallen = (start.squared_ratio - end.squared_ratio) / first
    return torch.where(fallen < 0.5, torch.log1p(-fallen), ((variances + end.squared_ratio) / first).log())


class WithoutLinearPart(Frame):
    """The coordinates of ``inner``, but kappa = 0: the excess drift is the whole drift B - kappa y.

    Nothing is solved in closed form then; a kernel has to carry the linear part of the dynamics too. In the raw frame,
    whose kappa is 0, it is the frame itself. What the coordinates do stays: with eta = 0 the whitened frame has kappa
    = 0 as well, and its Gaussian part is the change of coordinates, which only the raw frame leaves out; the posterior
    frame's growth is then the kernel's to learn. ``noise_scale`` is still the conditional covariance of Gaussian data.
    """

    def __init__(self, inner: Frame) -> None:
        self.inner = inner

    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """That of ``inner``, as are ``decode``, ``diffusion``, ``noise_scale`` and ``scale``."""
        return self.inner.encode(x, at)

    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """x of y."""
        return self.inner.decode(y, at)

    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """B - kappa y. Cost that of ``inner`` and of one more ``encode``."""
        linear = self.inner.decay_rate(at, eta) * self.inner.encode(x, at)
        return self.inner.excess_drift(x, denoised, at, eta) - linear

    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """0."""
        return torch.zeros_like(self.inner.decay_rate(at, eta))

    def decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """1."""
        return torch.ones_like(self.inner.decay(start, end, eta))

    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """The diagonal of the diffusion matrix."""
        return self.inner.diffusion(at, eta)

    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """Standard deviation of y_end given y_start for Gaussian data."""
        return self.inner.noise_scale(start, end, eta)

    def scale(self, at: Marginal) -> Tensor:
        """Standard deviation of y for Gaussian data."""
        return self.inner.scale(at)


FRAMES: dict[str, type[RawFrame] | type[WhitenedFrame]] = {
    "raw": RawFrame,
    "whitened": WhitenedFrame,
    "posterior": PosteriorFrame,
}
