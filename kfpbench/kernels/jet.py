"""Second-order jets: how every kernel that has a formula gives the derivatives that a generator needs.

A kernel is a function phi of a few *arguments* z_l(x, c), each quadratic in x: squared distances and inner products in
some metric. The generator L = b . grad + tr(a Hess) obeys the chain rule of diffusions (Bakry, Gentil, Ledoux,
"Analysis and Geometry of Markov Diffusion Operators", 2014, sec. 1.11)

    L phi(z) = sum_l phi_l L z_l + sum_lm phi_lm Gamma(z_l, z_m),   Gamma(u, v) = grad u . a grad v,

so phi's first and second derivatives are all that a kernel declares: sums add jets, products multiply them (their cross
term 2 grad k1 . a grad k2 included). The values may be tensors or symbolic (KeOps): jets use operators alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.protocols import Kernel


@dataclass(frozen=True, eq=False)
class SquaredDistance:
    """s(x, c) = (x - c)^T M (x - c); M is None (the identity), a diagonal (d,) or a symmetric matrix (d, d)."""

    metric: Tensor | None = None

    @functools.cached_property
    def root(self) -> Tensor | None:
        """R with R R^T = M: s is the plain squared distance of points times R. Cost of a full metric O(d^3), once."""
        return None if self.metric is None else metric_root(self.metric)


@dataclass(frozen=True, eq=False)
class InnerProduct:
    """t(x, c) = x^T M c, M as in SquaredDistance."""

    metric: Tensor | None = None


Argument = SquaredDistance | InnerProduct


def metric_root(metric: Tensor) -> Tensor:
    """R with R R^T = M, of the metric's own shape, (d,) or (d, d). Cost O(d^3) for a matrix."""
    if metric.ndim == 1:
        return metric.sqrt()
    levels, axes = torch.linalg.eigh(metric)
    return axes * levels.clamp_min(0.0).sqrt()


def same_argument(one: Argument, other: Argument) -> bool:
    """Whether two arguments are the same function of (x, c)."""
    if type(one) is not type(other) or (one.metric is None) != (other.metric is None):
        return False
    if one.metric is None or other.metric is None:
        return True
    return one.metric.shape == other.metric.shape and bool(torch.equal(one.metric, other.metric))


def under_metric(argument: Argument, transform: Tensor) -> Argument:
    """The argument of points that were multiplied by ``transform``, (d,) or (d, e), from the right: M = R M' R^T."""
    inner = argument.metric
    if transform.ndim == 1:
        if inner is None or inner.ndim == 1:
            metric = transform.square() if inner is None else transform.square() * inner
        else:
            metric = transform[:, None] * inner * transform[None, :]
    else:
        middle = transform if inner is None else transform * inner if inner.ndim == 1 else transform @ inner
        metric = middle @ transform.T
    return type(argument)(metric)


@dataclass(frozen=True)
class Jet:
    """phi, its first derivatives by argument, and its second ones by pairs (l, m), l <= m; absent entries are zero.

    ``second`` is None for a kernel with one derivative only: operators with diffusion are refused before they ask.
    """

    value: Any
    first: dict[int, Any]
    second: dict[tuple[int, int], Any] | None


@runtime_checkable
class JetKernel(Protocol):
    """A kernel of several arguments: ``jet`` takes one value each, of any common shape, tensors or symbolic."""

    smoothness: float

    def arguments(self) -> tuple[Argument, ...]:
        """The arguments z_l."""

    def jet(self, *values: Any) -> Jet:
        """phi and its derivatives at values of the arguments."""


class _Radial:
    """The jet of a kernel that declares ``profile``: h, h', h'' of the squared distance."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.smoothness: float = kernel.smoothness

    def arguments(self) -> tuple[Argument, ...]:
        return (SquaredDistance(),)

    def jet(self, *values: Any) -> Jet:
        profile = self.kernel.profile(values[0])
        second = {(0, 0): profile[2]} if len(profile) > 2 else None
        return Jet(profile[0], {0: profile[1]} if len(profile) > 1 else {}, second)


def jet_kernel(kernel: Kernel) -> JetKernel:
    """The jets of a kernel. Raises CapabilityError for one that declares neither ``profile`` nor ``jet``."""
    if isinstance(kernel, JetKernel):
        return kernel
    if hasattr(kernel, "profile"):
        return _Radial(kernel)
    raise CapabilityError(
        "this kernel declares no formula",
        got=type(kernel).__name__,
        allowed="a kernel with `profile`, or with `arguments` and `jet`",
        remedy="Use the backend dense or tiled, which take its blocks.",
    )


def has_formula(kernel: Kernel) -> bool:
    """Whether the kernel declares a formula, so that symbolic backends can take it."""
    return isinstance(kernel, JetKernel) or hasattr(kernel, "profile")


def merge_arguments(parts: Iterable[tuple[Argument, ...]]) -> tuple[tuple[Argument, ...], list[list[int]]]:
    """The distinct arguments of several kernels, and for each kernel where its own stand among them."""
    merged: list[Argument] = []
    places: list[list[int]] = []
    for arguments in parts:
        own = []
        for argument in arguments:
            found = next((k for k, known in enumerate(merged) if same_argument(known, argument)), None)
            if found is None:
                found = len(merged)
                merged.append(argument)
            own.append(found)
        places.append(own)
    return tuple(merged), places


def relabel(jet: Jet, places: list[int]) -> Jet:
    """The jet with its arguments renumbered. Two that share a place z become one: d/dz adds theirs."""
    first: dict[int, Any] = {}
    for a, entry in jet.first.items():
        first = _plus(first, {places[a]: entry})
    if jet.second is None:
        return Jet(jet.value, first, None)
    second: dict[tuple[int, int], Any] = {}
    for (a, b), entry in jet.second.items():
        one, other = sorted((places[a], places[b]))
        twice = one == other and a != b  # the entries (a, b) and (b, a) now stand in one place
        second = _plus(second, {(one, other): entry * 2.0 if twice else entry})
    return Jet(jet.value, first, second)


def add(one: Jet, other: Jet) -> Jet:
    """The jet of a sum."""
    second = None if one.second is None or other.second is None else _plus(one.second, other.second)
    return Jet(one.value + other.value, _plus(one.first, other.first), second)


def multiply(one: Jet, other: Jet) -> Jet:
    """The jet of a product: (uv)_lm = u_lm v + u_l v_m + u_m v_l + u v_lm."""
    first = _plus(_times(one.first, other.value), _times(other.first, one.value))
    if one.second is None or other.second is None:
        return Jet(one.value * other.value, first, None)
    second = _plus(_times(one.second, other.value), _times(other.second, one.value))
    for a, left in one.first.items():
        for b, right in other.first.items():
            key = (min(a, b), max(a, b))
            cross = left * right * 2.0 if a == b else left * right
            second[key] = second[key] + cross if key in second else cross
    return Jet(one.value * other.value, first, second)


def scale(jet: Jet, factor: float) -> Jet:
    """The jet of a multiple."""
    second = None if jet.second is None else _times(jet.second, factor)
    return Jet(jet.value * factor, _times(jet.first, factor), second)


def _plus(one: dict[Any, Any], other: dict[Any, Any]) -> dict[Any, Any]:
    total = dict(one)
    for key, entry in other.items():
        total[key] = total[key] + entry if key in total else entry
    return total


def _times(entries: dict[Any, Any], factor: Any) -> dict[Any, Any]:
    return {key: entry * factor for key, entry in entries.items()}
