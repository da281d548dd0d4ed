"""Krylov eigensolver: the slowest eigenpairs of the generator from products with its Gram matrices alone."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.eigensolvers.block_davidson import RitzVectors, davidson, matched
from kfpbench.eigensolvers.centres import uniform_centres
from kfpbench.eigensolvers.collocation import DampedCollocation
from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.nystrom_preconditioner import NystromPreconditioner, nearest
from kfpbench.eigensolvers.projection import order_of
from kfpbench.eigensolvers.shift_invert import ShiftInvert, arpack_vectors
from kfpbench.eigensolvers.spanned_sections import spanned_sections
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel

Method = Literal["auto", "block", "arpack"]
_BASIS_FACTOR = 6  # columns of the search spaces before a restart, per pair wanted


class Krylov:
    """L phi = lambda phi collocated at all N points, phi = c + sum_j alpha_j k(., x_j), never an N x N array.

    The problem is that of ``dense`` with centres = points, in the form of ``DampedCollocation``; the pairs sought are
    those nearest to a small positive shift, which plain Krylov iterations find last.

    ``count``: how many pairs when the caller does not say; ``damping`` tau sets the regularisation, a penalty
    kappa |phi|_H^2 on the RKHS energy with kappa = tau x max Lam x typical rate: functions of strength below about
    tau max Lam are damped away, as ``truncation`` does in other solvers, but smoothly and without finding them; a value
    is changed by about tau max Lam / Lam_k relative to the typical rate, and there are no spurious slow modes, which
    the usual ridge invents. ``shift`` sigma, in units of the typical rate (see ``NystromPreconditioner``).
    ``tolerance`` bounds the residuals ||A u - lambda B u|| / (|lambda| ||B u||) of right and left vectors, hence, times
    the condition number, the relative error of values. ``max_iterations`` bounds the outer iterations on either side
    (ARPACK's restarts). ``preconditioner_centres`` M and ``seed``: sections of M random points make the preconditioner,
    which is good when M exceeds the number of functions of strength above tau max Lam.

    ``method``: ``block``, the block Davidson iteration in torch, two passes over the kernel a step for all pairs;
    ``arpack``, SciPy's shift-invert Arnoldi with inner GMRES to ``inner_tolerance`` within ``inner_iterations``, one
    vector at a time, on the CPU; ``auto`` is ``block``, which takes far fewer passes over the kernel.

    Non-convergence is ``status`` "not converged" and a flag on each pair whose residual exceeds the tolerance. Cost
    O(passes x N^2 d + N M^2 + M^3); memory linear in N: 2 N M, 3 x 8 count x N, and the backend's own. Sources: Klus,
    Nueske, Hamzi, Entropy 22(7):722 (2020), sec. 3, for the problem; the parts name theirs. Raises CapabilityError for
    a kernel too rough, a reversible pencil or one with centres of its own; NumericalError for a kernel that is constant
    or not finite on the points.
    """

    partial: ClassVar[bool] = True

    def __init__(
        self,
        count: Annotated[int, Field(ge=1)] = 12,
        damping: Annotated[float, Field(gt=0, lt=1)] = 1e-6,
        shift: Annotated[float, Field(gt=0)] = 0.05,
        tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4,
        max_iterations: Annotated[int, Field(ge=1)] = 40,
        preconditioner_centres: Annotated[int, Field(ge=1)] = 1000,
        method: Method = "auto",
        inner_tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-8,
        inner_iterations: Annotated[int, Field(ge=1)] = 60,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        whole = {
            "count": count,
            "max_iterations": max_iterations,
            "preconditioner_centres": preconditioner_centres,
            "inner_iterations": inner_iterations,
        }
        for name, value in whole.items():
            if value < 1:
                raise ParameterError(f"Krylov: {name} must be positive", got=value, allowed="1 and more")
        for name, share in {"damping": damping, "tolerance": tolerance, "inner_tolerance": inner_tolerance}.items():
            if not 0 < share < 1:
                raise ParameterError(f"Krylov: bad {name}", got=share, allowed="between 0 and 1")
        if not 0 < shift < float("inf"):
            raise ParameterError("Krylov: the shift must be positive", got=shift)
        if method not in ("auto", "block", "arpack"):
            raise ParameterError("Krylov: bad method", got=method, allowed="auto, block, arpack")
        if seed < 0:
            raise ParameterError("Krylov: the seed must not be negative", got=seed)
        self.count, self.damping, self.shift, self.tolerance = count, float(damping), float(shift), float(tolerance)
        self.max_iterations, self.preconditioner_centres = max_iterations, preconditioner_centres
        self.method, self.seed = method, seed
        self.inner_tolerance, self.inner_iterations = float(inner_tolerance), inner_iterations

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """The ``n_eigs`` (None: ``count``) eigenpairs nearest to the shift; the kernel is fitted first."""
        self._require(pencil)
        pencil.require_smooth(kernel)
        kernel = kernel.fit(pencil.bulk)
        wanted = self.count if n_eigs is None else n_eigs
        guard = max(2, wanted // 4)
        chosen = uniform_centres(pencil.points, self.preconditioner_centres, self.seed)
        preconditioner = NystromPreconditioner(pencil, kernel, backend, pencil.points[chosen], self.damping, self.shift)
        operator = DampedCollocation(pencil, kernel, backend, preconditioner.kappa)
        details: dict[str, Any] = {
            "method": "block" if self.method == "auto" else self.method,
            "kernel": kernel.describe(),
            "points": len(pencil.points),
            "preconditioner_rank": preconditioner.rank,
            "damping": preconditioner.kappa,
            "shift": preconditioner.sigma,
        }
        right, left, iterations = self._iterate(operator, preconditioner, wanted, guard, details)
        return self._eigenpairs(
            pencil, kernel, backend, operator, preconditioner, (right, left), wanted, iterations, details
        )

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes: the preconditioner as it is made, the search spaces, the eigenfunctions, linear in the points; and
        what the backend takes for K and the generator's Gram matrix.
        """
        wanted = self.count if n_eigs is None else n_eigs
        wanted += max(2, wanted // 4)
        centres = min(self.preconditioner_centres, points)
        own = (
            5 * points * centres + 12 * centres**2 + (4 * _BASIS_FACTOR + 24) * wanted * points + 4 * points * dimension
        )
        return itemsize * own + 2 * backend.working_memory(points, points, dimension, wanted, itemsize)

    def _require(self, pencil: GalerkinPencil) -> None:
        if pencil.reversible:
            raise CapabilityError(
                "krylov solves the strong form at the points: the symmetric Dirichlet form is a product of d Gram"
                " matrices of slopes, which the backends do not make",
                remedy="Take dense, nystrom or randomized, or reversible=False.",
            )
        if pencil.centres is not None:
            raise CapabilityError(
                "krylov takes the points themselves as centres",
                got=f"{len(pencil.centres)} other centres",
                remedy="Take nystrom or dense, or no centres.",
            )

    def _iterate(
        self,
        operator: DampedCollocation,
        preconditioner: NystromPreconditioner,
        wanted: int,
        guard: int,
        details: dict[str, Any],
    ) -> tuple[RitzVectors, RitzVectors, int]:
        """Right and left vectors, and the outer iterations."""
        basis = _BASIS_FACTOR * (wanted + guard)

        def iterate(side: int, start: Tensor, steps: int) -> RitzVectors:
            generator = (operator.generator, operator.generator_transposed)[side]
            solve = (preconditioner.solve, preconditioner.solve_transposed)[side]
            return davidson(
                generator,
                operator.mass,
                solve,
                start,
                preconditioner.sigma,
                wanted,
                guard,
                self.tolerance,
                steps,
                basis,
            )

        start = preconditioner.start(wanted + guard)
        if self.method == "arpack":
            inverse = ShiftInvert(operator, preconditioner, self.inner_tolerance, self.inner_iterations)
            columns = arpack_vectors(inverse, start, wanted + guard, self.tolerance, self.max_iterations)
            details |= {"inner_iterations": inverse.inner_iterations, "inner_failures": inverse.failures}
            iterations = inverse.solves
        else:
            found = [iterate(side, start[side], self.max_iterations) for side in (0, 1)]
            columns = (found[0].columns, found[1].columns)
            iterations = found[0].iterations + found[1].iterations
        right, left = (iterate(side, columns[side], 0) for side in (0, 1))  # residuals of fresh products
        return right, left, iterations

    def _eigenpairs(
        self,
        pencil: GalerkinPencil,
        kernel: Kernel,
        backend: Backend,
        operator: DampedCollocation,
        preconditioner: NystromPreconditioner,
        sides: tuple[RitzVectors, RitzVectors],
        wanted: int,
        iterations: int,
        details: dict[str, Any],
    ) -> Eigenpairs:
        """The first ``wanted`` pairs, sorted, as combinations of kernel sections, with what is known about them."""
        right, left = sides
        chosen = nearest(right.values, preconditioner.sigma, wanted)
        chosen = [chosen[index] for index in order_of(right.values[chosen])]
        mates = matched(right.values[chosen], left.values.conj())
        chosen = chosen[: len(mates)]
        values, mate_values = right.values[chosen], left.values[mates].conj()
        residuals = torch.maximum(right.residuals[chosen], left.residuals[mates])
        apart = (values - mate_values).abs() / values.abs().clamp_min(preconditioner.sigma)
        spanned = spanned_sections(
            pencil, kernel, backend, operator, preconditioner, right.take(chosen), left.take(mates)
        )
        flags = tuple(
            f"not converged: residual {residual:.1e} of the damped problem exceeds {self.tolerance:g}"
            if not residual <= self.tolerance
            else ""
            for residual in residuals.tolist()
        )
        missing = wanted - len(values)
        details |= {
            "residuals": residuals.tolist(),
            "left_right_mismatch": float(apart.max()) if len(apart) else 0.0,
            "kernel_passes": operator.passes,
            "kernel_columns": operator.columns,
            "memory": self.working_memory(
                len(pencil.points), pencil.points.shape[1], wanted, values.real.itemsize, backend
            ),
            **spanned.diagnostics,
            **preconditioner.diagnostics,
            **({"missing": f"{missing} of {wanted} eigenpairs do not exist or were not found"} if missing > 0 else {}),
        }
        return Eigenpairs(
            values,
            spanned.right,
            spanned.adjoint,
            spanned.basis,
            spanned.on_points,
            pencil.weights,
            flags,
            status="not converged" if any(flags) or missing > 0 else "converged",
            iterations=iterations,
            diagnostics=details,
        )
