"""The contract of backends: Gram operators that are the matrices of the formula, whatever they keep in memory.

Values are compared with the closed forms of a Gaussian and a quadratic kernel, written out here at differences of
points: 1e-9 of the largest entry is allowed, where centred products of points of unit scale lose about 1e-14.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import Backend, GramOperator, Kernel
from kfpbench.testing.contract import Contract, ContractError, NotApplicableError, require
from kfpbench.testing.differences import diffusions, normal
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("backends")
_LENGTH, _OFFSET = 1.3, 0.8
_FORMS = tuple(diffusions(2, 1))


class _Allocations(TorchDispatchMode):
    """The largest tensor that torch makes while the mode is on."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor):
                self.largest = max(self.largest, made.numel())
        return result


@CONTRACT
def says_whether_it_is_lazy(backend: Backend) -> None:
    """``lazy`` is True or False."""
    require(isinstance(backend.lazy, bool), "lazy is not a boolean", got=backend.lazy, allowed="True, False")


@CONTRACT
def gram_matches_the_formula(backend: Backend) -> None:
    """Products, transposed products, rows and the dense form of ``gram`` are those of k(x_i, c_j); n is not M."""
    for n, m in ((23, 9), (9, 23)):
        x, centres = normal((n, 3), 0), normal((m, 3), 1)
        _compare(backend.gram(RBF(bandwidth=_LENGTH), x, centres), _gaussian(x, centres), "gram")


def _check_form(backend: Backend, form: str) -> None:
    n, m, dimension = 17, 11, 3
    x, centres, drift = normal((n, dimension), 2), normal((m, dimension), 3), normal((n, dimension), 4)
    diffusion = diffusions(dimension, n)[form]
    operator = backend.generator_gram(RBF(bandwidth=_LENGTH), x, centres, drift, diffusion)
    exact = _gaussian_image(x, centres, drift, diffusion)
    if form != "none" and _agrees(operator, _gaussian_image(x, centres, torch.zeros_like(drift), diffusion)):
        raise ContractError("generator_gram leaves out the drift", remedy="Add b . grad k to the image.")
    if form != "none" and _agrees(operator, _gaussian_image(x, centres, drift, diffusions(dimension, n)["none"])):
        raise ContractError("generator_gram leaves out the diffusion", remedy="Add tr(a Hess k) to the image.")
    _compare(operator, exact, f"generator_gram for a diffusion of the form '{form}'")


for _form in _FORMS:
    CONTRACT.add(
        f"generator_gram_matches_the_formula[{_form}]",
        f"generator_gram is b . grad k + tr(a Hess k) of a Gaussian kernel for a diffusion of the form '{_form}'.",
        functools.partial(_check_form, form=_form),
    )


@CONTRACT
def takes_kernels_of_inner_products(backend: Backend) -> None:
    """A kernel with ``arguments`` and ``jet``, here a quadratic one, has the Gram matrices of its formula."""
    x, centres, drift = normal((13, 2), 5), normal((7, 2), 6), normal((13, 2), 7)
    kernel = Polynomial(degree=2, offset=_OFFSET, length=_LENGTH)
    base = _OFFSET + x @ centres.T / _LENGTH**2
    _compare(backend.gram(kernel, x, centres), base**2, "gram of a quadratic kernel")
    diffusion = diffusions(2, 13)["matrix"]
    moved = centres @ diffusion.values
    image = 2.0 * base * (drift @ centres.T) / _LENGTH**2 + 2.0 * (moved * centres).sum(1) / _LENGTH**4
    operator = backend.generator_gram(kernel, x, centres, drift, diffusion)
    _compare(operator, image, "generator_gram of a quadratic kernel")


@CONTRACT
def takes_kernels_without_a_formula(backend: Backend) -> None:
    """A kernel that computes its own blocks has the Gram matrices of its blocks, or is refused by CapabilityError."""
    x, centres, drift = normal((13, 2), 8), normal((7, 2), 9), normal((13, 2), 10)
    diffusion, kernel = diffusions(2, 13)["diagonal at points"], _Blocks()
    _compare(backend.gram(kernel, x, centres), _gaussian(x, centres), "gram of a block kernel")
    operator = backend.generator_gram(kernel, x, centres, drift, diffusion)
    _compare(operator, _gaussian_image(x, centres, drift, diffusion), "generator_gram of a block kernel")


@CONTRACT
def has_the_diagonal(backend: Backend) -> None:
    """``diagonal`` of square operators, (n,), of the Gram matrix and of the generator's."""
    x, centres, drift = normal((12, 3), 11), normal((12, 3), 12), normal((12, 3), 13)
    diffusion, kernel = diffusions(3, 12)["scalar"], RBF(bandwidth=_LENGTH)
    for name, operator, exact in (
        ("gram", backend.gram(kernel, x, centres), _gaussian(x, centres)),
        (
            "generator_gram",
            backend.generator_gram(kernel, x, centres, drift, diffusion),
            _gaussian_image(x, centres, drift, diffusion),
        ),
    ):
        _close(operator.diagonal(), exact.diagonal(), f"the diagonal of {name}")


@CONTRACT
def takes_few_points(backend: Backend) -> None:
    """No point, one point and one centre give operators of those shapes, and products with zero columns are empty."""
    kernel, centres = RBF(bandwidth=_LENGTH), normal((5, 2), 14)
    for n, m in ((0, 5), (1, 5), (4, 1), (1, 1)):
        x, few = normal((n, 2), 15), centres[:m]
        drift, diffusion = normal((n, 2), 16), diffusions(2, n)["scalar"]
        _compare(backend.gram(kernel, x, few), _gaussian(x, few), f"gram for n = {n}, M = {m}")
        operator = backend.generator_gram(kernel, x, few, drift, diffusion)
        _compare(operator, _gaussian_image(x, few, drift, diffusion), f"generator_gram for n = {n}, M = {m}")
    empty = backend.gram(kernel, centres, centres).matmul(centres.new_zeros((5, 0)))
    require(tuple(empty.shape) == (5, 0), "a product with no column has the wrong shape", got=tuple(empty.shape))


@CONTRACT
def keeps_the_precision(backend: Backend) -> None:
    """float32 points give float32 results on their device, within 1e-4 of float64."""
    x, centres, right = normal((15, 3), 17).float(), normal((8, 3), 18).float(), normal((8, 2), 19).float()
    found = backend.gram(RBF(bandwidth=_LENGTH), x, centres).matmul(right)
    require(
        found.dtype == torch.float32 and found.device == x.device,
        "a product does not keep the precision or the device of its operands",
        got=f"{found.dtype} on {found.device}",
        allowed=f"torch.float32 on {x.device}",
    )
    _close(found.double(), _gaussian(x.double(), centres.double()) @ right.double(), "a float32 product", 1e-4)


@CONTRACT
def products_leave_no_trace(backend: Backend) -> None:
    """Products change neither their operands, nor the operator, nor the backend; a second one gives the same."""
    x, centres, drift = normal((14, 2), 20), normal((9, 2), 21), normal((14, 2), 22)
    right, left = normal((9, 3), 23), normal((14, 3), 24)
    given = [part.clone() for part in (x, centres, drift, right, left)]
    before = snapshot(backend)
    operator = backend.generator_gram(RBF(bandwidth=_LENGTH), x, centres, drift, diffusions(2, 14)["scalar"])
    first, backwards = operator.matmul(right).clone(), operator.transpose_matmul(left).clone()
    names = ("the points", "the centres", "the drift", "the right operand", "the left operand")
    for name, part, copied in zip(names, (x, centres, drift, right, left), given, strict=True):
        require(torch.equal(part, copied), f"a product changes {name}", remedy="Avoid in-place operations on them.")
    again = torch.equal(operator.matmul(right), first) and torch.equal(operator.transpose_matmul(left), backwards)
    require(again, "a second product with the same operand differs from the first")
    altered = changed(before, backend)
    require(not altered, "a product changes the backend", got=", ".join(altered))


@CONTRACT
def predicts_its_working_memory(backend: Backend) -> None:
    """``working_memory`` is a positive whole number of bytes, which does not fall when there is more to compute."""
    small, large = (
        backend.working_memory(n, m, 8, columns, 8) for n, m, columns in ((100, 50, 1), (10_000, 5_000, 32))
    )
    for found in (small, large):
        require(
            isinstance(found, int) and not isinstance(found, bool) and found > 0,
            "working_memory is not a positive whole number of bytes",
            got=found,
            allowed="an int above 0",
        )
    require(small <= large, "working_memory falls with the size of the problem", got=[small, large])


@CONTRACT
def lazy_backends_hold_no_matrix(backend: Backend) -> None:
    """The products of a lazy backend never make a tensor of n x M entries, n = 6000 and M = 64.

    What compiled code allocates outside torch is not seen.
    """
    if not backend.lazy:
        raise NotApplicableError("the backend says that it is not lazy")
    n, m = 6000, 64
    x, centres, drift = normal((n, 2), 25), normal((m, 2), 26), normal((n, 2), 27)
    kernel, diffusion = RBF(bandwidth=_LENGTH), diffusions(2, 1)["scalar"]
    with _Allocations() as seen:
        for operator in (
            backend.gram(kernel, x, centres),
            backend.generator_gram(kernel, x, centres, drift, diffusion),
        ):
            operator.matmul(centres)
            operator.transpose_matmul(x)
    require(
        seen.largest < n * m,
        "the backend says that it is lazy, and makes a tensor as large as the matrix",
        got=f"{seen.largest} entries",
        allowed=f"fewer than n M = {n * m}",
        remedy="Work on tiles of rows, or set lazy = False.",
    )


@CONTRACT
def refuses_mismatched_shapes(backend: Backend) -> None:
    """Points and centres of different dimension, and a drift of the wrong shape, raise ShapeError."""
    kernel, x, centres = RBF(bandwidth=_LENGTH), normal((6, 3), 28), normal((5, 3), 29)
    diffusion = diffusions(3, 1)["scalar"]
    attempts = {
        "centres of another dimension": lambda: backend.gram(kernel, x, centres[:, :2]).matmul(normal((5, 1), 30)),
        "a drift of another shape": lambda: backend.generator_gram(kernel, x, centres, x[:4], diffusion).matmul(
            normal((5, 1), 30)
        ),
    }
    for what, attempt in attempts.items():
        _expect(attempt, ShapeError, what, "Call kfpbench.operators.pairwise.check_shapes first.")


@CONTRACT
def refuses_kernels_too_rough(backend: Backend) -> None:
    """A kernel of one derivative with a diffusion raises CapabilityError, at once or at the first product."""
    x, centres, right = normal((6, 2), 31), normal((5, 2), 32), normal((5, 1), 33)
    rough: Any = Matern32(bandwidth=1.0)
    diffusion = diffusions(2, 1)["scalar"]
    _expect(
        lambda: backend.generator_gram(rough, x, centres, x, diffusion).matmul(right),
        CapabilityError,
        "Matern-3/2 and a diffusion",
        "Ask kfpbench.operators.pairwise.require_jet, or leave out no term silently.",
    )


class _Blocks:
    """The Gaussian kernel as one without a formula."""

    smoothness = float("inf")
    max_dim = 8

    def fit(self, points: Tensor) -> Kernel:
        return self

    def describe(self) -> dict[str, Any]:
        return {}

    def block(self, x: Tensor, centres: Tensor) -> Tensor:
        return _gaussian(x, centres)

    def generator_block(self, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        return _gaussian_image(x, centres, drift, diffusion)


def _gaussian(x: Tensor, centres: Tensor) -> Tensor:
    return (-(x[:, None, :] - centres[None, :, :]).square().sum(2) / (2.0 * _LENGTH**2)).exp()


def _gaussian_image(x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
    """k (-b . delta / l^2 + delta^T a delta / l^4 - tr a / l^2), with a written out as matrices (n, d, d)."""
    n, d = x.shape
    values, eye = diffusion.values, torch.eye(d, dtype=x.dtype)
    if diffusion.kind == "scalar":
        a = values[..., None, None] * eye
    elif diffusion.kind == "diagonal":
        a = torch.diag_embed(values)
    else:
        a = values
    a = a.expand(n, d, d)
    delta = x[:, None, :] - centres[None, :, :]  # (n, M, d)
    first = -torch.einsum("nd,nmd->nm", drift, delta) / _LENGTH**2
    second = torch.einsum("nmi,nij,nmj->nm", delta, a, delta) / _LENGTH**4
    trace = a.diagonal(dim1=1, dim2=2).sum(1)[:, None] / _LENGTH**2
    return _gaussian(x, centres) * (first + second - trace)


def _compare(operator: GramOperator, exact: Tensor, name: str) -> None:
    n, m = exact.shape
    require(tuple(operator.shape) == (n, m), f"{name} has the wrong shape", got=operator.shape, allowed=(n, m))
    _close(operator.to_dense(), exact, f"{name}: to_dense")
    for columns in (1, 3):
        right, left = normal((m, columns), 40), normal((n, columns), 41)
        _close(operator.matmul(right), exact @ right, f"{name}: matmul with {columns} columns")
        _close(operator.transpose_matmul(left), exact.T @ left, f"{name}: transpose_matmul with {columns} columns")
    chosen = torch.tensor([n - 1, 0, 0] if n else [], dtype=torch.long)
    _close(operator.rows(chosen), exact[chosen], f"{name}: rows")


def _close(found: Tensor, exact: Tensor, name: str, tolerance: float = 1e-9) -> None:
    require(
        found.shape == exact.shape, f"{name} has the wrong shape", got=tuple(found.shape), allowed=tuple(exact.shape)
    )
    if exact.numel() == 0:
        return
    gap, largest = float((found - exact).abs().max()), max(float(exact.abs().max()), 1e-3)
    require(
        gap <= tolerance * largest,
        f"{name} is not that of the formula",
        got=f"an error of {gap:.2e}",
        allowed=f"{tolerance * largest:.1e}",
        remedy="Compare with kfpbench.operators.dense.DenseGram on the same points.",
    )


def _agrees(operator: GramOperator, other: Tensor) -> bool:
    dense = operator.to_dense()
    return dense.shape == other.shape and bool((dense - other).abs().max() <= 1e-9 * other.abs().max())


def _expect(attempt: Any, error: type[Exception], what: str, remedy: str) -> None:
    try:
        attempt()
    except error:
        return
    except CapabilityError:
        raise
    except Exception as other:  # a stranger's backend may fail in any way
        raise ContractError(
            f"{what}: not refused by {error.__name__}", got=f"{type(other).__name__}: {other}", remedy=remedy
        ) from other
    raise ContractError(f"{what}: not refused", got="a result", allowed=error.__name__, remedy=remedy)
