"""From points, a drift and a diffusion to a spectrum: the public function of the spectral core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    Draws (no weights): one fifth of the points, at most 2,000, is held out of the fit for the residuals, by a fixed
    permutation. With weights all points are fitted, since a quadrature rule cannot spare any; residuals are then taken
    half-way between neighbours when drift and diffusion are functions or constant, else at the points themselves.

    Returns a Spectrum. Cost: the eigensolver's. Raises ShapeError, ParameterError, NumericalError (NaN, a kernel that
    is constant on the points), CapabilityError (a kernel too rough for the operator, an absent device).
    """
    if isinstance(n_eigs, bool) or not isinstance(n_eigs, int) or n_eigs < 1:
        raise ParameterError("estimate_spectrum: bad n_eigs", got=n_eigs, allowed="a positive integer")
    place = _Place(device, dtype)
    given = np.asarray(points)
    x = place.tensor("points", points)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ShapeError("points are not a matrix", got=tuple(x.shape), allowed="(N, d)", remedy="In 1-D: x[:, None].")
    if len(x) < n_eigs:
        raise ParameterError(
            "estimate_spectrum: n_eigs exceeds the number of points", got=n_eigs, allowed=f"at most {len(x)} here"
        )
    place.finite("points", x)
    drift_at = place.field("drift", drift, given, x.shape)
    diffusion_at = _diffusion(place, diffusion, given)
    shares = _weights(place, weights, len(x))
    centre_points = None if centres is None else place.tensor("centres", centres)
    whole = GalerkinPencil(x, drift_at, diffusion_at, shares, centre_points, reversible)

    order = np.arange(len(x))
    held_out, where, fitted = whole, "the fitted points", order
    if weights is None and len(x) >= _FEWEST:
        shuffled = np.random.Generator(np.random.Philox(key=0)).permutation(len(x))
        cut = min(len(x) // _HELD_OUT, _MOST_HELD_OUT)
        fitted, unseen = np.sort(shuffled[cut:]), np.sort(shuffled[:cut])
        held_out, where = _part(whole, unseen), "held-out points"
    elif weights is not None and callable(drift) and (callable(diffusion) or not diffusion_at.pointwise):
        held_out, where = _between(place, given, whole, drift, diffusion), "half-way between neighbours"
    fit = _part(whole, fitted) if len(fitted) < len(x) else whole

    solver_params = dict(eigensolver_params or {})
    if regularization != "auto":
        solver_params["truncation"] = regularization
    pairs = _component("eigensolvers", eigensolver, solver_params).solve(
        fit, _component("kernels", kernel, kernel_params), _component("backends", backend, None), n_eigs
    )
    return leading_spectrum(
        pairs, fit, held_out, n_eigs, residual_points=where, fitted=fitted.astype(np.int64), points=x
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
        except RuntimeError as error:
            raise ParameterError("estimate_spectrum: bad device", got=device, allowed="cpu, cuda, cuda:N") from error
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise CapabilityError("this machine has no CUDA device", got=device, remedy='Use device="cpu".')

    def tensor(self, name: str, values: Any) -> Tensor:
        try:
            if not isinstance(values, Tensor):
                array = np.asarray(values)
                values = torch.as_tensor(array if array.flags.writeable else array.copy())
            return values.detach().to(device=self.device, dtype=self.dtype)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{name} are not numbers", got=type(values).__name__, allowed="an array") from error

    def finite(self, name: str, values: Tensor) -> Tensor:
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise NumericalError(f"{name}: {bad} of {values.numel()} entries are NaN or infinite")
        return values

    def field(self, name: str, field: Any, points: Array, shape: tuple[int, ...]) -> Tensor:
        values = self.tensor(name, field(points) if callable(field) else field)
        if tuple(values.shape) != tuple(shape):
            raise ShapeError(f"{name} does not fit the points", got=tuple(values.shape), allowed=tuple(shape))
        return self.finite(name, values)


def _diffusion(place: _Place, diffusion: Any, points: Array) -> Diffusion:
    if callable(diffusion):
        values = place.tensor("diffusion", diffusion(points))
        return Diffusion.constant(values) if values.ndim == 0 else Diffusion.at_points(values)
    values = place.finite("diffusion", place.tensor("diffusion", diffusion))
    return Diffusion.at_points(values) if values.ndim == 3 else Diffusion.constant(values)


def _weights(place: _Place, weights: Any, count: int) -> Tensor:
    if weights is None:
        return torch.full((count,), 1.0 / count, device=place.device, dtype=place.dtype)
    shares = place.finite("weights", place.tensor("weights", weights))
    if tuple(shares.shape) != (count,):
        raise ShapeError("weights do not fit the points", got=tuple(shares.shape), allowed=f"({count},)")
    if not bool((shares > 0).all()):
        raise ParameterError("weights must be positive", got=float(shares.min()), remedy="Leave such points out.")
    return shares / shares.sum()


def _part(pencil: GalerkinPencil, rows: Array) -> GalerkinPencil:
    """Some of the points, with their weights normalised."""
    index = torch.as_tensor(rows, device=pencil.points.device)
    weights = pencil.weights[index]
    return GalerkinPencil(
        pencil.points[index],
        pencil.drift[index],
        pencil.diffusion.rows(index),
        weights / weights.sum(),
        pencil.centres,
        pencil.reversible,
    )


def _between(place: _Place, points: Array, pencil: GalerkinPencil, drift: Any, diffusion: Any) -> GalerkinPencil:
    """The operator half-way between each point and its nearest neighbour, with that point's weight."""
    from scipy.spatial import cKDTree

    _, neighbours = cKDTree(points).query(points, k=min(2, len(points)))
    middle = 0.5 * (points + points[neighbours[:, -1]]) if len(points) > 1 else points
    x = place.tensor("points", middle)
    return GalerkinPencil(
        x,
        place.field("drift", drift, middle, tuple(x.shape)),
        _diffusion(place, diffusion, middle),
        pencil.weights,
        pencil.centres,
        pencil.reversible,
    )


def _component(kind: str, component: Any, params: Mapping[str, Any] | None) -> Any:
    """A registered component by its name with parameters, or the component itself."""
    if isinstance(component, str):
        find(kind, component)  # raises UnknownComponentError with the closest match
        try:
            return create(kind, {"name": component, **dict(params or {})})
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
    return component
