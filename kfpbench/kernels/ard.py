"""A kernel in another metric: automatic relevance determination, Mahalanobis, and signal-to-noise weights."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.kernels.composite import part, record
from kfpbench.kernels.jet import Argument, Jet, jet_kernel, under_metric
from kfpbench.protocols import Kernel

_RULES = ("standard_deviation", "mahalanobis", "signal_to_noise")
_DEVIATION = 8.0  # ulps of the largest coordinate: standard deviations below are rounding of the mean


class ARD:
    """The kernel of points multiplied by a matrix R: k(R x, R y), so that distances are (x - y)^T R^T R (x - y).

    ``scales`` says what R is; ``fit`` resolves a rule on points (N, d) with covariance C = U diag(lam) U^T:

    - a list of d weights w_s > 0: R = diag(w), r^2 = sum_s (w_s (x_s - y_s))^2. A weight is an inverse length.
    - ``standard_deviation``: w_s = 1 / std of coordinate s. Cost O(N d).
    - ``mahalanobis``: R = C^(-1/2). Cost O(N d^2 + d^3).
    - ``signal_to_noise``: R = U diag(sqrt(max(lam_i - n, 0) / lam_i)) U^T, with the variance n of the noise, by default
      the least lam_i. A point that is a signal plus noise has the share (lam_i - n) / lam_i of signal in direction i,
      its Wiener gain: squared distances keep that share, so that directions which are mostly noise, of which noised
      data have many, do not drown those that tell points apart. Cost O(N d^2 + d^3).

    Directions in which the points do not vary (a standard deviation below 8 eps max |x_s|, an eigenvalue below its
    square or max(N, d) eps lam_max, eps of the points' dtype) get weight 0: the kernel does not see them. The kernel
    itself is fitted on the transformed points; its smoothness and derivatives carry over. A Gram matrix costs
    O((N + M) d^2) more than the kernel's own when R is no diagonal, and the root of the metric O(d^3) once. Sources:
    Neal, Bayesian Learning for Neural Networks (1996), for the name; Rasmussen and Williams, Gaussian Processes for
    Machine Learning (2006), section 5.1; Wiener, Extrapolation, Interpolation, and Smoothing (1949), for the gain.

    Raises ParameterError for weights that are not positive, an unknown rule, or a ``noise`` that is negative or given
    without ``signal_to_noise``; ``fit`` raises ShapeError for a list of the wrong length, and NumericalError when the
    points are not finite, vary in no direction or rise nowhere above the noise.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"scales": "mahalanobis"}, {"scales": [1.0, 0.5]})

    def __init__(
        self,
        kernel: Kernel | str = "rbf",
        scales: list[Annotated[float, Field(gt=0)]]
        | Literal["standard_deviation", "mahalanobis", "signal_to_noise"] = "standard_deviation",
        noise: Annotated[float, Field(ge=0)] | None = None,
    ) -> None:
        if isinstance(scales, str):
            if scales not in _RULES:
                rules = ", ".join(_RULES)
                raise ParameterError("ARD: unknown scales", got=scales, allowed=f"a list, or one of {rules}")
        elif not scales or not all(0 < weight < math.inf for weight in scales):
            raise ParameterError("ARD: bad scales", got=scales, allowed="a list of positive numbers, or a rule")
        if noise is not None and (scales != "signal_to_noise" or not 0 <= noise < math.inf):
            raise ParameterError("ARD: bad noise", got=noise, allowed=">= 0, and with scales signal_to_noise only")
        self.kernel = part(kernel, "ARD")
        self.scales = scales
        self.noise = noise
        self.smoothness = self.kernel.smoothness
        self._transform = None if isinstance(scales, str) else torch.tensor(scales, dtype=torch.float64)  # (d,), (d, d)

    def fit(self, points: Tensor) -> Self:
        """A copy whose scales are resolved on points (N, d), and its kernel on the transformed points."""
        if not bool(points.isfinite().all()) or points.numel() == 0:
            raise NumericalError("ARD: the points are not finite, or there are none", got=tuple(points.shape))
        if isinstance(self.scales, str):
            transform = _RULE_OF[self.scales](points, self.noise)
        else:
            if len(self.scales) != points.shape[1]:
                raise ShapeError("ARD: one scale a coordinate is needed", got=len(self.scales), allowed=points.shape[1])
            transform = points.new_tensor(self.scales, dtype=torch.float64)
        moved = points.double() * transform if transform.ndim == 1 else points.double() @ transform
        fitted = type(self)(self.kernel.fit(moved.to(points.dtype)), self.scales, self.noise)
        fitted._transform = transform
        return fitted

    def arguments(self) -> tuple[Argument, ...]:
        """The kernel's, in the new metric. Raises ParameterError before ``fit`` has resolved a rule."""
        return self._arguments

    def jet(self, *values: Any) -> Jet:
        """The kernel's own jet: the metric is in the arguments."""
        return jet_kernel(self.kernel).jet(*values)

    def describe(self) -> dict[str, Any]:
        """The parameters, the trace of the resolved R^T R (the number of whole directions for weights up to 1), and the
        kernel's record.
        """
        trace = None if self._transform is None else float(self._transform.square().sum())
        scales = self.scales if isinstance(self.scales, str) else [float(weight) for weight in self.scales]
        return {"scales": scales, "noise": self.noise, "metric_trace": trace, "kernel": record(self.kernel)}

    @functools.cached_property
    def _arguments(self) -> tuple[Argument, ...]:
        if self._transform is None:
            raise ParameterError(f"ARD: the scales {self.scales} are not resolved", remedy="Call fit(points) first.")
        transform = self._transform
        return tuple(under_metric(argument, transform) for argument in jet_kernel(self.kernel).arguments())


def _standard_deviation(points: Tensor, noise: float | None) -> Tensor:
    """1 / std of each coordinate (d,), or 0."""
    rows = points.double()
    deviation = rows.std(dim=0, correction=0)
    varies = deviation > _DEVIATION * torch.finfo(points.dtype).eps * rows.abs().amax(dim=0)
    return _some(torch.where(varies, 1.0 / deviation, 0.0))


def _mahalanobis(points: Tensor, noise: float | None) -> Tensor:
    """C^(-1/2) (d, d)."""
    levels, axes, varies = _principal(points)
    return (axes * _some(torch.where(varies, levels.rsqrt(), 0.0))) @ axes.T


def _signal_to_noise(points: Tensor, noise: float | None) -> Tensor:
    """U diag(sqrt of the Wiener gains) U^T (d, d)."""
    levels, axes, varies = _principal(points)
    floor = levels[0].clamp_min(0.0) if noise is None else noise
    gain = torch.where(varies, (levels - floor) / levels, 0.0)
    gain[gain < len(levels) * torch.finfo(points.dtype).eps] = 0.0  # the level is the floor, but for rounding
    return (axes * _some(gain).sqrt()) @ axes.T


def _principal(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (d,) of the covariance, ascending, its axes in columns (d, d), and which levels are not rounding."""
    rows, eps = points.double(), torch.finfo(points.dtype).eps
    magnitude = float(rows.abs().max())
    rows = rows - rows.mean(dim=0)
    levels, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    rounding = max(float(levels[-1]) * max(points.shape) * eps, (_DEVIATION * eps * magnitude) ** 2)
    return levels, axes, levels > rounding


def _some(weights: Tensor) -> Tensor:
    """The weights. Raises NumericalError when none is positive."""
    if not bool((weights > 0.0).any()):
        raise NumericalError(
            "ARD: no direction has a positive weight: the points are all equal, or nowhere above the noise",
            remedy="Give the scales, or a smaller noise.",
        )
    return weights


_RULE_OF = {"standard_deviation": _standard_deviation, "mahalanobis": _mahalanobis, "signal_to_noise": _signal_to_noise}
