"""Any gpytorch kernel as a kernel here: by its formula where one is known, otherwise by automatic differentiation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.autograd_blocks import AutogradBlocks
from kfpbench.kernels.composite import record
from kfpbench.kernels.jet import Argument, Jet, jet_kernel
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.product import Product
from kfpbench.kernels.radial import RadialBase
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.scaled import Scaled
from kfpbench.kernels.sum import Sum
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import Kernel

if TYPE_CHECKING:
    import gpytorch


class GPyTorchKernel:
    """A ``gpytorch.kernels.Kernel`` with its hyperparameters as they are: they are copied, detached, and not trained.

    ``module`` names a class of gpytorch.kernels and ``options`` its constructor's keyword arguments; ``lengthscale``
    and ``hyperparameters`` (such as ``{period_length: 2.0}``) then set its values, in the unit of the points.
    ``GPyTorchKernel.of(instance)`` takes a kernel object, one of your own class as well.

    Where ``closed_form`` knows the formula, the kernel has the same ``arguments`` and ``jet`` and serves every backend.
    Otherwise it has blocks by automatic differentiation (``AutogradBlocks``), for the backends dense and tiled: O(d)
    passes of about thirty evaluations each, hence ``max_dim``, the largest dimension with diffusion. Their
    ``smoothness``, the number of continuous derivatives that every function of the RKHS has, you must declare.

    Raises ParameterError for an unknown class, options or values that gpytorch refuses, a smoothness that is missing or
    differs from the known one; CapabilityError for a kernel without a derivative, or with batches. Source: Gardner et
    al., "GPyTorch", NeurIPS 2018.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"module": "RBFKernel", "options": {"ard_num_dims": 2}},
        {"module": "PeriodicKernel", "smoothness": math.inf},
    )

    smoothness: float
    # a kernel with a formula has the first two, others the other three: kfpbench.protocols tells kernels apart by them
    arguments: Callable[[], tuple[Argument, ...]]
    jet: Callable[..., Jet]
    max_dim: int
    block: Callable[[Tensor, Tensor], Tensor]
    generator_block: Callable[[Tensor, Tensor, Tensor, Diffusion], Tensor]

    def __init__(
        self,
        module: str,
        options: dict[str, Any] | None = None,
        lengthscale: Annotated[float, Field(gt=0)] | None = None,
        hyperparameters: dict[str, float | list[float]] | None = None,
        smoothness: Annotated[float, Field(ge=1)] | None = None,
        max_dim: Annotated[int, Field(ge=1)] = 16,
    ) -> None:
        values = {} if lengthscale is None else {"lengthscale": lengthscale}
        self._adopt(_build(module, options or {}, {**values, **(hyperparameters or {})}), smoothness, max_dim)

    @classmethod
    def of(cls, instance: gpytorch.kernels.Kernel, smoothness: float | None = None, max_dim: int = 16) -> Self:
        """The kernel of a gpytorch object, which is copied: later changes of it do not show."""
        kernel = cls.__new__(cls)
        kernel._adopt(instance, smoothness, max_dim)
        return kernel

    def _adopt(self, instance: gpytorch.kernels.Kernel, smoothness: float | None, max_dim: int) -> None:
        if max_dim < 1:
            raise ParameterError("gpytorch: bad max_dim", got=max_dim, allowed="at least 1")
        self._module = copy.deepcopy(instance).double().eval().requires_grad_(False)
        if self._module.batch_shape:
            raise CapabilityError(
                "gpytorch: a batch of kernels is not one kernel", got=tuple(self._module.batch_shape), allowed="()"
            )
        self._closed = closed_form(self._module)
        if self._closed is not None:
            if smoothness not in (None, self._closed.smoothness):
                raise ParameterError(
                    "gpytorch: the smoothness of this kernel is known", got=smoothness, allowed=self._closed.smoothness
                )
            self.smoothness = self._closed.smoothness
            self._take_formula(self._closed)
            return
        if smoothness is None or not smoothness >= 1:
            raise ParameterError(
                "gpytorch: no closed form of this kernel is known, so its smoothness must be declared",
                got=type(instance).__name__ if smoothness is None else smoothness,
                allowed="the number of continuous derivatives of its functions, at least 1; inf if analytic",
                remedy="Set `smoothness`.",
            )
        self.smoothness = float(smoothness)
        self.max_dim = max_dim
        self._blocks = AutogradBlocks(self._module, max_dim)
        self.block, self.generator_block = self._blocks.block, self._blocks.generator_block

    def _take_formula(self, closed: Kernel) -> None:
        formula = jet_kernel(closed)
        self.arguments, self.jet = formula.arguments, formula.jet

    def fit(self, points: Tensor) -> Self:
        """A copy; nothing depends on the points (N, d). A kernel without a formula that declares two derivatives is
        asked for them where a point meets a centre: CapabilityError when it loses them there.
        """
        fitted = copy.copy(self)
        if self._closed is not None:
            fitted._closed = self._closed.fit(points)
            fitted._take_formula(fitted._closed)
        elif self.smoothness >= 2 and points.shape[1] <= self.max_dim:
            self._blocks.require_derivatives(points)
        return fitted

    def describe(self) -> dict[str, Any]:
        """The class, the values of the hyperparameters, and the closed form's record or max_dim."""
        found: dict[str, Any] = {"module": type(self._module).__name__, "smoothness": self.smoothness}
        found["hyperparameters"] = _hyperparameters(self._module)
        if self._closed is not None:
            return {**found, "closed_form": record(self._closed)}
        return {**found, "max_dim": self.max_dim}


def closed_form(instance: gpytorch.kernels.Kernel) -> Kernel | None:
    """The same kernel by its formula, or None where none is known: subclasses, ``active_dims``, other kernels.

    Known are RBF, Matern (nu = 3/2, 5/2), rational quadratic, polynomial and linear kernels, their lengthscales for
    each coordinate, ``ScaleKernel``, and sums and products of these. Raises CapabilityError for Matern with nu = 1/2.
    """
    from gpytorch import kernels as theirs

    instance = copy.deepcopy(instance).requires_grad_(False)  # numbers are read off, not graphs
    kind = type(instance)  # a subclass may have another formula
    if kind is theirs.MaternKernel and instance.nu == 0.5:
        raise CapabilityError(
            "gpytorch: functions of Matern-1/2's RKHS have no derivative, which every generator needs",
            got="MaternKernel(nu=0.5)",
            allowed="nu = 1.5 for first derivatives, 2.5 for second ones",
        )
    if instance.active_dims is not None:
        return None
    if kind is theirs.ScaleKernel:
        inner = closed_form(instance.base_kernel)
        return None if inner is None else Scaled(inner, float(instance.outputscale))
    if kind in (theirs.AdditiveKernel, theirs.ProductKernel):
        found = [closed_form(kernel) for kernel in instance.kernels]
        known: list[Kernel | str] = [kernel for kernel in found if kernel is not None]
        if len(known) < len(found):
            return None
        return Sum(known) if kind is theirs.AdditiveKernel else Product(known)
    if kind is theirs.PolynomialKernel and instance.power == int(instance.power) >= 1:
        return Polynomial(degree=int(instance.power), offset=float(instance.offset), length=1.0)
    if kind is theirs.LinearKernel:
        linear, variance = Polynomial(degree=1, offset=0.0, length=1.0), instance.variance
        return Scaled(linear, float(variance)) if variance.numel() == 1 else ARD(linear, variance.sqrt()[0].tolist())
    if kind not in (theirs.RBFKernel, theirs.MaternKernel, theirs.RQKernel):
        return None
    lengths = instance.lengthscale.flatten()
    radial = _radial(instance, float(lengths) if len(lengths) == 1 else 1.0)
    return radial if len(lengths) == 1 else ARD(radial, lengths.reciprocal().tolist())


def _radial(instance: gpytorch.kernels.Kernel, length: float) -> RadialBase:
    from gpytorch import kernels as theirs

    if isinstance(instance, theirs.RBFKernel):
        return RBF(bandwidth=length)
    if isinstance(instance, theirs.RQKernel):
        return RationalQuadratic(alpha=float(instance.alpha), bandwidth=length)
    return Matern32(bandwidth=length) if instance.nu == 1.5 else Matern52(bandwidth=length)


def _build(name: str, options: dict[str, Any], values: dict[str, Any]) -> gpytorch.kernels.Kernel:
    """The kernel of gpytorch.kernels of that name. Raises ParameterError, with gpytorch's own reason."""
    from gpytorch import kernels as theirs

    found = getattr(theirs, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, theirs.Kernel)):
        names = [other for other in theirs.__all__ if isinstance(getattr(theirs, other), type)]
        raise ParameterError("gpytorch: no kernel of that name", got=name, allowed=", ".join(sorted(names)))
    try:
        kernel = found(**options).double()
        kernel.initialize(**{key: _tensor(value) for key, value in values.items()})
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ParameterError(
            f"gpytorch: {name} refuses its options or hyperparameters: {error}",
            got={**options, **values},
            remedy="See its documentation; kernels of kernels are given by GPyTorchKernel.of(instance).",
        ) from error
    return kernel


def _tensor(value: float | list[float]) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _hyperparameters(module: gpytorch.kernels.Kernel) -> dict[str, float | list[float]]:
    """The values of all hyperparameters by name, transformed where gpytorch keeps a raw one under a constraint."""
    found = {}
    for path, owner in module.named_modules():
        for raw in owner._parameters:
            name = raw.removeprefix("raw_")
            value = getattr(owner, name).detach()
            found[f"{path}.{name}" if path else name] = value.item() if value.numel() == 1 else value.flatten().tolist()
    return found
