"""The Gaussian (radial basis function) kernel."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.kernels.bandwidth import median_distance


class RBF:
    """k(x, y) = h(|x - y|^2), h(s) = exp(-s / (2 l^2)), h' = -h / (2 l^2), h'' = h / (4 l^4).

    The bandwidth l = ``factor`` x ``bandwidth``, in the unit of the points; ``median`` is the median distance between
    the points that the kernel is fitted on. Analytic: every operator is admissible. Raises ParameterError for a
    bandwidth that is not positive.
    """

    smoothness = math.inf

    def __init__(
        self,
        bandwidth: Annotated[float, Field(gt=0)] | Literal["median"] = "median",
        factor: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        if bandwidth != "median" and not (isinstance(bandwidth, (int, float)) and 0 < bandwidth < math.inf):
            raise ParameterError("rbf: bad bandwidth", got=bandwidth, allowed="a positive number or 'median'")
        if not 0 < factor < math.inf:
            raise ParameterError("rbf: bad bandwidth factor", got=factor, allowed="a positive number")
        self.bandwidth = bandwidth
        self.factor = factor
        self.length = math.nan if bandwidth == "median" else factor * float(bandwidth)

    def fit(self, points: Tensor) -> RBF:
        """A copy whose length is resolved on points (N, d)."""
        fitted = copy.copy(self)
        if self.bandwidth == "median":
            fitted.length = self.factor * median_distance(points)
        return fitted

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h', h'' at squared distances of any shape. Raises ParameterError before ``fit`` resolved the median."""
        if math.isnan(self.length):
            raise ParameterError("rbf: the median bandwidth is not resolved", remedy="Call fit(points) first.")
        rate = -0.5 / self.length**2
        value = torch.exp(squared_distance * rate)
        first = value * rate
        return value, first, first * rate

    def describe(self) -> dict[str, Any]:
        """The parameters, with the resolved length."""
        return {"bandwidth": self.bandwidth, "factor": self.factor, "length": self.length}
