"""Smoothing kernels of a weighted point set: a normalised Gaussian around each particle, and draws from the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import Frame
from kfpbench.operators.marginal import Marginal

Bandwidth = float | Literal["silverman"]

_LEVELS = 2**31  # of the uniform numbers that choose an index


class SmoothedPoints(Protocol):
    """A law sum_i p_i K_i with normalised kernels K_i, drawn from by a fixed number of tensor operations."""

    def sample(self, noise: NoiseStream) -> Tensor:
        """x (n, d): the index from draw 0 of the stream, the kernel's normal numbers from draw 1."""

    def describe(self) -> dict[str, Any]:
        """Its parameters, as JSON can hold them."""


def choose(cumulative: Tensor, noise: NoiseStream) -> Tensor:
    """Indices (n,) with the probabilities whose cumulative sums (P,) are given, by the inverse of the distribution.

    The uniform number is (k + 1/2) / 2^31 of draw 0; cost O(n log P).
    """
    uniform = (noise.uniform_integers(0, _LEVELS).double() + 0.5) / _LEVELS
    found = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
    return found.clamp_max(len(cumulative) - 1)


def silverman(effective_size: float, dimension: int) -> float:
    """h = (4 / ((d + 2) n))^(1 / (d + 4)), in standard deviations: optimal in mean square for normal data.

    In high dimension it tends to 1. Source: Silverman, "Density Estimation" (1986), eq. (4.14).
    """
    return float((4.0 / ((dimension + 2) * effective_size)) ** (1.0 / (dimension + 4)))


@dataclass(frozen=True)
class Isotropic:
    """y = m + (y_i - m + h s xi) / sqrt(1 + h^2) in the frame's coordinates, xi ~ N(0, I), index i with weight p_i.

    m is the weighted mean. s (d,) is the frame's ``scale`` times r, r^2 the weighted variance in units of that scale,
    averaged over coordinates: a number in the raw and the whitened frame. The shrinkage keeps the mean and, in those
    units, the total variance of the particles, which a plain kernel would inflate by 1 + h^2 (Silverman, "Density
    Estimation", 1986, sec. 6.4.1). ``centres`` (P, d) are the shrunk particles, ``width`` (d,) h s / sqrt(1 + h^2).
    """

    frame: Frame
    at: Marginal
    centres: Tensor
    cumulative: Tensor
    width: Tensor
    bandwidth: float

    @classmethod
    def fit(
        cls, frame: Frame, at: Marginal, y: Tensor, weights: Tensor, bandwidth: Bandwidth, dtype: torch.dtype
    ) -> Isotropic:
        """From particles y (P, d) and their probabilities (P,), both float64."""
        mean = weights @ y
        scale = frame.scale(at).double()
        spread = float((weights @ ((y - mean) / scale).square()).mean().sqrt())
        effective = 1.0 / float(weights.square().sum())
        h = silverman(effective, y.shape[1]) if bandwidth == "silverman" else float(bandwidth)
        shrink = (1.0 + h * h) ** -0.5
        centres = (mean + shrink * (y - mean)).to(dtype)
        return cls(frame, at, centres, weights.cumsum(0), (h * spread * shrink * scale).to(dtype), h)

    def sample(self, noise: NoiseStream) -> Tensor:
        """x (n, d). Cost O(n d), and that of the frame's decoding."""
        y = self.centres[choose(self.cumulative, noise)] + self.width * noise.normal(1)
        return self.frame.decode(y, self.at)

    def describe(self) -> dict[str, Any]:
        """The bandwidth in standard deviations."""
        return {"bandwidth": self.bandwidth}


@dataclass(frozen=True)
class Renoised:
    """x = alpha x_0^(i) + sigma xi: particle i with its noise drawn anew, at exactly the noise level of t_min.

    The kernel N(alpha x_0^(i), sigma^2 I) is that of the forward process: with uniform weights its sum is p_t of the
    rows used, with no bandwidth to choose. It hands training rows on: a start at a noise level that hides them, or a
    memorising control. ``means`` (P, d) are alpha x_0.
    """

    means: Tensor
    cumulative: Tensor
    sigma: float

    def sample(self, noise: NoiseStream) -> Tensor:
        """x (n, d). Cost O(n d)."""
        return self.means[choose(self.cumulative, noise)] + self.sigma * noise.normal(1)

    def describe(self) -> dict[str, Any]:
        """The noise level."""
        return {"sigma": self.sigma}
