"""The leading eigenvalues of a generator with what can be believed of them, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.eigensolvers.doubts import doubts
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, conjugate_partners
from kfpbench.eigensolvers.residuals import residuals
from kfpbench.errors import ParameterError, ShapeError
from kfpbench.operators.pencil import GalerkinPencil

Complex = NDArray[np.complex128]
Array = NDArray[Any]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues by descending real part, down to the n_eigs-th that no doubt falls on (at most 2 n_eigs in all).

    ``residuals`` ||L phi - lambda phi|| / ||phi||, without the ridge, at the points that
    ``diagnostics["residual_points"]`` names (reversible: the defect of the Rayleigh quotient there). ``flags`` holds ""
    for a sound mode, else the reason of the doubt: flagged modes stay in ``values`` and do not count towards n_eigs.
    ``status`` is "ok", "not converged" (an iterative solver), or "too few sound modes". Functions are normalised to
    ||phi|| = 1 over the fitted points.

    Shapes: values (k,) complex, residuals (k,), flags (k,).
    """

    values: Complex
    residuals: NDArray[np.float64]
    flags: tuple[str, ...]
    status: str
    diagnostics: dict[str, Any]
    pairs: Eigenpairs = field(repr=False)  # all that were computed, of which ``values`` lists the first k
    fitted: NDArray[np.int64] = field(repr=False)  # which of the given points the fit has seen
    points: Tensor = field(repr=False)  # (N, d), all that were given, in their precision

    def eigenfunctions(self, x: Array) -> Complex:
        """phi_k at points x (n, d): (n, k). Cost O(n M (d + k)) for M centres."""
        return self.pairs.take(list(range(len(self.values)))).eigenfunctions(self._tensor(x)).cpu().numpy()

    def adjoint(self, x: Array) -> Complex:
        """psi_k at points x (n, d): (n, k), eigenfunctions of the adjoint in L2 of the sample density q.

        The Fokker-Planck eigenfunction is q psi_k; sum_i W_i conj(psi_k(x_i)) phi_l(x_i) = delta_kl.
        """
        return self.pairs.take(list(range(len(self.values)))).adjoint_functions(self._tensor(x)).cpu().numpy()

    def propagate(self, u: Array | Callable[[Array], Array], dt: float, x: Array | None = None) -> Array:
        """E[u(x_{t + dt}) | x_t = x] = sum_k exp(lambda_k dt) phi_k(x) <psi_k, u>, by all pairs that were computed.

        u: values at the points of the estimate (N,) or (N, p), or a function of points (n, d). Returns values at ``x``
        (n, d), by default at those points. Pairs that are flagged take part: they belong to the expansion. Cost that of
        the eigenfunctions. Raises ShapeError, and ParameterError for a dt that is not finite or is negative.
        """
        if np.ndim(dt):
            raise ParameterError("propagate: dt is not a number", got=np.shape(dt), remedy="One call for each dt.")
        values = np.asarray(u(self.points.cpu().double().numpy().copy()) if callable(u) else u)
        if values.dtype.kind not in "biufc" or not np.isfinite(values).all():
            raise ParameterError("propagate: the observable is not finite numbers", got=str(values.dtype))
        if values.ndim not in (1, 2) or len(values) != len(self.points):
            raise ShapeError(
                "the observable does not fit the points",
                got=values.shape,
                allowed=f"({len(self.points)},) or ({len(self.points)}, p)",
            )
        if not (np.isfinite(dt) and dt >= 0):
            raise ParameterError("propagate: bad dt", got=dt, allowed="a finite number >= 0")
        if values.dtype.kind == "c":
            return self.propagate(values.real, dt, x) + 1j * self.propagate(values.imag, dt, x)
        seen = torch.as_tensor(values[self.fitted].reshape(len(self.fitted), -1)).to(self.pairs.on_points)
        weighted = torch.exp(self.pairs.values * dt)[:, None] * self.pairs.coefficients(seen)  # (K, p)
        at = self.points.to(self.pairs.on_points) if x is None else self._tensor(x)
        moved = (self.pairs.basis.features(at) @ (self.pairs.right @ weighted).real).cpu().numpy()
        return moved[:, 0] if values.ndim == 1 else moved

    def _tensor(self, x: Array) -> Tensor:
        array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
        if array.dtype.kind not in "biuf":
            raise ParameterError("points are not real numbers", got=str(array.dtype))
        points = torch.as_tensor(array).to(self.pairs.on_points)
        if points.ndim != 2 or points.shape[1] != self.points.shape[1]:
            raise ShapeError("bad points", got=tuple(points.shape), allowed=f"(n, {self.points.shape[1]})")
        return points


def leading_spectrum(
    pairs: Eigenpairs,
    pencil: GalerkinPencil,
    held_out: GalerkinPencil,
    n_eigs: int,
    *,
    residual_points: str,
    fitted: NDArray[np.int64],
    points: Tensor,
) -> Spectrum:
    """Measure residuals on a held-out pencil, flag what they do not bear out, and list the leading modes."""
    listable = pairs.take(list(range(min(2 * n_eigs, len(pairs.values)))))
    measured = residuals(listable, held_out)
    flags = doubts(listable, measured, pencil)
    sound = count = 0
    while count < min(len(flags), 2 * n_eigs) and sound < n_eigs:
        sound += not flags[count]
        count += 1
    partner = conjugate_partners(listable.values)
    count = max([count, *(partner[k] + 1 for k in range(count))])  # a pair is not split
    sound = sum(not flag for flag in flags[:count])
    status: str = "ok" if pairs.status == "converged" else pairs.status
    if status == "ok" and sound < n_eigs:
        status = "too few sound modes"
    return Spectrum(
        pairs.values[:count].cpu().numpy().astype(np.complex128),
        measured.full[:count].double().cpu().numpy(),
        flags[:count],
        status,
        {**pairs.diagnostics, "residual_points": residual_points, "iterations": pairs.iterations, "sound": sound},
        pairs,
        fitted,
        points,
    )
