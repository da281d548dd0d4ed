"""The polynomial kernel."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError
from kfpbench.kernels.jet import Argument, InnerProduct, Jet


class Polynomial:
    """k(x, y) = (c + t)^p with t = x . y / l^2, degree p, offset c >= 0 and length l in the unit of the points.

    With z = x . y: dk/dz = p (c + t)^(p - 1) / l^2 and d2k/dz2 = p (p - 1) (c + t)^(p - 2) / l^4, zero for p = 1.
    Analytic: every operator is admissible. Its RKHS holds polynomials of degree p (with c = 0 homogeneous ones), of
    dimension C(d + p, p): Gram matrices of more points are singular. ``length`` is a number, or ``median_norm``: the
    median of |x_i| over the points of ``fit``, so that t is of order one. Cost O(1) an entry, ``fit`` O(N d). Source:
    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 4.2.2. Raises ParameterError for a
    degree that is no integer >= 1, a negative offset or a length that is not positive.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"degree": 3, "offset": 0.0})

    smoothness = math.inf

    def __init__(
        self,
        degree: Annotated[int, Field(ge=1)] = 2,
        offset: Annotated[float, Field(ge=0)] = 1.0,
        length: Annotated[float, Field(gt=0)] | Literal["median_norm"] = "median_norm",
    ) -> None:
        if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
            raise ParameterError("Polynomial: bad degree", got=degree, allowed="an integer of at least 1")
        if not 0 <= offset < math.inf:
            raise ParameterError("Polynomial: bad offset", got=offset, allowed="a number that is not negative")
        by_rule = length == "median_norm"
        if not by_rule and not (isinstance(length, (int, float)) and 0 < length < math.inf):
            raise ParameterError("Polynomial: bad length", got=length, allowed="a positive number, or median_norm")
        self.degree = degree
        self.offset = float(offset)
        self.length = length
        self.resolved_length = math.nan if isinstance(length, str) else float(length)

    def fit(self, points: Tensor) -> Self:
        """A copy whose length is resolved on points (N, d). Raises NumericalError when more than half of them are zero
        or not finite.
        """
        fitted = copy.copy(self)
        if isinstance(self.length, str):
            norms = points.double().norm(dim=1)
            median = float(norms.median()) if len(norms) else 0.0
            if not 0.0 < median < math.inf:
                raise NumericalError(
                    "Polynomial: the median norm of the points is not positive and finite",
                    got=median,
                    remedy="Give an explicit length, or check the points.",
                )
            fitted.resolved_length = median
        return fitted

    def arguments(self) -> tuple[Argument, ...]:
        """One: the inner product."""
        return (InnerProduct(),)

    def jet(self, *values: Any) -> Jet:
        """k and its derivatives with respect to x . y. Raises ParameterError before ``fit`` has resolved the length."""
        if math.isnan(self.resolved_length):
            raise ParameterError("Polynomial: the length median_norm is not resolved", remedy="Call fit(points) first.")
        rate, p = self.resolved_length**-2, self.degree
        base = values[0] * rate + self.offset
        second = {(0, 0): _power(base, p - 2) * (p * (p - 1) * rate**2)} if p > 1 else {}
        return Jet(_power(base, p), {0: _power(base, p - 1) * (p * rate)}, second)

    def describe(self) -> dict[str, Any]:
        """The parameters, with the resolved length."""
        return {
            "degree": self.degree,
            "offset": self.offset,
            "length": self.length,
            "resolved_length": self.resolved_length,
        }


def _power(base: Any, exponent: int) -> Any:
    """The power, a constant too in the shape of the base; symbolic backends may fold that into a number."""
    if exponent == 0:
        return base * 0.0 + 1.0
    return base if exponent == 1 else base**exponent
