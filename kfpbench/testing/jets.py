"""Derivatives that a formula declares, against those of its value; what is wrong is put into words."""

from __future__ import annotations

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.kernels.jet import InnerProduct, JetKernel, SquaredDistance, jet_kernel, metric_root
from kfpbench.operators.pairwise import times_metric
from kfpbench.protocols import Kernel
from kfpbench.testing.contract import ContractError, NotApplicableError, require
from kfpbench.testing.differences import normal
from kfpbench.testing.sections import correlation_length

_EPS = torch.finfo(torch.float64).eps
_DISTANCES = (1e-3, 0.03, 0.3, 1.0, 3.0, 10.0)  # in lengths of the kernel
_HIGHEST = 4  # order of the derivative up to which smoothness is looked at


def declared(kernel: Kernel, x: Tensor | None = None, centres: Tensor | None = None) -> dict[str, Tensor]:
    """The value and declared derivatives by name at pairs of points (by default one of coinciding points).

    Raises ContractError for a formula that returns something else than its protocol says, or too little.
    """
    formula = jet_kernel(kernel)
    if x is None or centres is None:
        values = [torch.ones(1, dtype=torch.float64) for _ in formula.arguments()]
    else:
        pairs = (x.repeat_interleave(len(centres), 0), centres.repeat(len(x), 1))
        values = _arguments(formula, *pairs)
    radial = hasattr(kernel, "profile") and not isinstance(kernel, JetKernel)
    if radial:
        profile = kernel.profile(values[0])  # type: ignore[attr-defined]
        require(
            isinstance(profile, tuple) and 2 <= len(profile) <= 3,
            "profile does not return h and its derivatives",
            got=f"a tuple of {len(profile)}" if isinstance(profile, tuple) else type(profile).__name__,
            allowed="(h, h', h''), or (h, h') for a kernel of smoothness 1",
            remedy="Return a tuple of derivatives with respect to the squared distance.",
        )
        named = dict(zip(("h", "h'", "h''"), profile, strict=False))
    else:
        jet = formula.jet(*values)
        second = {} if jet.second is None else jet.second
        named = {"the value": jet.value, **{f"first[{a}]": entry for a, entry in jet.first.items()}}
        named |= {f"second[{a}, {b}]": entry for (a, b), entry in second.items()}
        require(bool(jet.first), "the jet holds no first derivative", allowed="one for each argument that matters")
    has_second = len(named) > 2 if radial else formula.jet(*values).second is not None
    require(
        has_second or not kernel.smoothness >= 2,
        "the second derivatives are missing, although the smoothness promises them",
        got=f"smoothness {kernel.smoothness:g}, and no {'h' + chr(39) * 2 if radial else 'second'}",
        allowed="second derivatives, or smoothness 1",
        remedy="Give them, or declare smoothness = 1.",
    )
    return named


def check_first(kernel: Kernel, dimension: int) -> None:
    """First derivatives, at six distances; rounding in the value is allowed for, eps |k| / z of an argument z."""
    formula = jet_kernel(kernel)
    values = _at_distances(kernel, formula, dimension, _DISTANCES)
    jet = formula.jet(*values)
    value = jet.value.detach()
    for index, exact in enumerate(_gradient(jet.value, values)):
        given = jet.first.get(index, torch.zeros_like(value)).detach()
        noise = 64.0 * _EPS * value.abs() / values[index].detach().abs()
        _compare(_name(kernel, 1, index), given, exact.detach(), 1e-7, noise, values[index].detach())


def check_second(kernel: Kernel, dimension: int) -> None:
    """Second derivatives at distances of 0.03 lengths and more: nearer by, rounding hides them."""
    formula = jet_kernel(kernel)
    values = _at_distances(kernel, formula, dimension, _DISTANCES[1:])
    jet = formula.jet(*values)
    if jet.second is None:
        raise NotApplicableError("the kernel declares one derivative only")
    value = jet.value.detach()
    for a, slope in enumerate(_gradient(jet.value, values)):
        rows = _gradient(slope, values)
        for b in range(a, len(values)):
            given = jet.second.get((a, b), torch.zeros_like(value)).detach()
            size = values[a].detach().abs() * values[b].detach().abs()
            noise = 64.0 * _EPS * value.abs() / size
            _compare(_name(kernel, 2, a, b), given, rows[b].detach(), 1e-6, noise, values[a].detach())


def check_limits(kernel: Kernel, dimension: int) -> None:
    """Entries at distance 0 against those at 1e-5 lengths; h'' of Matern-5/2 differs by 2e-5 there."""
    length = correlation_length(kernel, dimension)
    centre = 0.1 * normal((1, dimension), 30)
    direction = torch.nn.functional.normalize(normal((1, dimension), 31), dim=1)
    at, near = (declared(kernel, centre + share * length * direction, centre) for share in (0.0, 1e-5))
    for name, entry in at.items():
        gap = float((entry - near[name]).abs().max())
        scale = max(float(entry.abs().max()), float(near[name].abs().max()))
        require(
            gap <= 1e-2 * scale,
            f"{name} at distance 0 is not the limit of {name} near 0",
            got=[float(entry.flatten()[0]), float(near[name].flatten()[0])],
            allowed="equal to 1 % at distances of 0 and 1e-5 lengths",
            remedy=f"Check the formula at 0; if {name} grows without bound there, leave it out and declare the "
            "smoothness that is left.",
        )


def check_bounded(kernel: Kernel, dimension: int) -> None:
    """Derivatives in each squared distance, at 0.03 and 0.001 lengths: a singularity s^(-1/2) grows 30-fold."""
    formula = jet_kernel(kernel)
    orders = int(min(kernel.smoothness, _HIGHEST))
    sizes = []
    for share in (0.03, 0.001):
        values = _at_distances(kernel, formula, dimension, (share,))
        sizes.append(_derivatives(formula, values, orders))
    for (index, order), far in sizes[0].items():
        near = sizes[1][index, order]
        s = float(_at_distances(kernel, formula, dimension, (0.001,))[index].detach().abs().max())
        noise = 64.0 * _EPS * sizes[1].get((index, 2), near) / s ** max(order - 2, 0)
        require(
            near <= 10.0 * far + noise,
            f"the declared smoothness is too high: derivative {order} in the squared distance grows without bound at 0",
            got=f"smoothness {kernel.smoothness:g}; {far:.3g} at 0.03 lengths, {near:.3g} at 0.001",
            allowed=f"smoothness {order - 1} or less" if order > 1 else "no operator: not one derivative exists",
            remedy=f"Declare smoothness = {order - 1}" + (" and leave out h''." if order == 2 else "."),
        )


def _derivatives(formula: JetKernel, values: list[Tensor], orders: int) -> dict[tuple[int, int], float]:
    """|derivative| by (argument, order), of squared distances alone; from the third on by automatic differentiation."""
    jet = formula.jet(*values)
    found = {}
    for index, argument in enumerate(formula.arguments()):
        if not isinstance(argument, SquaredDistance) or index not in jet.first:
            continue
        found[index, 1] = float(jet.first[index].detach().abs().max())
        entry = None if jet.second is None or orders < 2 else jet.second.get((index, index))
        for order in range(2, orders + 1):
            if entry is None:
                break
            found[index, order] = float(entry.detach().abs().max())
            entry = _gradient(entry, values)[index] if entry.requires_grad else None
    return found


def _gradient(value: Tensor, values: list[Tensor]) -> list[Tensor]:
    """d value / d argument for every argument, differentiable again; zeros where it does not depend on it."""
    if not value.requires_grad:
        return [torch.zeros_like(argument) for argument in values]
    found = torch.autograd.grad(value.sum(), values, create_graph=True, allow_unused=True)
    return [torch.zeros_like(z) if part is None else part for z, part in zip(values, found, strict=True)]


def _at_distances(kernel: Kernel, formula: JetKernel, dimension: int, shares: tuple[float, ...]) -> list[Tensor]:
    """Values of the arguments (3 x distances,), to be differentiated; distances in lengths of the kernel."""
    length = correlation_length(kernel, dimension)
    rows = 3 * len(shares)
    distances = torch.tensor(shares, dtype=torch.float64).repeat(3)[:, None] * length
    centres = normal((rows, dimension), 32)
    x = centres + distances * torch.nn.functional.normalize(normal((rows, dimension), 33), dim=1)
    values = [value.requires_grad_() for value in _arguments(formula, x, centres)]
    try:
        depends = formula.jet(*values).value.requires_grad
    except RuntimeError as error:
        raise NotApplicableError(f"the formula cannot be differentiated by torch: {error}") from error
    if not depends:
        raise CapabilityError("the formula's value cannot be differentiated by torch, or is constant")
    return values


def _arguments(formula: JetKernel, x: Tensor, centres: Tensor) -> list[Tensor]:
    """z_l(x_i, c_i) (n,), squared distances from differences."""
    values = []
    for argument in formula.arguments():
        if isinstance(argument, InnerProduct):
            values.append((x * times_metric(centres, argument.metric)).sum(1))
        else:
            root = None if argument.metric is None else metric_root(argument.metric)
            values.append(times_metric(x - centres, root).square().sum(1))
    return values


def _name(kernel: Kernel, order: int, *places: int) -> str:
    if isinstance(kernel, JetKernel):
        return f"{('first', 'second')[order - 1]}[{', '.join(map(str, places))}]"
    return "h" + "'" * order


def _compare(name: str, given: Tensor, exact: Tensor, relative: float, noise: Tensor, at: Tensor) -> None:
    error = (given - exact).abs()
    allowed = relative * exact.abs() + noise + 1e-12 * float(exact.abs().max())
    excess = error - allowed
    if bool((excess <= 0).all()):  # NaN fails
        return
    worst = int(torch.where(excess.isnan(), torch.inf, excess / allowed.clamp_min(1e-300)).argmax())
    raise ContractError(
        f"{name} {_cause(given, exact, at)}",
        got=f"{float(given[worst]):.10g} at {float(at[worst]):.3g}",
        allowed=f"{float(exact[worst]):.10g}, by automatic differentiation of the value",
        remedy="Derivatives are with respect to the argument itself: the squared distance s of a radial kernel.",
    )


def _cause(given: Tensor, exact: Tensor, at: Tensor) -> str:
    """What kind of mistake it is, from the ratio of what is given to what is right."""
    sound = exact.abs() > 1e-12 * exact.abs().max()
    ratio = given[sound] / exact[sound]
    if not bool(ratio.isfinite().all()):
        return "is not finite"
    centre = float(ratio.median())
    if float((ratio - centre).abs().max()) <= 1e-4 * abs(centre):
        if abs(centre + 1.0) < 1e-4:
            return "has the wrong sign"
        return f"is off by the factor {centre:.6g} at every distance"
    radius = 2.0 * at[sound].abs().sqrt()
    if float((ratio / radius - 1.0).abs().max()) <= 1e-4:
        return "is the derivative with respect to the distance r, not to its square s"
    return "is not the derivative of the value"
