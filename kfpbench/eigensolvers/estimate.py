"""From points, a drift and a diffusion to a spectrum: the public function of the spectral core."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.eigensolvers.spectrum import Spectrum, leading_spectrum
from kfpbench.errors import CapabilityError, NumericalError, ParameterError, ShapeError, SuiteError
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.registry import find
from kfpbench.suite.components import create

Array = NDArray[Any]
Field = Array | Callable[[Array], Any]

_HELD_OUT = 5  # every fifth point is held out, at most 2,000 of them
_MOST_HELD_OUT = 2000
_FEWEST = 20  # with fewer points none is held out
_TILE = 4096  # rows that are converted or checked at a time


def estimate_spectrum(
    points: Array,
    drift: Field,
    diffusion: float | Field,
    *,
    weights: Array | None = None,
    kernel: Any = "rbf",
    kernel_params: Mapping[str, Any] | None = None,
    eigensolver: Any = "dense",
    eigensolver_params: Mapping[str, Any] | None = None,
    backend: Any = "auto",
    n_eigs: int = 6,
    centres: Array | None = None,
    regularization: float | Literal["auto"] = "auto",
    reversible: bool = False,
    device: str = "cpu",
    dtype: str = "float64",
) -> Spectrum:
    """Leading eigenvalues and eigenfunctions of L phi = b . grad phi + tr(a Hess phi) from points.

    Args:
        points: (N, d), draws of a density q that covers the region of interest, or a quadrature grid with ``weights``.
        drift: b at the points (N, d), or a function (n, d) -> (n, d).
        diffusion: a = (1/2) Sigma Sigma^T: a number; the diagonal (d,) or a matrix (d, d) of a constant one; (N, d, d);
            or a function (n, d) -> (n,), (n, d, d).
        weights: (N,) positive, W_i ~ q(x_i) dx, normalised here; None: equal, the points are draws of q.
        kernel, eigensolver, backend: names of registered components, or components; ``kernel_params`` and
            ``eigensolver_params`` go with names.
        n_eigs: how many sound modes are wanted, the constant function's 0 among them.
        centres: (M, d) of the kernel sections; None: the points (or what the eigensolver chooses).
        regularization: the relative strength below which principal functions of the kernel are left out
            (``truncation``); "auto" leaves it to the eigensolver.
        reversible: detailed balance holds and the points are draws of the invariant density: symmetric Dirichlet form.
        device, dtype: where and in which precision ("float32", "float64") everything is computed.

    Draws (no weights, or equal ones): one fifth of the points, at most 2,000, is held out of the fit for the residuals,
    by a fixed permutation. With weights all points are fitted, since a quadrature rule cannot spare any; residuals are
    then taken half-way between neighbours when drift and diffusion are functions or constant, else at the points
    themselves.

    Returns a Spectrum. Cost: the eigensolver's. Raises ShapeError, ParameterError, NumericalError (NaN, a kernel that
    is constant on the points), CapabilityError (a kernel too rough for the operator, an absent device).
    """
    if isinstance(n_eigs, bool) or not isinstance(n_eigs, Integral) or n_eigs < 1:
        raise ParameterError("estimate_spectrum: bad n_eigs", got=n_eigs, allowed="a positive integer")
    place = _Place(device, dtype)
    source = place.source("points", points)
    if source.ndim != 2 or source.shape[1] < 1:
        raise ShapeError(
            "points are not a matrix", got=tuple(source.shape), allowed="(N, d)", remedy="In 1-D: x[:, None]."
        )
    if len(source) < n_eigs:
        raise ParameterError(
            "estimate_spectrum: n_eigs exceeds the number of points", got=n_eigs, allowed=f"at most {len(source)} here"
        )
    finite("points", source)
    drift_at = place.field("drift", drift, source)
    diffusion_at = _diffusion(place, diffusion, source)
    diffusion_at.check(source)
    centre_points = None if centres is None else place.tensor("centres", centres)

    def pencil(shares: Tensor, rows: Array | None = None) -> GalerkinPencil:
        at = diffusion_at if rows is None else diffusion_at.rows(torch.as_tensor(rows, device=place.device))
        x, b = place.rows(source, rows), place.rows(drift_at, rows)
        return GalerkinPencil(x, b, at, shares, centre_points, reversible)

    fitted, shares = np.arange(len(source)), _weights(place, weights, len(source))
    draws = bool((shares == shares[0]).all())
    if draws and len(source) >= _FEWEST:
        shuffled = np.random.Generator(np.random.Philox(key=0)).permutation(len(source))
        cut = min(len(source) // _HELD_OUT, _MOST_HELD_OUT)
        fitted, unseen = np.sort(shuffled[cut:]), np.sort(shuffled[:cut])
        fit, held_out = (pencil(_weights(place, None, len(rows)), rows) for rows in (fitted, unseen))
        where = "held-out points"
    else:
        fit = held_out = pencil(shares)
        where = "the fitted points"
        if not draws and callable(drift) and (callable(diffusion) or not diffusion_at.pointwise):
            held_out, where = _between(place, source, fit, drift, diffusion), "half-way between neighbours"

    solver = _component("eigensolvers", eigensolver, _with_truncation(eigensolver, eigensolver_params, regularization))
    products = _component("backends", backend, None)
    pairs = solver.solve(fit, _component("kernels", kernel, kernel_params), products, int(n_eigs))
    needed = solver.working_memory(*fit.points.shape, int(n_eigs), fit.points.element_size(), products)
    pairs = replace(pairs, diagnostics={**pairs.diagnostics, "predicted_bytes": needed})
    return leading_spectrum(
        pairs, fit, held_out, n_eigs, residual_points=where, fitted=fitted.astype(np.int64), points=source
    )


class _Place:
    """Where arrays go, and the checks on their way."""

    def __init__(self, device: str, dtype: str) -> None:
        kinds = {"float32": torch.float32, "float64": torch.float64}
        if dtype not in kinds:
            raise ParameterError("estimate_spectrum: bad dtype", got=dtype, allowed="float32, float64")
        self.dtype = kinds[dtype]
        try:
            self.device = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ParameterError("estimate_spectrum: bad device", got=device, allowed="cpu, cuda, cuda:N") from error
        if self.device.type not in ("cpu", "cuda"):
            raise ParameterError("estimate_spectrum: bad device", got=device, allowed="cpu, cuda, cuda:N")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise CapabilityError("this machine has no CUDA device", got=device, remedy='Use device="cpu".')

    def source(self, name: str, values: Any) -> Tensor:
        """The values as they are given: no copy, no other precision."""
        try:
            if not isinstance(values, Tensor):
                array = np.asarray(values)
                values = torch.as_tensor(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{name} are not numbers", got=type(values).__name__, allowed="an array") from error
        if values.is_complex():
            raise ParameterError(f"{name} are complex", got=str(values.dtype), allowed="real numbers")
        return values.detach()

    def tensor(self, name: str, values: Any) -> Tensor:
        return self.source(name, values).to(device=self.device, dtype=self.dtype)

    def rows(self, source: Tensor, rows: Array | None) -> Tensor:
        """Some rows (None: all), here and in this precision; no other copy of more than a tile is made."""
        if rows is None:
            return source.to(device=self.device, dtype=self.dtype)
        index = torch.as_tensor(rows, device=source.device)
        held = torch.empty((len(index), *source.shape[1:]), device=self.device, dtype=self.dtype)
        for part, chosen in zip(held.split(_TILE), index.split(_TILE), strict=True):
            part.copy_(source[chosen])
        return held

    def field(self, name: str, field: Any, points: Tensor) -> Tensor:
        values = self.source(name, field(own_copy(points)) if callable(field) else field)
        if values.shape != points.shape:
            raise ShapeError(f"{name} does not fit the points", got=tuple(values.shape), allowed=tuple(points.shape))
        return finite(name, values)


def own_copy(points: Tensor) -> Array:
    """The points for a caller's function, which may change them: float64, so that integers do not wrap."""
    return points.cpu().double().numpy().copy()


def finite(name: str, values: Tensor) -> Tensor:
    """The values themselves. Raises NumericalError when some are NaN or infinite. Memory: that of a tile of rows."""
    bad = sum(int((~torch.isfinite(part)).sum()) for part in values.reshape(-1, *values.shape[1:]).split(_TILE))
    if bad:
        raise NumericalError(f"{name}: {bad} of {values.numel()} entries are NaN or infinite")
    return values


def _diffusion(place: _Place, diffusion: Any, points: Tensor) -> Diffusion:
    if callable(diffusion):
        values = finite("diffusion", place.tensor("diffusion", diffusion(own_copy(points))))
        return Diffusion.constant(values) if values.ndim == 0 else Diffusion.at_points(values)
    values = finite("diffusion", place.tensor("diffusion", diffusion))
    return Diffusion.at_points(values) if values.ndim == 3 else Diffusion.constant(values)


def _weights(place: _Place, weights: Any, count: int) -> Tensor:
    if weights is None:
        return torch.full((count,), 1.0 / count, device=place.device, dtype=place.dtype)
    shares = finite("weights", place.source("weights", weights)).double()  # float32 would lose those of the tails
    if tuple(shares.shape) != (count,):
        raise ShapeError("weights do not fit the points", got=tuple(shares.shape), allowed=f"({count},)")
    if not bool((shares > 0).all()):
        raise ParameterError("weights must be positive", got=float(shares.min()), remedy="Leave such points out.")
    shares = (shares / shares.sum()).to(device=place.device, dtype=place.dtype)
    return shares.clamp_min(torch.finfo(place.dtype).tiny)


def _between(place: _Place, source: Tensor, pencil: GalerkinPencil, drift: Any, diffusion: Any) -> GalerkinPencil:
    """The operator half-way between each point and its nearest neighbour, with that point's weight."""
    from scipy.spatial import cKDTree

    points = own_copy(source)
    _, neighbours = cKDTree(points).query(points, k=min(2, len(points)))
    middle = torch.from_numpy(0.5 * (points + points[neighbours[:, -1]]) if len(points) > 1 else points)
    return GalerkinPencil(
        place.rows(middle, None),
        place.rows(place.field("drift", drift, middle), None),
        _diffusion(place, diffusion, middle),
        pencil.weights,
        pencil.centres,
        pencil.reversible,
    )


def _with_truncation(eigensolver: Any, params: Any, regularization: float | str) -> Any:
    """The eigensolver's parameters with the truncation that ``regularization`` stands for."""
    if isinstance(regularization, str) and regularization == "auto":
        return params
    if (
        isinstance(eigensolver, str)
        and "truncation" not in inspect.signature(find("eigensolvers", eigensolver).load()).parameters
    ):
        raise ParameterError(
            f"regularization: the eigensolver {eigensolver} has no truncation",
            got=regularization,
            allowed="auto",
            remedy="See its own parameters, and give them as eigensolver_params.",
        )
    return {**_mapping("eigensolvers", params), "truncation": regularization}


def _mapping(kind: str, params: Any) -> dict[str, Any]:
    if params is not None and not isinstance(params, Mapping):
        raise ParameterError(f"parameters of {kind} are not a mapping", got=params, allowed="a dict, or None")
    return dict(params or {})


_METHODS = {
    "kernels": ("fit", "describe"),
    "eigensolvers": ("solve", "working_memory"),
    "backends": ("gram", "generator_gram"),
}


def _component(kind: str, component: Any, params: Any) -> Any:
    """A registered component by its name with parameters, or the component itself."""
    params = _mapping(kind, params)
    if isinstance(component, str):
        find(kind, component)  # raises UnknownComponentError with the closest match
        try:
            return create(kind, {"name": component, **params})
        except SuiteError as error:
            raise ParameterError(
                f"{component}: {error.what}",
                got=error.got,
                allowed=error.allowed,
                remedy=error.remedy,
                where=error.where,
            ) from error
    if params:
        raise ParameterError(
            f"parameters of {kind} go with a name",
            got=sorted(params),
            remedy="Give them to the component's constructor.",
        )
    if isinstance(component, type) or not all(hasattr(component, name) for name in _METHODS[kind]):
        raise ParameterError(
            f"not a component of {kind}",
            got=component,
            allowed=f"a registered name, or an object with {', '.join(_METHODS[kind])}",
            remedy="A gpytorch kernel: kfpbench.kernels.gpytorch_adapter.GPyTorchKernel.of(kernel).",
        )
    return component
