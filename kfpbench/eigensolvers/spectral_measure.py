"""Spectral measures of stationary kernels: random frequencies w with k(x, y) = k(x, x) E cos(w . (x - y)) (Bochner).

The radial kernels here are mixtures of Gaussian kernels, k(x, y) = E exp(-T |x - y|^2 / 2) with a random inverse
squared length T, so that w = T^(1/2) g with g standard normal (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, sec. 4.2.1). A metric M maps w to M^(1/2) w, sums mix measures, products convolve them.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.inverse_multiquadric import InverseMultiquadric
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.matern72 import Matern72
from kfpbench.kernels.product import Product
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.scaled import Scaled
from kfpbench.kernels.sum import Sum
from kfpbench.operators.pairwise import kernel_block, metric_root, times_metric


@singledispatch
def spectral_sample(kernel: Any, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """``count`` frequencies (count, d), float64, drawn independently from the spectral measure of a fitted kernel.

    Cost O(count d), with a full metric O(count d^2 + d^3). Raises CapabilityError for a kernel whose spectral measure
    is not known here.
    """
    raise CapabilityError(
        "the kernel's spectral measure is not known",
        got=type(kernel).__name__,
        allowed="RBF, Matern, rational quadratic, inverse multiquadric, ARD of these; scaled, sums, products",
        remedy="Take one of these kernels, or the eigensolver nystrom.",
    )


def variance(kernel: Any, dimension: int) -> float:
    """k(x, x) of a stationary kernel."""
    origin = torch.zeros((1, dimension), dtype=torch.float64)
    return float(kernel_block(kernel, origin, origin))


def _gaussians(inverse_squares: Any, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """T^(1/2) g, (count, d), of inverse squared lengths T (count,) or a number."""
    scales = np.broadcast_to(np.sqrt(inverse_squares), count)
    return torch.from_numpy(scales[:, None] * generator.standard_normal((count, dimension)))


@spectral_sample.register
def _(kernel: RBF, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    return _gaussians(kernel.length**-2, count, dimension, generator)


@spectral_sample.register(Matern32)
@spectral_sample.register(Matern52)
@spectral_sample.register(Matern72)
def _(kernel: Any, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """Student t with 2 nu degrees of freedom: T = l^-2 2 nu / chi^2_(2 nu)."""
    freedom = 3 if isinstance(kernel, Matern32) else 5 if isinstance(kernel, Matern52) else 7
    return _gaussians(kernel.length**-2 * freedom / generator.chisquare(freedom, count), count, dimension, generator)


@spectral_sample.register
def _(kernel: RationalQuadratic, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """(1 + s / (2 alpha l^2))^-alpha = E exp(-T s / 2), T gamma distributed: shape alpha, rate alpha l^2."""
    drawn = generator.gamma(kernel.alpha, 1.0 / (kernel.alpha * kernel.length**2), count)
    return _gaussians(drawn, count, dimension, generator)


@spectral_sample.register
def _(kernel: InverseMultiquadric, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """(1 + s / l^2)^(-1/2): rational quadratic with alpha = 1/2."""
    return _gaussians(generator.gamma(0.5, 2.0 / kernel.length**2, count), count, dimension, generator)


@spectral_sample.register
def _(kernel: ARD, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """M^(1/2) w' with the whole metric M of a radial kernel inside; its law is rotation invariant, so any root does."""
    inner: Any = kernel.kernel
    while isinstance(inner, (ARD, Scaled)):
        inner = inner.kernel
    if isinstance(inner, (Sum, Product)):
        return spectral_sample.dispatch(object)(kernel, count, dimension, generator)
    metric = kernel.arguments()[0].metric
    drawn = spectral_sample(inner, count, dimension, generator)
    if metric is None:
        return drawn
    root = metric_root(metric.cpu())
    return times_metric(drawn, root if root.ndim == 1 else root.T)


@spectral_sample.register
def _(kernel: Scaled, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    return spectral_sample(kernel.kernel, count, dimension, generator)


@spectral_sample.register
def _(kernel: Sum, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """Each frequency from one part, chosen with probability ~ its variance."""
    samples = torch.stack([spectral_sample(part, count, dimension, generator) for part in kernel.kernels])
    masses = np.array([variance(part, dimension) for part in kernel.kernels])
    chosen = generator.choice(len(masses), size=count, p=masses / masses.sum())
    return samples[torch.from_numpy(chosen), torch.arange(count)]


@spectral_sample.register
def _(kernel: Product, count: int, dimension: int, generator: np.random.Generator) -> Tensor:
    """Sums of independent frequencies."""
    samples = [spectral_sample(part, count, dimension, generator) for part in kernel.kernels]
    return torch.stack(samples).sum(0)
