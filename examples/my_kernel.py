"""A kernel of your own in one file: the rational quadratic kernel, written from its formula.

Run it: kfpbench run examples/my_kernel.yaml --allow-plugins
Tune it: kfpbench study run examples/my_kernel_study.yaml --allow-plugins
"""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

import kfpbench
from kfpbench.kernels.bandwidth import median_distance


@kfpbench.register("kernels", "my_rational_quadratic")
class MyRationalQuadratic:
    """h(s) = u^-a with u = 1 + s / (2 a l^2): a mixture of Gaussian kernels of many widths, with heavier tails.

    h'(s) = -u^(-a-1) / (2 l^2) and h''(s) = (a + 1) u^(-a-2) / (4 a l^4), s being the squared distance. The length l is
    ``factor`` times the median distance of the points.
    """

    smoothness = math.inf  # number of continuous derivatives: operators that need more refuse the kernel

    def __init__(self, a: Annotated[float, Field(gt=0)] = 1.0, factor: Annotated[float, Field(gt=0)] = 1.0) -> None:
        self.a, self.factor = a, factor
        self.length = math.nan

    def fit(self, points: Tensor) -> MyRationalQuadratic:
        """A copy whose length is resolved on points (N, d)."""
        fitted = copy.copy(self)
        fitted.length = self.factor * median_distance(points)
        return fitted

    def profile(self, squared_distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, h' and h'' at squared distances of any shape."""
        rate = 1.0 / (2.0 * self.length**2)
        u = 1.0 + squared_distance * (rate / self.a)
        value = u**-self.a
        first = -rate * value / u
        second = rate**2 * (self.a + 1.0) / self.a * value / u**2
        return value, first, second

    def describe(self) -> dict[str, Any]:
        """What the record of a cell says about the fitted kernel."""
        return {"a": self.a, "factor": self.factor, "length": self.length}
