"""The contract of eigensolvers: Ornstein-Uhlenbeck found, pairs biorthogonal, functions and images of one piece.

The problems are dx = -x dt + sqrt(2) dw on a quadrature grid in one dimension (eigenvalues -n), on 150 draws in two,
and a rotating one, dx = A x dt + sqrt(2) dw, A = [[-1, 2], [-2, -1]], whose leading pair is -1 +- 2i. What a law allows
is taken from the ``dense`` eigensolver on the same problem where the discretisation decides, and stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.eigenpairs import Eigenpairs, Eigensolver
from kfpbench.errors import KfpbenchError
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Kernel
from kfpbench.testing.contract import Contract, ContractError, NotApplicableError, remembered, require
from kfpbench.testing.differences import generator_by_differences, normal
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("eigensolvers")
_WANTED = 6
_MARGIN = 0.05  # beyond dense's own error: random features of a few hundred frequencies err by 1 / sqrt(400)
_ROUNDING = (
    1e-6  # of products of functions: eps times the condition of the solvers' bases, up to 1e6 by their truncation
)


def grid() -> GalerkinPencil:
    """The line from -5.5 to 5.5 in 120 nodes with the weights of the normal density."""
    x = torch.linspace(-5.5, 5.5, 120, dtype=torch.float64)[:, None]
    density = (-0.5 * x[:, 0].square()).exp()
    return GalerkinPencil(x, -x, Diffusion.constant(1.0), density / density.sum())


def draws() -> GalerkinPencil:
    """150 standard normal points of the plane."""
    x = normal((150, 2), 0)
    return GalerkinPencil.uniform(x, -x, Diffusion.constant(1.0))


def rotating() -> GalerkinPencil:
    """150 standard normal points of the plane, whose drift turns about the origin."""
    x = normal((150, 2), 1)
    return GalerkinPencil.uniform(x, x @ torch.tensor([[-1.0, 2.0], [-2.0, -1.0]]).double().T, Diffusion.constant(1.0))


PROBLEMS: dict[str, Callable[[], GalerkinPencil]] = {"grid": grid, "draws": draws, "rotating": rotating}


@CONTRACT
def returns_sorted_values(solver: Eigensolver) -> None:
    """Values are sorted by descending real part, one column of vectors and one flag each; the status is a known one."""
    for name in PROBLEMS:
        pairs = _pairs(solver, name)
        count, points = len(pairs.values), len(PROBLEMS[name]().points)
        require(count > 0, "no eigenvalue was found", got=pairs.diagnostics)
        require(pairs.values.is_complex(), "values are not complex", got=str(pairs.values.dtype))
        shapes = {
            "right": (pairs.basis.size, count),
            "adjoint": (pairs.basis.size, count),
            "on_points": (points, pairs.basis.size),
            "weights": (points,),
        }
        for part, shape in shapes.items():
            found = tuple(getattr(pairs, part).shape)
            require(found == shape, f"{part} has the wrong shape", got=found, allowed=shape)
        require(len(pairs.flags) == count, "not one flag for each value", got=len(pairs.flags), allowed=count)
        require(
            pairs.status in ("converged", "not converged"),
            "unknown status",
            got=pairs.status,
            allowed="converged, not converged",
        )
        real = pairs.values.real
        rounding = 1e-12 * float(pairs.values.abs().max())
        rises = torch.nonzero(real[1:] > real[:-1] + rounding).flatten()
        require(
            len(rises) == 0,
            f"values are not sorted by descending real part ({name})",
            got=[complex(value) for value in pairs.values[: _WANTED + 1].tolist()],
            remedy="Sort by kfpbench.eigensolvers.projection.order_of, and the vectors with the values.",
        )


@CONTRACT
def keeps_conjugate_pairs_together(solver: Eigensolver) -> None:
    """Conjugate values stand side by side, the one of positive imaginary part first."""
    values = [complex(value) for value in _pairs(solver, "rotating").values.tolist()]
    index = 0
    while index < len(values):
        value = values[index]
        if abs(value.imag) <= 1e-9 * (1.0 + abs(value)):
            index += 1
            continue
        mate = values[index + 1] if index + 1 < len(values) else None
        together = mate is not None and abs(mate - value.conjugate()) <= 1e-8 * (1.0 + abs(value))
        require(
            value.imag > 0 and together,
            "a conjugate pair is not side by side, positive imaginary part first",
            got=values[max(0, index - 1) : index + 3],
            remedy="Sort with kfpbench.eigensolvers.projection.order_of, and cut lists at whole pairs.",
        )
        index += 2


@CONTRACT
def finds_the_leading_values(solver: Eigensolver) -> None:
    """The slowest values are those of ``dense`` on the same points, to 5 %; on the grid 0, -1 and -2."""
    for name in PROBLEMS:
        found, reference = _pairs(solver, name), _dense(name)
        count = 3
        for k in range(count):
            wanted = complex(reference.values[k]) if name != "grid" else complex(-k)
            own = abs(complex(reference.values[k]) - wanted)
            sound = [complex(v) for v, flag in zip(found.values.tolist(), found.flags, strict=True) if not flag]
            gaps = [abs(value - wanted) for value in sound[: count + 2]]
            allowed = own + _MARGIN * max(1.0, abs(wanted))
            require(
                bool(gaps) and min(gaps) <= allowed,
                f"eigenvalue {k} of the Ornstein-Uhlenbeck process is missing ({name})",
                got=sound[: count + 2],
                allowed=f"a value within {allowed:.2g} of {wanted:.4g} among the first {count + 2} without a flag",
                remedy="Check the sign and scale of the generator, the weights, and that spurious modes are flagged.",
            )


@CONTRACT
def finds_the_constant_function(solver: Eigensolver) -> None:
    """One value is 0 to 1e-4, and its eigenfunction is constant to 1e-3."""
    pairs = _pairs(solver, "grid")
    place = int(pairs.values.abs().argmin())
    value = complex(pairs.values[place])
    function = pairs.eigenfunctions(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None])[:, place]
    spread = float((function - function.mean()).abs().max() / function.mean().abs())
    require(
        abs(value) <= 1e-4 and spread <= 1e-3,
        "no constant eigenfunction of eigenvalue 0",
        got=f"value {value:.3g}, relative spread {spread:.2e}",
        allowed="1e-4 and 1e-3",
        remedy="Append the constant function to the basis: a decaying kernel's RKHS lacks it.",
    )


@CONTRACT
def adjoints_are_biorthogonal(solver: Eigensolver) -> None:
    """sum_i W_i conj(psi_k(x_i)) phi_l(x_i) = delta_kl over the fitted points, to 1e-6 ||psi_k|| ||phi_l||."""
    _without_ridge(solver)
    for name in PROBLEMS:
        pairs = _pairs(solver, name).slowest(_WANTED)
        pencil = PROBLEMS[name]()
        right, adjoint = pairs.eigenfunctions(pencil.points), pairs.adjoint_functions(pencil.points)
        weights = pencil.weights[:, None]
        products = adjoint.mH @ (weights * right)
        sizes = (weights * adjoint.abs().square()).sum(0).sqrt()[:, None] * (weights * right.abs().square()).sum(
            0
        ).sqrt()
        gap = (products - torch.eye(len(products))).abs() / (1.0 + sizes)
        k, other = divmod(int(gap.argmax()), len(products))
        require(
            float(gap.max()) <= _ROUNDING,
            f"adjoint and right eigenfunctions are not biorthogonal ({name})",
            got=f"<psi_{k}, phi_{other}> = {complex(products[k, other]):.6g}",
            allowed=f"{int(k == other)} to {_ROUNDING:g} of the norms",
            remedy="Adjoint vectors are the conjugate transposed inverse of the right ones, not their transpose.",
        )


@CONTRACT
def values_belong_to_their_functions(solver: Eigensolver) -> None:
    """||L phi_k - lambda_k phi_k|| / ||phi_k|| on the grid is at most that of ``dense`` plus 5 % of 1 + |lambda_k|."""
    pencil = grid()
    reference = _defects(_dense("grid"), pencil)[:3].max()
    pairs = _pairs(solver, "grid").slowest(3)
    for k, defect in enumerate(_defects(pairs, pencil).tolist()):
        value = complex(pairs.values[k])
        allowed = float(reference) + 3.0 * _MARGIN * (1.0 + abs(value))
        require(
            defect <= allowed,
            "an eigenfunction does not satisfy L phi = lambda phi with its value",
            got=f"a residual of {defect:.3g} for {value:.4g}",
            allowed=f"{allowed:.2g}",
            remedy="Check that vectors are sorted with their values, and that they are in the basis's coordinates.",
        )


@CONTRACT
def images_are_those_of_the_functions(solver: Eigensolver) -> None:
    """``generator_images`` at new points are L applied to ``eigenfunctions`` by finite differences, to 1e-4."""
    for name in ("grid", "draws"):
        pairs = _pairs(solver, name).slowest(4)
        dimension = pairs_dimension(name)
        x = 0.7 * normal((7, dimension), 2)
        pencil = GalerkinPencil.uniform(x, normal((7, dimension), 3), Diffusion.constant(0.6))
        exact = generator_by_differences(pairs.eigenfunctions, x, pencil.drift, pencil.diffusion, 0.05)
        images = pairs.generator_images(pencil)
        scale = float(exact.abs().max()) + float(pairs.eigenfunctions(x).abs().max())
        gap = float((images - exact).abs().max())
        require(
            gap <= 1e-4 * scale,
            "the basis's images are not those of its functions",
            got=f"an error of {gap:.2e}",
            allowed=f"{1e-4 * scale:.1e}",
            remedy="Check `images` of the basis against `features`: drift, diffusion, and factors of 2.",
        )


@CONTRACT
def functions_take_new_points(solver: Eigensolver) -> None:
    """Eigenfunctions and adjoints are finite (n, K) arrays at points that were not fitted, one point included."""
    for name in ("grid", "draws"):
        pairs = _pairs(solver, name)
        for n in (1, 9):
            x = normal((n, pairs_dimension(name)), 4)
            for what, found in (("eigenfunctions", pairs.eigenfunctions(x)), ("adjoints", pairs.adjoint_functions(x))):
                shape = (n, len(pairs.values))
                require(tuple(found.shape) == shape, f"{what} have the wrong shape", got=found.shape, allowed=shape)
                require(bool(torch.isfinite(found.abs()).all()), f"{what} are not finite at new points")


@CONTRACT
def coefficients_are_products_with_the_adjoints(solver: Eigensolver) -> None:
    """``on_points`` holds the basis at the fitted points, and <psi_k, u> = sum_i W_i conj(psi_k(x_i)) u(x_i)."""
    pencil, pairs = draws(), _pairs(solver, "draws").slowest(_WANTED)
    features = pairs.basis.features(pencil.points)
    gap = float((features - pairs.on_points).abs().max())
    largest = float(pairs.on_points.abs().max())
    require(gap <= _ROUNDING * largest, "on_points is not the basis at the fitted points", got=gap)
    observable = torch.cat([pencil.points, pencil.points.square()], dim=1)
    adjoint = pairs.adjoint_functions(pencil.points)
    exact = adjoint.mH @ (pencil.weights[:, None] * observable).to(adjoint.dtype)
    gap, scale = float((pairs.coefficients(observable) - exact).abs().max()), 1.0 + float(exact.abs().max())
    require(gap <= _ROUNDING * scale, "coefficients are not products with the adjoint functions", got=gap)


@CONTRACT
def leaves_its_arguments_alone(solver: Eigensolver) -> None:
    """``solve`` changes neither the pencil nor the kernel nor the solver."""
    pencil, kernel = draws(), RBF()
    parts = {name: getattr(pencil, name).clone() for name in ("points", "drift", "weights")}
    before_kernel, before_solver = snapshot(kernel), snapshot(solver)
    solver.solve(pencil, kernel, DenseGram(), _WANTED)
    for name, part in parts.items():
        require(torch.equal(getattr(pencil, name), part), f"solve changes the pencil's {name}")
    altered = changed(before_kernel, kernel)
    remedy = "Use what `kernel.fit(pencil.points)` returns."
    require(not altered, "solve changes the kernel", got=", ".join(altered), remedy=remedy)
    altered = changed(before_solver, solver)
    require(not altered, "solve changes the solver", got=", ".join(altered), remedy="Return state in diagnostics.")


@CONTRACT
def is_deterministic(solver: Eigensolver) -> None:
    """Two solutions of one problem have the same values, to 1e-7: an iteration to convergence may start anywhere."""
    one, other = _pairs(solver, "draws"), _solve(solver, draws())
    same = one.values.shape == other.values.shape and torch.allclose(one.values, other.values, rtol=1e-7, atol=1e-7)
    remedy = "Draw from a generator with the solver's own seed."
    got = [one.values[:4].tolist(), other.values[:4].tolist()]
    require(same, "two solutions of one problem differ", got=got, remedy=remedy)


@CONTRACT
def solves_reversible_problems(solver: Eigensolver) -> None:
    """With ``reversible`` the values are real and not positive, and -1 is found on the grid as by ``dense``, to 5 %."""
    pencil = replace(grid(), reversible=True)
    values = _solve(solver, pencil).values
    worst = float(values.imag.abs().max())
    require(worst <= 1e-8, "a reversible operator has complex values", got=worst, allowed="imaginary parts of 0")
    require(
        float(values.real.max()) <= 1e-6, "a reversible operator has a positive value", got=float(values.real.max())
    )
    own = float((_solve(DenseEigensolver(), pencil).values + 1.0).abs().min())
    error = float((values + 1.0).abs().min())
    require(
        error <= own + _MARGIN, "the value -1 is missing for a reversible operator", got=error, allowed=own + _MARGIN
    )


@CONTRACT
def refuses_bad_input(solver: Eigensolver) -> None:
    """One point, a constant kernel, a kernel that is NaN, and one too rough raise errors of kfpbench."""
    pencil = draws()
    one = GalerkinPencil.uniform(pencil.points[:1], pencil.drift[:1], pencil.diffusion)
    rough: Any = Matern32(bandwidth=1.0)
    attempts: dict[str, tuple[GalerkinPencil, Kernel]] = {
        "one point": (one, RBF(bandwidth=1.0)),
        "a constant kernel": (pencil, _Constant(1.0)),
        "a kernel that is not a number": (pencil, _Constant(math.nan)),
        "a kernel with one derivative and a diffusion": (pencil, rough),
    }
    for what, (problem, kernel) in attempts.items():
        try:
            found = solver.solve(problem, kernel, DenseGram(), _WANTED)
        except KfpbenchError:
            continue
        except Exception as error:  # a stranger's solver may fail in any way
            raise ContractError(
                f"{what}: no typed error",
                got=f"{type(error).__name__}: {error}",
                allowed="an error of kfpbench.errors that says what to do",
                remedy="Check the input, and turn errors of LAPACK into NumericalError.",
            ) from error
        raise ContractError(
            f"{what}: not refused",
            got=found.values[:4].tolist(),
            allowed="NumericalError or CapabilityError",
            remedy="Call pencil.require_smooth(kernel), and check that the Gram matrix is finite and not constant.",
        )


@CONTRACT
def predicts_its_working_memory(solver: Eigensolver) -> None:
    """``working_memory`` is a positive whole number of bytes, for a few pairs and for all."""
    for n_eigs in (None, 6):
        found: Any = solver.working_memory(1000, 3, n_eigs, 8, DenseGram())
        require(
            isinstance(found, int) and not isinstance(found, bool) and found > 0,
            "working_memory is not a positive whole number of bytes",
            got=found,
            allowed="an int above 0",
        )


class _Constant:
    """k(x, y) = c: an RKHS of constants."""

    smoothness = math.inf

    def __init__(self, level: float) -> None:
        self.level = level

    def fit(self, points: Tensor) -> _Constant:
        return self

    def profile(self, squared_distance: Any) -> tuple[Any, Any, Any]:
        zero = squared_distance * 0.0
        return zero + self.level, zero, zero

    def describe(self) -> dict[str, Any]:
        return {"level": self.level}


def pairs_dimension(name: str) -> int:
    """The number of coordinates of a problem."""
    return int(PROBLEMS[name]().points.shape[1])


def _solve(solver: Eigensolver, pencil: GalerkinPencil) -> Eigenpairs:
    pairs = solver.solve(pencil, RBF(), DenseGram(), _WANTED)
    require(isinstance(pairs, Eigenpairs), "solve returns no Eigenpairs", got=type(pairs).__name__)
    return pairs


def _pairs(solver: Eigensolver, name: str) -> Eigenpairs:
    found: Eigenpairs = remembered(solver, name, lambda: _solve(solver, PROBLEMS[name]()))
    return found


_DENSE = DenseEigensolver()


def _dense(name: str) -> Eigenpairs:
    return _pairs(_DENSE, name)


def _defects(pairs: Eigenpairs, pencil: GalerkinPencil) -> Tensor:
    functions, weights = pairs.eigenfunctions(pencil.points), pencil.weights[:, None]
    defect = pairs.generator_images(pencil) - functions * pairs.values
    return ((weights * defect.abs().square()).sum(0) / (weights * functions.abs().square()).sum(0)).sqrt()


def _without_ridge(solver: Eigensolver) -> None:
    if getattr(solver, "ridge", 0.0):
        raise NotApplicableError("the solver's ridge is part of its inner product")
