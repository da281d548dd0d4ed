"""A kernel times a variance."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.kernels.composite import part, record
from kfpbench.kernels.jet import Argument, Jet, jet_kernel, scale
from kfpbench.protocols import Kernel


class Scaled:
    """v k(x, y) with a variance v > 0, so that L (v k) = v L k: weighs the parts of a ``Sum``.

    As smooth as the kernel, which ``fit`` fits. Raises ParameterError for a variance that is not positive and finite,
    CapabilityError for a kernel without a formula.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"kernel": "matern32", "variance": 2.0},)

    def __init__(self, kernel: Kernel | str, variance: Annotated[float, Field(gt=0)] = 1.0) -> None:
        if not 0 < variance < math.inf:
            raise ParameterError("Scaled: bad variance", got=variance, allowed="a positive number")
        self.kernel = part(kernel, "Scaled")
        self.variance = float(variance)
        self.smoothness = self.kernel.smoothness

    def fit(self, points: Tensor) -> Self:
        """A copy whose kernel is fitted on points (N, d)."""
        return type(self)(self.kernel.fit(points), self.variance)

    def arguments(self) -> tuple[Argument, ...]:
        """The kernel's own."""
        return jet_kernel(self.kernel).arguments()

    def jet(self, *values: Any) -> Jet:
        """The kernel's jet times the variance."""
        return scale(jet_kernel(self.kernel).jet(*values), self.variance)

    def describe(self) -> dict[str, Any]:
        """The variance and the kernel's record."""
        return {"variance": self.variance, "kernel": record(self.kernel)}
