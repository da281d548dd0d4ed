"""kooplearn's estimator of a reversible generator as an eigensolver, so that one suite compares it with the others."""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.derivative_sections import DerivativeSections
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.projection import order_of
from kfpbench.errors import CapabilityError, NumericalError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

_REAL = 1e-8  # relative imaginary part that counts as rounding
_CONSTANT = 1.0 - 1e-12  # of k(x_1, x_j) for every j: no function besides the constant
_STANDARD_ERRORS = 4.0  # moments that miss those of detailed balance by more deny it
_EXTRA = 6  # kooplearn asks ARPACK for five pairs more than it keeps, which must be fewer than the points


class KooplearnDirichlet:
    """GeneratorDirichlet of kooplearn 2: eigenpairs of the resolvent (shift - L)^(-1) by reduced-rank regression.

    It learns from draws of the invariant density and the diffusion alone: the drift is taken to be the one that keeps
    that density in detailed balance, and never looked at. Minimised is the risk in the energy norm
    shift ||f||^2 + E[grad f . a grad f], on RBF sections and their first derivatives at the points; no function is
    constant, so that the leading value is near 0 and not 0.

    How its conventions follow from ours: ``gamma`` = 1 / (2 l^2) of the RBF kernel's length l (kooplearn's default is
    1 / d); ``diffusion`` = (2 a)^(1/2), the factor b of L phi = (1/2) tr(b b^T Hess phi) + ...; ``shift`` and ``alpha``
    (Tikhonov; relative to K / N it acts as alpha / N^(1/2)) keep their names and defaults; ``components`` is its rank
    ``n_components``, raised to ``n_eigs``: a larger rank brings spurious slow modes. Pairs that are not finite are left
    out, and complex ones, which the symmetric problem has by rounding alone, are flagged. Right eigenfunctions are
    normalised to ||phi|| = 1 over the points. Adjoints are their dual basis over the points, psi = phi G^-1 with
    G = phi^H W phi, not kooplearn's left eigenfunctions, which are biorthogonal in the limit only. The eigenproblem is
    solved in float64, and values repeat to some 1e-8 only: kooplearn starts ARPACK from entropy of the system.

    The backend evaluates the eigenfunctions; kooplearn makes its own dense arrays. Cost O(N^3 d^3) and O(N^2 d^2) steps
    of interpreted Python; memory O(N^2 d^2). Source: Kostic, Lounici, Halconruy, Devergne, Pontil, "Learning the
    infinitesimal generator of stochastic diffusion processes", NeurIPS 2024, algorithm 1.

    deeptime has no counterpart: its EDMD, KernelEDMD, VAMP and KVAD estimate a transfer operator from pairs of states a
    lag time apart, which a generator's data (points, drift, diffusion) do not contain.

    Raises CapabilityError without kooplearn, for a kernel other than ``rbf``, unequal weights, centres, an anisotropic
    diffusion (kooplearn 2.0.3 gives the mixed second derivatives one axis's diffusion twice), or a drift whose moments
    E[x_s b_t] differ from -a_st of detailed balance by more than four standard errors; ParameterError for too few
    points; NumericalError when kooplearn fails.
    """

    def __init__(
        self,
        components: Annotated[int, Field(ge=1)] = 6,
        alpha: Annotated[float, Field(gt=0)] = 1e-6,
        shift: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        if components < 1:
            raise ParameterError("KooplearnDirichlet: components must be positive", got=components, allowed="1 or more")
        for name, value in {"alpha": alpha, "shift": shift}.items():
            if not 0 < value < math.inf:
                raise ParameterError(f"KooplearnDirichlet: {name} must be positive", got=value)
        self.components, self.alpha, self.shift = components, float(alpha), float(shift)

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """At most max(components, n_eigs) eigenpairs; the kernel is fitted to the points first."""
        estimator = _estimator()
        rank = max(self.components, n_eigs or 1)
        a = _require(pencil, kernel, rank)
        fitted = kernel.fit(pencil.bulk)
        assert isinstance(fitted, RBF)  # _require saw to it
        if float(backend.gram(fitted, pencil.points[:1], pencil.points).rows(torch.tensor([0])).min()) >= _CONSTANT:
            raise NumericalError(
                "the kernel is constant on the points",
                remedy="Take a smaller bandwidth, or check the points: they may all be equal.",
            )
        points = pencil.points.double().cpu().numpy()
        model = estimator(
            math.sqrt(2.0 * a),
            n_components=rank,
            gamma=0.5 / fitted.length**2,
            alpha=self.alpha,
            shift=self.shift,
        )
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # what they say shows in values that are not finite
                result = model.fit(points).eigresults
        except (np.linalg.LinAlgError, RuntimeError, ValueError) as error:  # ARPACK's errors are RuntimeErrors
            raise NumericalError(
                f"kooplearn's GeneratorDirichlet failed: {error}",
                got=fitted.describe(),
                remedy="Raise alpha, take fewer components, or check the points: they may all be equal.",
            ) from error
        values, coefficients = _sound(result["values"], result["right"])
        return self._eigenpairs(pencil, fitted, backend, a, values, coefficients)

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes, float64: derivative blocks of all pairs of points, three of their size at once, and N x N arrays."""
        side = points * dimension
        return 8 * (3 * side**2 + 4 * points * side + 12 * points**2)

    def _eigenpairs(
        self,
        pencil: GalerkinPencil,
        kernel: RBF,
        backend: Backend,
        a: float,
        values: NDArray[np.complex128],
        coefficients: NDArray[np.complex128],
    ) -> Eigenpairs:
        x = pencil.points
        count, dimension = x.shape
        scaled = torch.from_numpy(coefficients).to(x.device)
        sections = math.sqrt(self.shift) * scaled[:count]
        slopes = math.sqrt(a) * scaled[count:].reshape(dimension, count, -1).transpose(0, 1)
        parts = [sections.real, sections.imag], [slopes.real, slopes.imag]
        basis = DerivativeSections(
            kernel,
            backend,
            x,
            torch.cat(parts[0], dim=1).to(x),
            torch.cat(parts[1], dim=2).to(x),
            x.new_zeros(2 * len(values)),
        )
        functions = basis.features(x)[:, 1:].unflatten(1, (2, -1))
        turned, real = _turned(torch.complex(functions[:, 0], functions[:, 1]), pencil.weights)  # factors (K,)
        eye = torch.diag(turned)
        right = torch.cat([eye.new_zeros((1, len(values))), eye, 1j * eye])
        spectrum = torch.from_numpy(values).to(right)
        spectrum = torch.where(spectrum.imag.abs() <= _REAL * (1.0 + spectrum.abs()), spectrum.real + 0j, spectrum)
        order = order_of(spectrum)
        spectrum, right, real = spectrum[order], right[:, order], real[order]
        on_points = basis.features(x)
        on_right = on_points.to(right.dtype) @ right
        gram = on_right.mH @ (pencil.weights[:, None] * on_right)
        try:
            adjoint = right @ torch.linalg.inv(gram)
            condition = float(torch.linalg.cond(gram).sqrt())
        except torch.linalg.LinAlgError as error:
            raise NumericalError(
                f"kooplearn's eigenfunctions are linearly dependent: {error}", remedy="Take fewer components."
            ) from error
        flags = tuple(
            "" if own and value.imag == 0 else "complex, though the problem is symmetric"
            for value, own in zip(spectrum.tolist(), real.tolist(), strict=True)
        )
        details = {
            "kernel": kernel.describe(),
            "points": count,
            "rank": len(values),
            "eigenvector_condition": condition,
        }
        return Eigenpairs(spectrum, right, adjoint, basis, on_points, pencil.weights, flags, diagnostics=details)


def _estimator() -> Any:
    try:
        from kooplearn.kernel import GeneratorDirichlet
    except ImportError as error:
        raise CapabilityError(
            f"kooplearn cannot be imported: {error}", remedy="pip install kfpbench[peers]", where="kooplearn_dirichlet"
        ) from error
    return GeneratorDirichlet


def _require(pencil: GalerkinPencil, kernel: Kernel, rank: int) -> float:
    """The number a of a problem that kooplearn can solve, an error for another."""
    name = "kooplearn's GeneratorDirichlet"
    if type(kernel) is not RBF:
        raise CapabilityError(f"{name} has one kernel", got=type(kernel).__name__, allowed="rbf")
    if pencil.centres is not None:
        raise CapabilityError(f"{name} takes the points themselves as centres", remedy="Take nystrom, or no centres.")
    if not pencil.has_draws:
        raise CapabilityError(f"{name} takes draws of the invariant density, not weights", remedy="Take dense.")
    a = pencil.diffusion.isotropic
    if a is None or a <= 0.0:
        raise CapabilityError(
            f"{name} takes a positive isotropic diffusion",
            got=pencil.diffusion.kind if a is None else a,
            remedy="Take dense or nystrom.",
        )
    if len(pencil.points) <= rank + _EXTRA:
        raise ParameterError(
            f"{name}: too few points for its rank", got=len(pencil.points), allowed=f"more than {rank + _EXTRA}"
        )
    if not pencil.reversible and not balanced(pencil, a):
        raise CapabilityError(
            f"{name} is for reversible generators: the moments of this drift deny detailed balance",
            remedy="Take dense, nystrom or krylov.",
        )
    return a


def balanced(pencil: GalerkinPencil, a: float) -> bool:
    """Whether E[x_s b_t] = -a delta_st holds to four standard errors for every s, t.

    So it is where b = a grad log q, the drift of detailed balance: necessary, not sufficient. Cost O(N d^2).
    """
    weights = pencil.weights[:, None]
    x = pencil.points - (weights * pencil.points).sum(0)
    products = pencil.drift.T @ (weights * x)  # (d, d)
    squares = pencil.drift.square().T @ (weights * x.square())
    variance = (squares - products.square()).clamp_min(0.0)
    error = (variance * pencil.weights.square().sum()).sqrt()  # of a mean of independent terms
    gap = (products + a * torch.eye(len(products)).to(products)).abs()
    return bool((gap <= _STANDARD_ERRORS * error.clamp_min(1e-12 * float(squares.max()) ** 0.5)).all())


def _sound(values: NDArray[Any], right: NDArray[Any]) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The pairs that are finite. Raises NumericalError when there are none."""
    finite = np.isfinite(values) & np.isfinite(right).all(0) & (np.abs(right).max(0) > 0)
    if not finite.any():
        raise NumericalError(
            "kooplearn's GeneratorDirichlet found no finite eigenpair",
            remedy="Raise alpha, or check the points: they may all be equal.",
        )
    return values[finite].astype(np.complex128), right[:, finite].astype(np.complex128)


def _turned(functions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (K,) that make each function (N, K) of norm 1 and its largest value positive; which are then real."""
    largest = functions.gather(0, functions.abs().argmax(0, keepdim=True))[0]
    norm = (weights[:, None] * functions.abs().square()).sum(0).sqrt()
    factors = largest.conj() / largest.abs() / norm
    turned = functions * factors
    return factors, turned.imag.abs().amax(0) <= 1e-6 * turned.abs().amax(0)
