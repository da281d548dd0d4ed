"""What the radial kernels of one length share: the bandwidth and its factor, how they are resolved, the record."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.kernels.bandwidth import auto_length, max_likelihood_distance, median_distance

Bandwidth: TypeAlias = Annotated[float, Field(gt=0)] | Literal["auto", "median", "max_likelihood"]
DEFAULT_BANDWIDTH: Bandwidth = "auto"
_RULES: dict[str, Callable[[Tensor], float]] = {
    "auto": auto_length,
    "median": median_distance,
    "max_likelihood": max_likelihood_distance,
}
_SHORTEST, _LONGEST = 1e-75, 1e75  # beyond, length^4 and its inverse, which h'' needs, leave the range of float64


class RadialBase(ABC):
    """k(x, y) = h(s), s = |x - y|^2, with a length l = ``factor`` x ``bandwidth`` in the unit of the points.

    ``bandwidth`` is a positive number, or a rule that ``fit`` applies to the points: ``median`` (the median distance),
    ``max_likelihood`` (of a kernel density estimate) or ``auto`` (from the spacing of neighbours): see
    ``kfpbench.kernels.bandwidth``. A subclass states
    ``smoothness``, the number of continuous derivatives that every function of its RKHS has, and ``profile``, which it
    writes with operators and methods (``exp``, ``sqrt``, ...) only: the same code then evaluates torch tensors and
    builds the formula of pykeops' LazyTensors. Raises ParameterError for a bandwidth or factor that is not positive.
    """

    smoothness: float

    def __init__(self, bandwidth: Bandwidth = DEFAULT_BANDWIDTH, factor: Annotated[float, Field(gt=0)] = 1.0) -> None:
        name = type(self).__name__
        if isinstance(bandwidth, str):
            if bandwidth not in _RULES:
                rules = ", ".join(_RULES)
                raise ParameterError(
                    f"{name}: bad bandwidth", got=bandwidth, allowed=f"a positive number, or one of {rules}"
                )
        elif not (isinstance(bandwidth, (int, float)) and 0 < bandwidth < math.inf):
            raise ParameterError(f"{name}: bad bandwidth", got=bandwidth, allowed="a positive number, or a rule")
        if not 0 < factor < math.inf:
            raise ParameterError(f"{name}: bad bandwidth factor", got=factor, allowed="a positive number")
        self.bandwidth = bandwidth
        self.factor = factor
        self.length = math.nan
        if not isinstance(bandwidth, str):
            self.length = self._checked(factor * float(bandwidth))

    @abstractmethod
    def profile(self, squared_distance: Tensor) -> tuple[Tensor, ...]:
        """h and its derivatives with respect to s, up to the second, as many as are finite at s = 0.

        ``squared_distance`` is not negative, of any shape; results have its shape and type. Cost O(1) an entry. Raises
        ParameterError before ``fit`` has resolved the length.
        """

    def fit(self, points: Tensor) -> Self:
        """A copy whose length is resolved on points (N, d). A given bandwidth does not look at them.

        Raises NumericalError when the points do not determine a length: all equal, or not finite.
        """
        if isinstance(self.bandwidth, str):
            return self.with_length(self.factor * _RULES[self.bandwidth](points))
        return copy.copy(self)

    def with_length(self, length: float) -> Self:
        """A copy of this length, which takes no factor. A later ``fit`` resolves bandwidth x factor anew."""
        changed = copy.copy(self)
        changed.length = self._checked(length)
        return changed

    def describe(self) -> dict[str, Any]:
        """The parameters, with the resolved length."""
        return {"bandwidth": self.bandwidth, "factor": self.factor, "length": self.length}

    def _resolved_length(self) -> float:
        if math.isnan(self.length):
            raise ParameterError(
                f"{type(self).__name__}: the {self.bandwidth} bandwidth is not resolved",
                remedy="Call fit(points) first.",
            )
        return self.length

    def _checked(self, length: float) -> float:
        if not _SHORTEST <= length <= _LONGEST:
            raise ParameterError(
                f"{type(self).__name__}: bad bandwidth x factor", got=length, allowed=f"{_SHORTEST:g} to {_LONGEST:g}"
            )
        return length
