"""Functions spanned by cosines and sines of fixed frequencies, with derivatives in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.operators.diffusion import Diffusion


def fourier_features(x: Tensor, frequencies: Tensor) -> Tensor:
    """z(x) = m^(-1/2) [cos(w_j . x), sin(w_j . x)], (n, 2 m): z(x) . z(y) = mean_j cos(w_j . (x - y)).

    Shapes: x (n, d), frequencies (m, d). Cost O(n m d).
    """
    phases = x @ frequencies.T
    return torch.cat([phases.cos(), phases.sin()], dim=1) * len(frequencies) ** -0.5


@dataclass(frozen=True)
class FourierBasis:
    """F(x) = [1, z(x) transform - offset]: frequencies (m, d), transform (2 m, r - 1), offset (r - 1,)."""

    frequencies: Tensor
    transform: Tensor
    offset: Tensor

    @property
    def size(self) -> int:
        """r."""
        return int(self.transform.shape[1]) + 1

    def features(self, x: Tensor) -> Tensor:
        """F at points x (n, d): (n, r). Cost O(n m (d + r))."""
        sections = fourier_features(x, self.frequencies) @ self.transform - self.offset
        return torch.cat([x.new_ones((len(x), 1)), sections], dim=1)

    def images(self, x: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        """L F at points, (n, r). With p = w . x: L cos p = -(w . b) sin p - (w^T a w) cos p, and
        L sin p = (w . b) cos p - (w^T a w) sin p; L 1 = 0. Cost O(n m (d + r)), more for matrices at each point.
        """
        phases = x @ self.frequencies.T
        cosines, sines = phases.cos(), phases.sin()
        slopes = drift @ self.frequencies.T  # w . b, (n, m)
        damping = diffusion.to(x).pairs(self.frequencies, self.frequencies)  # w^T a w, (m,) or (n, m)
        pair = torch.cat([-slopes * sines - damping * cosines, slopes * cosines - damping * sines], dim=1)
        images = (pair * len(self.frequencies) ** -0.5) @ self.transform
        return torch.cat([x.new_zeros((len(x), 1)), images], dim=1)

    def combine(self, coordinates: Tensor) -> FourierExpansion:
        """Folded into cosines and sines: constant + z(x) weights."""
        weights = self.transform @ coordinates[1:]
        return FourierExpansion(self.frequencies, weights, coordinates[0] - self.offset @ coordinates[1:])

    def restrict(self, coordinates: Tensor) -> FourierBasis:
        """[1, F coordinates] with the constants moved into the offset."""
        folded = self.combine(coordinates)
        return FourierBasis(self.frequencies, folded.weights, -folded.constant)


@dataclass(frozen=True)
class FourierExpansion:
    """constant + z(x) weights. Shapes: frequencies (m, d), weights (2 m, p), constant (p,).

    Evaluated in the dtype of the weights, which may be wider than that of x.
    """

    frequencies: Tensor
    weights: Tensor
    constant: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The values at x (n, d): (n, p), in the dtype of x. Cost O(n m (d + p))."""
        wide = x.to(self.weights.dtype)
        return (fourier_features(wide, self.frequencies) @ self.weights + self.constant).to(x.dtype)

    def to(self, dtype: torch.dtype) -> FourierExpansion:
        """The same in another precision."""
        return FourierExpansion(self.frequencies.to(dtype), self.weights.to(dtype), self.constant.to(dtype))

    @property
    def coefficient_norm(self) -> float:
        """Largest 2-norm of a column of the weights, relative to the features' own scale."""
        return float(self.weights.norm(dim=0).max()) if self.weights.numel() else 0.0
