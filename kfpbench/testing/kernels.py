"""The contract of kernels: positive definite, finite, with the derivatives and the smoothness that they declare.

Laws about formulas look at jets (a radial ``profile`` is the jet of one argument), those about operators at generator
blocks. Distances are taken relative to the kernel's own length, where its correlation has fallen to a half.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from typing import Any

import torch
from torch import Tensor

from kfpbench.kernels.jet import Jet, has_formula, jet_kernel
from kfpbench.operators.pairwise import generator_block
from kfpbench.protocols import BlockKernel, Kernel
from kfpbench.testing.contract import Contract, ContractError, NotApplicableError, require
from kfpbench.testing.differences import diffusions, generator_by_differences, normal
from kfpbench.testing.jets import check_bounded, check_first, check_limits, check_second, declared
from kfpbench.testing.sections import correlation_length, fitted, kernel_matrix, usable_dimensions
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("kernels")
_EPS = torch.finfo(torch.float64).eps
_BOUND = 1e-6  # of sixth-order differences, relative to the largest image: see generator_matches_the_kernel


@CONTRACT
def declares_its_smoothness(kernel: Kernel) -> None:
    """``smoothness`` is a number of at least 1, inf for analytic kernels, and as many derivatives are given."""
    smoothness: Any = kernel.smoothness
    is_number = isinstance(smoothness, (int, float)) and not isinstance(smoothness, bool)
    require(
        is_number and not math.isnan(smoothness),
        "smoothness is not a number",
        got=smoothness,
        allowed="the number of continuous derivatives of every function of the RKHS, math.inf if analytic",
    )
    require(
        smoothness >= 1,
        "a kernel without one continuous derivative serves no generator: every operator refuses it",
        got=smoothness,
        allowed="at least 1",
        remedy="Take a smoother kernel.",
    )
    if has_formula(kernel):
        declared(fitted(kernel, usable_dimensions(kernel)[-1]))


@CONTRACT
def describes_itself_in_json(kernel: Kernel) -> None:
    """``describe`` returns a dictionary that JSON can hold, the same at every call, before and after ``fit``."""
    for state in (kernel, fitted(kernel, usable_dimensions(kernel)[0])):
        record = state.describe()
        require(isinstance(record, dict), "describe returns no dictionary", got=type(record).__name__)
        try:
            written = json.dumps(record)
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"describe returns what JSON cannot hold: {error}",
                got=record,
                allowed="numbers, text, lists, dictionaries, None",
                remedy="Write tensors as float(...) or .tolist().",
            ) from error
        require(
            written == json.dumps(state.describe()),
            "describe differs from call to call",
            got=[written, state.describe()],
        )


@CONTRACT
def fit_returns_a_copy(kernel: Kernel) -> None:
    """``fit`` returns a fitted kernel of the same smoothness, and changes neither the kernel nor the points."""
    points = normal((50, usable_dimensions(kernel)[-1]), 1)
    before, given = snapshot(kernel), points.clone()
    result = kernel.fit(points)
    require(
        result is not None and result is not kernel,
        "fit returns nothing" if result is None else "fit returns the kernel itself",
        allowed="a copy with its data-dependent parameters resolved",
        remedy="Start with `fitted = copy.copy(self)`, set its parameters, and return it.",
    )
    altered = changed(before, kernel)
    require(
        not altered,
        "fit changes the kernel that it is called on",
        got=", ".join(altered),
        allowed="a kernel can be fitted again, for every segment of a sampler",
        remedy="Set parameters on the copy, not on self.",
    )
    require(torch.equal(points, given), "fit changes the points", remedy="Work on a copy of them.")
    require(
        result.smoothness == kernel.smoothness,
        "fit changes the smoothness",
        got=result.smoothness,
        allowed=kernel.smoothness,
    )


@CONTRACT
def fit_is_deterministic(kernel: Kernel) -> None:
    """Two fits on the same points give the same kernel."""
    dimension = usable_dimensions(kernel)[-1]
    one, other = (fitted(copy.deepcopy(kernel), dimension) for _ in range(2))
    x, centres = normal((6, dimension), 2), normal((5, dimension), 3)
    require(
        json.dumps(one.describe()) == json.dumps(other.describe())
        and torch.equal(kernel_matrix(one, x, centres), kernel_matrix(other, x, centres)),
        "two fits on the same points differ",
        got=[one.describe(), other.describe()],
        remedy="Draw random numbers from a generator with a fixed seed.",
    )


@CONTRACT
def value_is_symmetric(kernel: Kernel) -> None:
    """k(x, y) = k(y, x)."""
    for dimension in usable_dimensions(kernel):
        found = fitted(kernel, dimension)
        x, y = normal((12, dimension), 4), normal((9, dimension), 5)
        forward, backward = kernel_matrix(found, x, y), kernel_matrix(found, y, x).T
        gap = float((forward - backward).abs().max())
        allowed = _rounding(forward, dimension)
        require(gap <= allowed, f"k(x, y) and k(y, x) differ in {dimension} dimensions", got=gap, allowed=allowed)


@CONTRACT
def gram_matrix_is_positive_semi_definite(kernel: Kernel) -> None:
    """The Gram matrix of any points has no negative eigenvalue, in 1, 3 and 8 dimensions, on several scales.

    An entry is wrong by at most 16 (d + 8) eps max|k|, squared norms and all; eigenvalues of n points by n times that.
    """
    for dimension in usable_dimensions(kernel):
        found = fitted(kernel, dimension)
        length = correlation_length(found, dimension)
        for factor in (0.3, 1.0, 3.0):
            points = normal((48, dimension), 6) * (factor * length)
            gram = kernel_matrix(found, points, points)
            lowest = float(torch.linalg.eigvalsh(0.5 * (gram + gram.T))[0])
            allowed = -len(points) * _rounding(gram, dimension)
            require(
                lowest >= allowed,
                f"the Gram matrix of 48 points in {dimension} dimensions has a negative eigenvalue: no RKHS",
                got=lowest,
                allowed=f"at least {allowed:.1e} (rounding)",
                remedy="Check that the function is positive definite in every dimension in which it is used.",
            )


@CONTRACT
def is_finite_everywhere(kernel: Kernel) -> None:
    """k and its derivatives are finite where points coincide, and at distances of 1e3, 1e6 and 1e8 lengths."""
    for dimension in usable_dimensions(kernel):
        found = fitted(kernel, dimension)
        length = correlation_length(found, dimension)
        direction = torch.nn.functional.normalize(normal((1, dimension), 7), dim=1)
        for distance in (0.0, 1e3, 1e6, 1e8):
            for dtype in (torch.float64, torch.float32):
                x = (0.1 + direction * distance * length).to(dtype)
                for name, entries in _entries(found, x, torch.full((1, dimension), 0.1, dtype=dtype)).items():
                    require(
                        bool(entries.isfinite().all()),
                        f"{name} is not finite at distance {distance:g} in {str(dtype).removeprefix('torch.')}",
                        got=float(entries.flatten()[0]),
                        allowed="a finite number, also where points coincide",
                        remedy="Leave out a derivative that is infinite at 0 and declare the smoothness it leaves; "
                        "rewrite 0 / 0 and inf * 0 in the formula.",
                    )


@CONTRACT
def first_derivatives_match_the_value(kernel: Kernel) -> None:
    """The first derivatives in ``profile`` or ``jet`` are those of the value, by automatic differentiation."""
    for dimension in _formula(kernel):
        check_first(fitted(kernel, dimension), dimension)


@CONTRACT
def second_derivatives_match_the_value(kernel: Kernel) -> None:
    """The second derivatives in ``profile`` or ``jet`` are those of the value, by automatic differentiation."""
    for dimension in _formula(kernel):
        check_second(fitted(kernel, dimension), dimension)


@CONTRACT
def derivatives_are_continuous_at_zero(kernel: Kernel) -> None:
    """The derivatives given at distance 0 are the limits from other distances."""
    for dimension in _formula(kernel):
        check_limits(fitted(kernel, dimension), dimension)


@CONTRACT
def smoothness_is_not_overstated(kernel: Kernel) -> None:
    """Derivatives up to the declared smoothness (and the fourth) in the squared distance stay bounded near 0.

    A function h(r^2) gives an RKHS of m-times differentiable functions only if h, as a function of r^2, has m bounded
    derivatives at 0. Logarithmic growth is not found.
    """
    for dimension in _formula(kernel)[:1]:
        check_bounded(fitted(kernel, dimension), dimension)


@CONTRACT
def generator_matches_the_kernel(kernel: Kernel) -> None:
    """(L k(., c))(x) = b . grad k + tr(a Hess k) for random drift and every form of diffusion.

    Against central differences of order 6 with steps of h = 0.01 lengths, whose errors are about h^6 k^(8) / 560 and
    eps / h^2: both below 1e-9 of the second derivatives, for smooth kernels; 1e-6 is allowed.
    """
    for dimension in _differentiable(kernel):
        found = fitted(kernel, dimension)
        length = correlation_length(found, dimension)
        x, centres, drift = normal((6, dimension), 8), normal((5, dimension), 9), normal((6, dimension), 10)
        x, centres, drift = x * length, centres * length, drift * length
        apart = torch.cdist(x, centres) > 0.3 * length  # where even a rough kernel is smooth over the stencil
        for form, diffusion in diffusions(dimension, len(x)).items():
            if kernel.smoothness < 2 and form != "none":
                continue
            images = generator_block(found, x, centres, drift, diffusion)
            require(images.shape == apart.shape, "the generator's block has the wrong shape", got=tuple(images.shape))
            exact = generator_by_differences(
                functools.partial(_sections, found, centres), x, drift, diffusion, 0.01 * length
            )
            scale = float(exact[apart].abs().max()) + float(kernel_matrix(found, x, centres).abs().max())
            gap = float((images - exact)[apart].abs().max())
            require(
                gap <= _BOUND * scale,
                f"the generator's image of the kernel is wrong for a diffusion of the form '{form}', d = {dimension}",
                got=f"an error of {gap:.2e}",
                allowed=f"{_BOUND * scale:.1e}",
                remedy="Check the first derivatives if the form is 'none', else the second ones and their cross terms.",
            )


@CONTRACT
def generator_is_continuous_where_points_meet(kernel: Kernel) -> None:
    """(L k(., c))(x) at x = c is the limit for x to c."""
    for dimension in _differentiable(kernel)[:2]:
        found = fitted(kernel, dimension)
        length = correlation_length(found, dimension)
        centre, drift = normal((1, dimension), 11) * length, normal((1, dimension), 12) * length
        diffusion = diffusions(dimension, 1)["none" if kernel.smoothness < 2 else "scalar"]
        direction = torch.nn.functional.normalize(normal((1, dimension), 13), dim=1)
        at, near, off = (
            float(generator_block(found, centre + share * length * direction, centre, drift, diffusion))
            for share in (0.0, 1e-4, 1.0)
        )
        scale = max(abs(at), abs(off), float(kernel_matrix(found, centre, centre).abs().max()))
        require(
            abs(at - near) <= 1e-2 * scale,
            "the generator's image of the kernel jumps where a point meets a centre",
            got=[at, near],
            allowed="equal to 1 % at distances of 0 and 1e-4 lengths",
            remedy="Check the derivatives at distance 0, and the declared smoothness.",
        )


@CONTRACT
def single_precision_agrees(kernel: Kernel) -> None:
    """float32 points give float32 values on their device, within 1000 eps of those in float64."""
    for dimension in usable_dimensions(kernel):
        found = fitted(kernel, dimension)
        x, centres = (normal((8, dimension), seed).float() for seed in (14, 15))
        single = _entries(found, x, centres)
        for name, exact in _entries(found, x.double(), centres.double()).items():
            entries = single[name]
            require(
                entries.dtype == torch.float32 and entries.device == x.device,
                f"{name} does not keep the precision or the device of the points",
                got=f"{entries.dtype} on {entries.device}",
                allowed=f"torch.float32 on {x.device}",
                remedy="Make constants from the argument: `s.new_tensor(...)`, or plain numbers.",
            )
            gap, largest = float((entries.double() - exact).abs().max()), float(exact.abs().max())
            allowed = 1e3 * torch.finfo(torch.float32).eps * largest
            require(gap <= allowed, f"{name} in float32 differs from float64", got=gap, allowed=allowed)


@CONTRACT
def keeps_shapes_and_arguments(kernel: Kernel) -> None:
    """``profile`` and ``jet`` take values of any shape, an empty one too, return that shape, and change no argument."""
    dimension = _formula(kernel)[0]
    formula = jet_kernel(fitted(kernel, dimension))
    for shape in ((5,), (3, 4), (0, 3)):
        values = [normal(shape, 16 + index).abs() for index in range(len(formula.arguments()))]
        given = [value.clone() for value in values]
        for name, entries in _named(formula.jet(*values)).items():
            require(tuple(entries.shape) == shape, f"{name} has another shape", got=tuple(entries.shape), allowed=shape)
        require(
            all(torch.equal(value, copied) for value, copied in zip(values, given, strict=True)),
            "the formula changes its argument",
            remedy="Avoid in-place operations such as `s.mul_`.",
        )


def _sections(kernel: Kernel, centres: Tensor, x: Tensor) -> Tensor:
    return kernel_matrix(kernel, x, centres)


def _rounding(gram: Tensor, dimension: int) -> float:
    return 16.0 * (dimension + 8) * _EPS * float(gram.abs().max())


def _formula(kernel: Kernel) -> tuple[int, ...]:
    """The dimensions to look at, for a kernel with a formula."""
    if not has_formula(kernel):
        raise NotApplicableError("the kernel declares no formula: its blocks are checked")
    return usable_dimensions(kernel)


def _differentiable(kernel: Kernel) -> tuple[int, ...]:
    """Dimensions in which the kernel can serve operators."""
    most = kernel.max_dim if isinstance(kernel, BlockKernel) else math.inf
    found = tuple(dimension for dimension in usable_dimensions(kernel) if dimension <= min(most, 3))
    if not found:
        raise NotApplicableError("the kernel serves no operator in 1 to 3 dimensions")
    return found


def _entries(kernel: Kernel, x: Tensor, centres: Tensor) -> dict[str, Tensor]:
    """The value and derivatives of a formula, or the value alone of a kernel that has blocks."""
    if not has_formula(kernel):
        return {"the value": kernel_matrix(kernel, x, centres)}
    return declared(kernel, x, centres)


def _named(jet: Jet) -> dict[str, Any]:
    second = {} if jet.second is None else jet.second
    first = {f"first[{index}]": entry for index, entry in jet.first.items()}
    return {"the value": jet.value, **first, **{f"second[{a}, {b}]": entry for (a, b), entry in second.items()}}
