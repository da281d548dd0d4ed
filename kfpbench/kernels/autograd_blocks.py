"""Blocks of a gpytorch kernel, and of its generator, by automatic differentiation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kfpbench.errors import CapabilityError, NumericalError, ShapeError
from kfpbench.operators.diffusion import Diffusion

if TYPE_CHECKING:
    import gpytorch

_PROBES = 8  # points at which the derivatives are tried
_PROBE_STEP = 1e-5  # of the points' spread: far below any length at which a kernel is of use
_PROBE_TOLERANCE = 0.1  # second derivatives that are lost differ by their whole size, continuous ones by O(step)


class AutogradBlocks:
    """k(x_i, c_j) and (L k(., c_j))(x_i) of a gpytorch kernel, L = b . grad + tr(a Hess).

    Derivatives along vectors v_i of all entries at once are two reverse passes: with the pull-back g(u) =
    grad_x sum_ij u_ij k_ij, linear in u, the entry (i, j) is d/du_ij sum_i g_i(u) . v_i. The diffusion is a sum of
    second derivatives along the d vector fields of a = sum_s sigma_s sigma_s^T. Cost:
    for a Gaussian kernel the drift takes 15 to 35 evaluations, each field as many again, in memory of tens of blocks.

    Distances are the one hazard: where a point meets a centre, autograd has no derivative of |x - c|, and gpytorch cuts
    rounded squares off at zero. In derivatives, ``covar_dist`` and ``torch.cdist`` are therefore sqrt(s + eps^2), eps =
    ulp^(1/3) in the kernel's own unit of length: a kernel smooth in s is off by O(eps^2), 4e-11 in float64. Values come
    from the kernel as it is. Raises CapabilityError in more than ``max_dim`` dimensions, ShapeError for a kernel of
    several outputs, NumericalError for derivatives that are not finite.
    """

    def __init__(self, module: gpytorch.kernels.Kernel, max_dim: int) -> None:
        self.module = module
        self.max_dim = max_dim
        self._smooth = _with_smooth_distances(module)

    def block(self, x: Tensor, centres: Tensor) -> Tensor:
        """k(x_i, c_j), shape (n, M). Cost: one evaluation."""
        with torch.no_grad():
            return _evaluate(self.module, x, centres)

    def generator_block(self, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        """(L k(., c_j))(x_i), shape (n, M)."""
        if not diffusion.is_zero and x.shape[1] > self.max_dim:
            raise CapabilityError(
                "the kernel's second derivatives are too costly in this dimension",
                got=x.shape[1],
                allowed=f"at most max_dim = {self.max_dim}",
                remedy="Take a kernel with a formula, or raise max_dim.",
            )
        diffusion = diffusion.to(x)
        with torch.enable_grad(), _SmoothCdist():
            x = x.detach().requires_grad_(True)
            along = _derivative_along(_evaluate(self._smooth, x, centres.detach()), x)
            total = along(drift).detach()
            if not diffusion.is_zero:
                for field in diffusion.root_fields(x.detach()):
                    if bool(field.any()):
                        total += _derivative_along(along(field), x)(field).detach()
        if not bool(total.isfinite().all()):
            raise NumericalError(
                "the kernel's derivatives are not finite",
                got=type(self.module).__name__,
                remedy="Write it with squared distances, covar_dist or torch.cdist; check its hyperparameters.",
            )
        return total

    def require_derivatives(self, points: Tensor) -> None:
        """Raise CapabilityError unless second derivatives of k(., c) at c are those nearby, at points (N, d).

        A norm, a clamp or a kink hides them from autograd: no error would tell. Cost: one generator block of 24 points.
        """
        centres = points[:_PROBES].double()
        count, dimension = centres.shape
        spread = float((points.double() - centres[0]).norm(dim=1).max())
        step = _PROBE_STEP * (spread or 1.0) / dimension**0.5
        x = torch.cat([centres, centres + step, centres - step])
        weights = torch.linspace(1.0, 2.0, dimension, dtype=torch.float64, device=x.device)
        block = self.generator_block(x, centres, torch.zeros_like(x), Diffusion.constant(weights))
        at, above, below = (block[rows].diagonal() for rows in torch.arange(3 * count).split(count))
        nearby = 0.5 * (above + below)
        if bool(((at - nearby).abs() > _PROBE_TOLERANCE * torch.maximum(at.abs(), nearby.abs())).any()):
            raise CapabilityError(
                "the kernel's second derivatives are lost where a point meets a centre, by a norm, a clamp or a kink",
                got=type(self.module).__name__,
                allowed="derivatives that autograd finds, and that are continuous",
                remedy="Write it with squared distances, covar_dist or torch.cdist, or declare smoothness 1.",
            )


def _evaluate(module: gpytorch.kernels.Kernel, x: Tensor, centres: Tensor) -> Tensor:
    """The kernel's block (n, M), in the dtype and on the device of x."""
    import gpytorch
    from linear_operator import to_dense

    if module.dtype != x.dtype or module.device not in (None, x.device):
        module = copy.deepcopy(module).to(x)
    # gpytorch treats equal matrices apart, with approximate factors of products: a row more, and they are not equal
    equal = len(x) > 0 and torch.equal(x, centres)
    with gpytorch.settings.lazily_evaluate_kernels(False):
        found: Tensor = to_dense(module(torch.cat([x, x[:1]]) if equal else x, centres))
    found = found[:-1] if equal else found
    if found.shape != (len(x), len(centres)):
        raise ShapeError(
            "the kernel does not give one number for each pair of points",
            got=(type(module).__name__, tuple(found.shape)),
            allowed=(len(x), len(centres)),
        )
    return found


def _derivative_along(values: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The map v (n, d) -> (v_i . grad_x values_ij) (n, M), of values whose row i depends on x_i alone."""
    weights = torch.zeros_like(values, requires_grad=True)
    if not values.requires_grad:  # constant
        return lambda vectors: torch.zeros_like(values)
    (pulled,) = torch.autograd.grad(values, x, weights, create_graph=True, materialize_grads=True)

    def along(vectors: Tensor) -> Tensor:
        if not pulled.requires_grad:
            return torch.zeros_like(values).detach()
        (pushed,) = torch.autograd.grad((pulled * vectors).sum(), weights, create_graph=True, materialize_grads=True)
        return pushed

    return along


def _smooth_distance(squared: Tensor) -> Tensor:
    """sqrt(s + eps^2); rounding below zero is mended in the value alone."""
    width = torch.finfo(squared.dtype).eps ** (1.0 / 3.0)
    return (squared + squared.detach().neg().clamp_min(0.0) + width**2).sqrt()


def _squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """|x_i - c_j|^2 of (..., n, d) and (..., M, d), without a cut at zero."""
    origin = centres.mean(dim=-2, keepdim=True)
    x, centres = x - origin, centres - origin
    norms = x.square().sum(-1)[..., :, None] + centres.square().sum(-1)[..., None, :]
    return norms - 2.0 * x @ centres.mT


def _covar_dist(
    x1: Tensor,
    x2: Tensor,
    diag: bool = False,
    last_dim_is_batch: bool = False,
    square_dist: bool = False,
    **_: Any,
) -> Tensor:
    """``gpytorch.kernels.Kernel.covar_dist`` with derivatives where points meet."""
    if last_dim_is_batch:
        x1, x2 = x1.mT[..., None], x2.mT[..., None]
    squared = (x1 - x2).square().sum(-1) if diag else _squared_distances(x1, x2)
    return squared if square_dist else _smooth_distance(squared)


def _with_smooth_distances(module: gpytorch.kernels.Kernel) -> gpytorch.kernels.Kernel:
    """A copy in which every kernel that has gpytorch's own distances has ours."""
    from gpytorch.kernels import Kernel

    changed = copy.deepcopy(module)
    for kernel in changed.modules():
        if isinstance(kernel, Kernel) and type(kernel).covar_dist is Kernel.covar_dist:
            kernel.covar_dist = _covar_dist
    return changed


class _SmoothCdist(TorchFunctionMode):
    """Within it, Euclidean ``torch.cdist`` has derivatives of every order, where points meet as well."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        power = args[2] if len(args) > 2 else kwargs.get("p", 2.0)
        if func is torch.cdist and power == 2:
            x1, x2 = (args[place] if len(args) > place else kwargs[name] for place, name in enumerate(("x1", "x2")))
            return _smooth_distance(_squared_distances(x1, x2))
        return func(*args, **kwargs)
