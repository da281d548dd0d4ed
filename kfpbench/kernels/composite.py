"""What kernels made of kernels share: their parts by name or instance, merged arguments, the record."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.jet import Argument, Jet, has_formula, jet_kernel, merge_arguments, relabel
from kfpbench.protocols import Kernel
from kfpbench.registry import resolve


def part(kernel: Kernel | str, owner: str) -> Kernel:
    """A kernel that a composite is made of; a name stands for that registered kernel with its default parameters.

    Raises CapabilityError for a kernel without a formula: its blocks do not show the derivatives that composites need.
    """
    found: Kernel = resolve("kernels", kernel)
    if not has_formula(found):
        raise CapabilityError(
            f"{owner}: this part declares no formula",
            got=type(found).__name__,
            allowed="a kernel with `profile`, or with `arguments` and `jet`",
            remedy="Compose gpytorch kernels in gpytorch, and adapt the composite.",
        )
    return found


def record(kernel: Kernel) -> dict[str, Any]:
    """What the record of a composite says about a part: its class and its own record."""
    return {"class": type(kernel).__name__, **kernel.describe()}


class CompositeBase(ABC):
    """A kernel whose jet is made of the jets of ``kernels``, in order; equal arguments are evaluated once.

    As smooth as the roughest part. ``fit`` fits every part on the same points. Raises ParameterError for an empty list,
    CapabilityError for a part without a formula.
    """

    def __init__(self, kernels: list[Kernel | str]) -> None:
        name = type(self).__name__
        if isinstance(kernels, str) or not kernels:
            raise ParameterError(f"{name}: no kernels", got=kernels, allowed="a list of at least one kernel")
        self.kernels = [part(kernel, name) for kernel in kernels]
        self.smoothness: float = min(kernel.smoothness for kernel in self.kernels)

    @staticmethod
    @abstractmethod
    def combine(one: Jet, other: Jet) -> Jet:
        """The jet of two parts together."""

    def fit(self, points: Tensor) -> Self:
        """A copy whose parts are all fitted on points (N, d)."""
        return type(self)([kernel.fit(points) for kernel in self.kernels])

    def arguments(self) -> tuple[Argument, ...]:
        """The distinct arguments of all parts."""
        return self._merged[0]

    def jet(self, *values: Any) -> Jet:
        """The value and derivatives at one value of each argument. Cost O(1) an entry for each pair of arguments."""
        parts = [
            relabel(jet_kernel(kernel).jet(*[values[place] for place in own]), own)
            for kernel, own in zip(self.kernels, self._merged[1], strict=True)
        ]
        return functools.reduce(self.combine, parts)

    def describe(self) -> dict[str, Any]:
        """The records of the parts."""
        return {"kernels": [record(kernel) for kernel in self.kernels]}

    @functools.cached_property
    def _merged(self) -> tuple[tuple[Argument, ...], list[list[int]]]:
        return merge_arguments(jet_kernel(kernel).arguments() for kernel in self.kernels)
