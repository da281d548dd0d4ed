"""KeOps Gram backend: products as symbolic reductions in compiled code, without any block in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.kernels.jet import Argument, InnerProduct, SquaredDistance, has_formula, jet_kernel, same_argument
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import (
    chain_rule,
    check_shapes,
    generator_block,
    generator_diagonal,
    gradient_parts,
    kernel_block,
    kernel_diagonal,
    require_jet,
    times_metric,
)
from kfpbench.protocols import Kernel

_COLUMNS = (1, 8, 32)  # the widths that are compiled; others are padded with zeros, or cut
_TILE = 2048  # rows of the blocks from which to_dense is put together
_REMEDY = "Install pykeops and a C++ compiler (g++, or CXX), or take the backend tiled."
_CACHE_REMEDY = (
    _REMEDY + " A compilation that was interrupted leaves a broken library: pykeops.clean_pykeops() empties the cache."
)


def require_keops() -> Any:
    """The module pykeops.torch, silent unless KEOPS_VERBOSE asks for its messages.

    Raises CapabilityError when it cannot be imported.
    """
    # Both are read when the packages are first imported; pykeops sets the second one too late for keopscore.
    os.environ.setdefault("PYKEOPS_VERBOSE", os.environ.get("KEOPS_VERBOSE", "0"))
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    try:
        import pykeops.torch
    except (ImportError, OSError, ValueError) as error:  # KeOps reports broken installations as ValueError
        raise CapabilityError("the backend keops cannot import pykeops", got=str(error), remedy=_REMEDY) from error
    return pykeops.torch


def can_compile() -> bool:
    """Whether pykeops can be imported and finds a C++ compiler; nothing is compiled."""
    try:
        require_keops()
    except CapabilityError:
        return False
    from keopscore.config import get_config

    return get_config().get_cxx_compiler() is not None


class KeopsMatrix:
    """A matrix (n, M) known by a formula of (x_i, c_j), which KeOps reduces over j, or over i for the transpose.

    Columns are taken 1, 8 or 32 at a time, the last ones padded with zeros: each width is a formula of its own to the
    compiler. Rows, diagonal and blocks are computed by torch from the same jets.
    """

    backend_name = "keops"

    def __init__(
        self,
        kernel: Kernel,
        x: Tensor,
        centres: Tensor,
        drift: Tensor | None = None,
        diffusion: Diffusion | None = None,
    ) -> None:
        self.shape = (len(x), len(centres))
        self._kernel, self._x, self._centres = kernel, x, centres
        self._drift = drift
        self._diffusion = None if diffusion is None else diffusion.to(x)
        self._formula: Any = None
        self._compiled: set[tuple[int, int]] = set()

    def matmul(self, right: Tensor) -> Tensor:
        """Matrix times right (M, p) -> (n, p). Cost O(n M (d + p)), and a compilation when the formula is new."""
        return self._reduce(right, axis=1)

    def transpose_matmul(self, left: Tensor) -> Tensor:
        """Transposed matrix times left (n, p) -> (M, p), at the cost of ``matmul``."""
        return self._reduce(left, axis=0)

    def rows(self, indices: Tensor) -> Tensor:
        """Some rows, (m, M). Cost O(m M d)."""
        return self._block(indices)

    def diagonal(self) -> Tensor:
        """The diagonal (n,) of a square matrix. Cost O(n d)."""
        if self._drift is None or self._diffusion is None:
            return kernel_diagonal(self._kernel, self._x, self._centres)
        return generator_diagonal(self._kernel, self._x, self._centres, self._drift, self._diffusion)

    def to_dense(self) -> Tensor:
        """The whole matrix, for solvers that need it: O(n M) memory after all."""
        result = self._x.new_empty(self.shape)
        for start in range(0, self.shape[0], _TILE):
            rows = slice(start, start + _TILE)
            result[rows] = self._block(rows)
        return result

    def warm_up(self, columns: int = 1) -> None:
        """Compile what ``matmul`` and ``transpose_matmul`` with p = ``columns`` need; no product is taken."""
        if 0 not in self.shape:
            for width in set(_widths(columns)):
                self._compile(width, 0)
                self._compile(width, 1)

    def _block(self, rows: slice | Tensor) -> Tensor:
        if self._drift is None or self._diffusion is None:
            return kernel_block(self._kernel, self._x[rows], self._centres)
        return generator_block(
            self._kernel, self._x[rows], self._centres, self._drift[rows], self._diffusion.rows(rows)
        )

    def _reduce(self, operand: Tensor, axis: int) -> Tensor:
        """Sum over ``axis`` (0: i, 1: j) of the formula times operand (that axis' length, p)."""
        length, count = self.shape[1 - axis], operand.shape[1]
        result = operand.new_zeros((length, count))
        if 0 in self.shape or count == 0:
            return result
        if self._formula is None:
            self._formula = _formula(self._kernel, self._x, self._centres, self._drift, self._diffusion)
        start = 0
        for width in _widths(count):
            self._compile(width, axis)
            part = operand[:, start : start + width]
            if part.shape[1] < width:
                part = torch.nn.functional.pad(part, (0, width - part.shape[1]))
            result[:, start : start + width] = _sum(self._formula, part, axis)[:, : count - start]
            start += width
        return result

    def _compile(self, width: int, axis: int) -> None:
        """Have a product compiled, once, on one point and one centre, while other processes wait: KeOps' cache on disk
        lets a process load what another has not yet written to its end.
        """
        if (width, axis) in self._compiled:
            return
        point = 0
        if self._diffusion is not None and self._diffusion.pointwise:
            # a point that diffuses, if any does: the formula of a first-order operator is another one
            point = int(self._diffusion.values.reshape(self.shape[0], -1).abs().sum(1).argmax())
        few = slice(point, point + 1)
        drift = None if self._drift is None else self._drift[few]
        diffusion = None if self._diffusion is None else self._diffusion.rows(few)
        with _one_process_at_a_time():
            formula = _formula(self._kernel, self._x[few], self._centres[:1], drift, diffusion)
            _sum(formula, self._x.new_zeros((1, width)), axis)
        self._compiled.add((width, axis))


class KeopsGram:
    """Products by KeOps: O(n M (d + p)) time a product with p columns, O((n + M)(d + p)) memory, on CPU and CUDA.

    The formula is built from the kernel's own jet, on symbolic arguments. KeOps compiles about 10 s of processor time
    for a formula when it meets it first, and keeps the result on disk (KEOPS_CACHE_FOLDER, else ~/.cache); bandwidths
    and other parameters are not part of a formula, but the dimension, dtype, and kind of diffusion are. ``warm_up``
    keeps compilation out of timings. Source: Charlier, Feydy, Glaunes, Collin, Durif, "Kernel Operations on the GPU,
    with Autodiff, without Memory Overflows", JMLR 22(74), 2021. Raises CapabilityError for a kernel without a formula,
    and where pykeops cannot be imported or finds no compiler.
    """

    lazy = True

    def gram(self, kernel: Kernel, x: Tensor, centres: Tensor) -> KeopsMatrix:
        """k(x_i, c_j). Raises ShapeError and CapabilityError."""
        check_shapes(x, centres)
        _require_formula(kernel)
        require_keops()
        return KeopsMatrix(kernel, x, centres)

    def generator_gram(
        self, kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion
    ) -> KeopsMatrix:
        """(L k(., c_j))(x_i). Raises ShapeError and CapabilityError."""
        check_shapes(x, centres, drift, diffusion)
        _require_formula(kernel)
        require_keops()
        return KeopsMatrix(kernel, x, centres, drift, diffusion)

    def warm_up(
        self,
        kernel: Kernel,
        x: Tensor,
        centres: Tensor,
        drift: Tensor | None = None,
        diffusion: Diffusion | None = None,
        columns: int = 1,
    ) -> None:
        """Compile the products with (M, columns) of the Gram matrix, or of the generator's when a drift is given."""
        if drift is None or diffusion is None:
            self.gram(kernel, x, centres).warm_up(columns)
        else:
            self.generator_gram(kernel, x, centres, drift, diffusion).warm_up(columns)

    def working_memory(self, n: int, centres: int, dimension: int, columns: int, itemsize: int) -> int:
        """Bytes: centred points, gradients and drift (for a kernel of up to two metrics), and 32 padded columns."""
        return itemsize * (n + centres) * (8 * dimension + 3 * min(columns + 31, 2 * _COLUMNS[-1]))


def _require_formula(kernel: Kernel) -> None:
    if not has_formula(kernel):
        raise CapabilityError(
            "the backend keops needs a kernel with a formula",
            got=type(kernel).__name__,
            allowed="a kernel with `profile`, or with `arguments` and `jet`",
            remedy="Take the backend tiled, which works on the kernel's blocks.",
        )


def _widths(columns: int) -> list[int]:
    """How many columns are taken at a time: 32 while there are more than 8 left, at last 8 or 1."""
    widths = []
    while columns > 0:
        widths.append(next((width for width in _COLUMNS if width >= columns), _COLUMNS[-1]))
        columns -= widths[-1]
    return widths


def _symbol(rows: Tensor, axis: int) -> Any:
    """Rows (m, e) as the vectors of index i (axis 0) or j (axis 1)."""
    return require_keops().LazyTensor(rows.contiguous(), axis=axis)  # the axis is said: one row alone does not tell


def _sum(formula: Any, operand: Tensor, axis: int) -> Tensor:
    """Formula times operand, summed over ``axis``, on the operand's device. Raises CapabilityError."""
    backend = "GPU" if operand.is_cuda else "CPU"
    try:
        sums: Tensor = (formula * _symbol(operand, axis)).sum(dim=axis, backend=backend)
    except (ImportError, OSError) as error:
        raise CapabilityError(
            "KeOps could not compile or load a formula", got=str(error), remedy=_CACHE_REMEDY
        ) from error
    return sums


@contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """Hold a lock in KeOps' cache folder; the system frees it when a process dies. KeOps runs on POSIX systems only."""
    import fcntl

    import pykeops

    folder = Path(pykeops.get_build_folder())
    with (folder / "kfpbench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for library in folder.glob("pykeops_cpp_*.so"):
            if library.stat().st_size == 0:  # left by a compilation that was killed: KeOps would load it for ever
                library.unlink()
        yield


def _argument(argument: Argument, x: Tensor, centres: Tensor) -> tuple[Any, Any]:
    """z(x_i, c_j) and its gradient in x, symbolic."""
    first, second = gradient_parts(argument, x, centres)
    gradient = _symbol(second, 1) if first is None else _symbol(first, 0) + _symbol(second, 1)
    if isinstance(argument, InnerProduct):
        return (_symbol(x, 0) | gradient), gradient
    if argument.metric is None:
        return (gradient**2).sum(-1) * 0.25, gradient
    root, origin = argument.root, centres.mean(dim=0)
    difference = _symbol(times_metric(x - origin, root), 0) - _symbol(times_metric(centres - origin, root), 1)
    return (difference**2).sum(-1), gradient


def _flow(argument: Argument, gradient: Any, x: Tensor, centres: Tensor, diffusion: Diffusion) -> Any:
    """a grad z, symbolic; a constant matrix acts on both parts of the gradient beforehand."""
    if diffusion.pointwise:
        if diffusion.kind == "matrix":
            return _symbol(diffusion.values.flatten(1), 0).matvecmult(gradient)
        return _symbol(diffusion.values.reshape(len(x), -1), 0) * gradient
    if diffusion.kind == "scalar":
        return gradient * float(diffusion.values)
    first, second = gradient_parts(argument, x, centres)
    flow = _symbol(diffusion.apply(second), 1)
    return flow if first is None else _symbol(diffusion.apply(first), 0) + flow


def _formula(kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor | None, diffusion: Diffusion | None) -> Any:
    """k(x_i, c_j), or (L k(., c_j))(x_i) when a drift and a diffusion are given, as a scalar LazyTensor."""
    formula = jet_kernel(kernel)
    arguments = formula.arguments()
    values, gradients = zip(*[_argument(argument, x, centres) for argument in arguments], strict=True)
    jet = formula.jet(*values)
    if drift is None or diffusion is None:
        return jet.value
    first_order = diffusion.is_zero
    require_jet(kernel, jet, first_order)
    b = _symbol(drift, 0)
    images = {index: (b | gradients[index]) for index in jet.first}
    if first_order or jet.second is None:
        return chain_rule(jet, images, {})
    for index in images:
        if isinstance(arguments[index], SquaredDistance):
            trace = 2.0 * diffusion.trace(arguments[index].metric, x.shape[1])  # tr(a Hess z)
            images[index] = images[index] + (_symbol(trace[:, None], 0) if diffusion.pointwise else float(trace))
    gammas = {}
    for one, other in jet.second:
        argument = arguments[other]
        if one == other and diffusion.kind == "scalar" and same_argument(argument, SquaredDistance()):
            gammas[one, other] = values[one] * _scalar(diffusion, 4.0)  # 4 a |x - c|^2: no further sum over axes
        else:
            gammas[one, other] = gradients[one] | _flow(argument, gradients[other], x, centres, diffusion)
    return chain_rule(jet, images, gammas)


def _scalar(diffusion: Diffusion, factor: float) -> Any:
    """A multiple of a scalar diffusion: a number, or symbolic."""
    scaled = factor * diffusion.values
    return _symbol(scaled[:, None], 0) if diffusion.pointwise else float(scaled)
