"""The radial kernels: formulas, derivatives, definiteness and smoothness, on torch, on KeOps and in 50 digits."""

from __future__ import annotations

import decimal
import itertools
import math
from decimal import Decimal

import pytest
import torch
from scipy import special

from kfpbench.errors import NumericalError, ParameterError
from kfpbench.kernels.bandwidth import max_likelihood_distance, median_distance
from kfpbench.kernels.inverse_multiquadric import InverseMultiquadric
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.matern72 import Matern72
from kfpbench.kernels.radial import RadialBase
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.protocols import Kernel

F64 = torch.float64
EPS = torch.finfo(F64).eps
CLASSES = [RBF, Matern32, Matern52, Matern72, RationalQuadratic, InverseMultiquadric]
MATERN = {1.5: Matern32, 2.5: Matern52, 3.5: Matern72}
KERNELS = {
    **{cls.__name__: cls for cls in CLASSES},
    "RationalQuadratic(0.3)": lambda **given: RationalQuadratic(alpha=0.3, **given),
    "RationalQuadratic(1e6)": lambda **given: RationalQuadratic(alpha=1e6, **given),
}
every_kernel = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())


def draw(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Precise:
    """A number of 50 digits with the operators and methods that profiles are written with; floats enter exactly."""

    context = decimal.Context(prec=50, Emin=-(10**9), Emax=10**9)

    def __init__(self, value: float | Decimal) -> None:
        self.value = Decimal(value)

    def _with(self, operation, other, swap=False):
        pair = (self.value, other.value if isinstance(other, Precise) else Decimal(other))
        return Precise(operation(*(pair[::-1] if swap else pair)))

    def __add__(self, other):
        return self._with(self.context.add, other)

    def __sub__(self, other):
        return self._with(self.context.subtract, other)

    def __mul__(self, other):
        return self._with(self.context.multiply, other)

    def __truediv__(self, other):
        return self._with(self.context.divide, other)

    def __rtruediv__(self, other):
        return self._with(self.context.divide, other, swap=True)

    def __neg__(self):
        return Precise(self.context.minus(self.value))

    def exp(self):
        return Precise(self.context.exp(self.value))

    def log(self):
        return Precise(self.context.ln(self.value))

    def sqrt(self):
        return Precise(self.context.sqrt(self.value))

    def rsqrt(self):
        return 1.0 / self.sqrt()


# ---- formulas ----


@pytest.mark.parametrize("nu", MATERN)
def test_matern_is_the_bessel_formula(nu):
    """2^(1 - nu) / Gamma(nu) u^nu K_nu(u), u = sqrt(2 nu) r / l."""
    length, r = 0.7, torch.logspace(-3, 1.5, 40, dtype=F64)
    u = (math.sqrt(2 * nu) / length * r).numpy()
    expected = torch.from_numpy(2 ** (1 - nu) / special.gamma(nu) * u**nu * special.kv(nu, u))
    torch.testing.assert_close(MATERN[nu](bandwidth=length).profile(r.square())[0], expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_rational_quadratic_is_a_gamma_mixture_of_gaussians(alpha):
    """h(s) = E exp(-tau s / 2), tau = g / (alpha l^2) with g gamma distributed of shape alpha; by quadrature."""
    length, s = 1.3, torch.logspace(-2, 1, 9, dtype=F64)  # 120 nodes resolve rates s / (2 alpha l^2) up to 10
    nodes, weights = special.roots_genlaguerre(120, alpha - 1.0)
    g, w = torch.from_numpy(nodes), torch.from_numpy(weights / special.gamma(alpha))
    expected = ((-0.5 * s[:, None] * g / (alpha * length**2)).exp() * w).sum(1)
    kernel = RationalQuadratic(alpha=alpha, bandwidth=length)
    torch.testing.assert_close(kernel.profile(s)[0], expected, rtol=1e-10, atol=0.0)


def test_inverse_multiquadric_is_the_rational_quadratic_of_one_half():
    s = torch.linspace(0.0, 50.0, 60, dtype=F64)
    ours, same = InverseMultiquadric(bandwidth=1.7).profile(s), RationalQuadratic(alpha=0.5, bandwidth=1.7).profile(s)
    for one, other in zip(ours, same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(ours[0], 1.0 / torch.sqrt(1.0 + s / 1.7**2), rtol=1e-14, atol=0.0)


def test_rational_quadratic_tends_to_rbf():
    """log h - log h_RBF = z^2 / (2 alpha) + O(z^3 / alpha^2), z = s / (2 l^2) <= 8; with it, h' and h''.

    At alpha = 1e12 the difference, at most 3.2e-11 h, is resolved: log(1 + z / alpha) does not lose the digits of z.
    """
    length = 1.4
    z = torch.linspace(0.0, 8.0, 50, dtype=F64)
    limit = RBF(bandwidth=length).profile(2.0 * length**2 * z)
    previous = math.inf
    for alpha in (1e2, 1e4, 1e6, 1e12):
        values = RationalQuadratic(alpha=alpha, bandwidth=length).profile(2.0 * length**2 * z)
        errors = [float(((a - b) / b).abs().max()) for a, b in zip(values, limit, strict=True)]
        # h' carries 1 / v = 1 - z / alpha, h'' its square and 1 + 1 / alpha: less than z^2 / (2 alpha) = 32 / alpha
        assert max(errors) < 1.6 * 32.0 / alpha + 64 * EPS
        assert max(errors) < 0.1 * previous
        previous = max(errors)
    difference = (values[0] - limit[0]) / limit[0]
    torch.testing.assert_close(difference, z.square() / 2e12, rtol=0.0, atol=64 * EPS)


# ---- derivatives ----


@every_kernel
@pytest.mark.parametrize("length", [0.1, 1.0, 30.0])
def test_derivatives_against_autograd(make, length):
    kernel = make(bandwidth=length)
    s = (length**2 * torch.logspace(-3, 1.5, 50, dtype=F64)).requires_grad_(True)
    parts = kernel.profile(s)
    assert len(parts) == (2 if kernel.smoothness == 1 else 3)
    for lower, higher in itertools.pairwise(parts):
        (by_autograd,) = torch.autograd.grad(lower.sum(), s, retain_graph=True)
        torch.testing.assert_close(higher.detach(), by_autograd, rtol=1e-11, atol=0.0)


# h'(0) l^2 and h''(0) l^4; of Matern: -nu / (2 (nu - 1)) and nu^2 / (4 (nu - 1) (nu - 2)), from the series of K_nu
AT_ZERO = [
    (RBF, -1 / 2, 1 / 4),
    (Matern32, -3 / 2, None),
    (Matern52, -5 / 6, 25 / 12),
    (Matern72, -7 / 10, 49 / 60),
    (RationalQuadratic, -1 / 2, 1 / 2),
    (KERNELS["RationalQuadratic(0.3)"], -1 / 2, 1.3 / 1.2),
    (InverseMultiquadric, -1 / 2, 3 / 4),
]


@pytest.mark.parametrize(("make", "first", "second"), AT_ZERO)
@pytest.mark.parametrize("length", [0.05, 2.0])
def test_at_zero(make, first, second, length):
    values = make(bandwidth=length).profile(torch.zeros((2, 3), dtype=F64))
    expected = [1.0, first / length**2] + ([] if second is None else [second / length**4])
    assert len(values) == len(expected)
    for value, number in zip(values, expected, strict=True):
        torch.testing.assert_close(value, torch.full((2, 3), number, dtype=F64), rtol=1e-14, atol=0.0)


@every_kernel
def test_continuous_towards_zero(make):
    """At s = 1e-20 l^2 (u <= 3e-10) every part is what it is at 0, but for a share of at most u."""
    near, at = (make(bandwidth=3.0).profile(torch.tensor([s], dtype=F64)) for s in (9e-20, 0.0))
    for one, other in zip(near, at, strict=True):
        torch.testing.assert_close(one, other, rtol=3e-10, atol=0.0)


@every_kernel
def test_against_fifty_digits(make):
    """Rounding: a few ulps, and for exp(-x) the rounding of x as well, at squared distances up to 1e8 l^2."""
    kernel = make(bandwidth=0.9)
    s = 0.81 * torch.logspace(-8, 8, 65, dtype=F64)
    exact = [kernel.profile(Precise(number)) for number in s.tolist()]
    for part, values in enumerate(kernel.profile(s)):
        for value, row in zip(values.tolist(), exact, strict=True):
            reference = float(row[part].value)
            magnitude = abs(math.log(abs(reference))) if reference else 0.0
            if abs(reference) > 1e-290:
                assert value == pytest.approx(reference, rel=(20 + 4 * magnitude) * EPS)
            else:
                assert abs(value) < 1e-289


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_completely_monotone_and_finite_up_to_huge_distances(make, dtype, length):
    """A radial kernel is positive definite in every dimension iff (-1)^m h^(m) >= 0 (Schoenberg)."""
    s = length**2 * torch.cat([torch.zeros(1), torch.logspace(-8, 8, 200)]).to(dtype)
    for order, part in enumerate(make(bandwidth=length).profile(s)):
        assert part.dtype == dtype
        assert part.shape == s.shape
        assert bool(part.isfinite().all())
        signed = (-1) ** order * part
        assert bool((signed >= 0.0).all())
        slack = 8 * torch.finfo(dtype).eps * (1 if order == 0 else float(signed[0]))
        assert bool((signed.diff() <= slack).all())


@every_kernel
def test_profile_leaves_its_argument_as_it_was(make):
    s = draw((4, 5)).square()
    copy = s.clone()
    make(bandwidth=1.0).profile(s)
    assert torch.equal(s, copy)


# ---- symbolic evaluation ----


def test_keops_evaluates_the_same_formulas():
    """sum_j h, h' and h''(|x_i - y_j|^2) of every kernel by LazyTensors, all in one formula, which compiles once."""
    from pykeops.torch import LazyTensor

    x, y = draw((30, 2)), draw((20, 2), 1)
    y[0] = x[0]  # s = 0 is among the distances
    y[1] = 300.0  # exponentials underflow
    lazy = ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)
    dense = (x[:, None] - y[None]).square().sum(-1)
    names, columns, expected = [], [], []
    for cls in CLASSES:
        kernel = cls(bandwidth=0.8)
        for order, (symbolic, values) in enumerate(zip(kernel.profile(lazy), kernel.profile(dense), strict=True)):
            names.append((cls.__name__, order))
            columns.append(symbolic)
            expected.append(values.sum(1))
    sums = LazyTensor.cat(tuple(columns), dim=-1).sum(dim=1)
    assert sums.shape == (30, 17)
    for name, by_keops, by_torch in zip(names, sums.T, expected, strict=True):
        assert float((by_keops / by_torch - 1.0).abs().max()) < 1e-12, name  # the terms of a sum have one sign


# ---- positive definiteness ----


def least_eigenvalue(profile, points: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(profile((points[:, None] - points[None]).square().sum(-1))[0]).min())


def rounding_bound(count: int, dimension: int) -> float:
    """n times the rounding of one entry, at most (d + 20) eps as x e^-x < 1, and n eps |K| <= n^2 eps of eigvalsh."""
    return count * (dimension + 20 + count) * EPS


@every_kernel
@pytest.mark.parametrize("dimension", [1, 3, 7])
@pytest.mark.parametrize("length", [0.1, 1.0, 20.0])
def test_gram_matrices_are_positive_semidefinite(make, dimension, length):
    points = draw((60, dimension), dimension)
    kernel = make(bandwidth=length)
    assert least_eigenvalue(kernel.profile, points) >= -rounding_bound(60, dimension)
    repeated = torch.cat([points[:20], points[:20]])
    assert least_eigenvalue(kernel.profile, repeated) >= -rounding_bound(40, dimension)


def test_a_profile_that_is_not_positive_definite_is_found():
    """exp(-s^2), of order above 2 in r, is not positive definite in any dimension (Schoenberg)."""
    for dimension in (1, 3, 7):
        points = draw((60, dimension), dimension)
        assert least_eigenvalue(lambda s: ((-(0.04 * s).square()).exp(),), points) < -1e3 * rounding_bound(
            60, dimension
        )


# ---- smoothness ----


def central_difference(kernel: RadialBase, order: int, step: float) -> float:
    """The even difference of t -> h(t^2) at 0, divided by step^order, in 50 digits."""
    total = Precise(0)
    for k in range(order + 1):
        t = Precise(step) * (k - order / 2)
        total = total + kernel.profile(t * t)[0] * ((-1) ** k * math.comb(order, k))
    return float(total.value / Decimal(step) ** order)


@every_kernel
def test_smoothness(make):
    """RKHS functions have m continuous derivatives iff D_x^m D_y^m k exists: the section's derivative of order 2m at 0.

    One order more and the section's kink |t|^(2m + 1) makes its difference quotients grow like 1 / step.
    """
    kernel = make(bandwidth=1.0)
    m = 3 if kernel.smoothness == math.inf else int(kernel.smoothness)
    steps = (2.0**-7, 2.0**-8, 2.0**-9)  # coefficients such as 2/5 are doubles: 1e-17 u^3 / step^8 must stay small
    limits = [central_difference(kernel, 2 * m, step) for step in steps]
    assert abs(limits[0]) > 0.1
    assert limits[2] == pytest.approx(limits[1], rel=0.1)
    beyond = [central_difference(kernel, 2 * m + 2, step) for step in steps]
    ratio = 1.0 if kernel.smoothness == math.inf else 2.0
    assert beyond[1] / beyond[0] == pytest.approx(ratio, rel=0.1)
    assert beyond[2] / beyond[1] == pytest.approx(ratio, rel=0.1)


def test_declared_smoothness():
    assert [cls.smoothness for cls in CLASSES] == [math.inf, 1, 2, 3, math.inf, math.inf]


# ---- lengths and parameters ----


@every_kernel
@pytest.mark.parametrize(
    ("rule", "distance"), [("median", median_distance), ("max_likelihood", max_likelihood_distance)]
)
def test_fit_resolves_a_rule_on_a_copy(make, rule, distance):
    kernel, points = make(bandwidth=rule, factor=0.5), draw((40, 2))
    fitted = kernel.fit(points)
    assert type(fitted) is type(kernel)
    assert math.isnan(kernel.length)
    assert fitted.length == pytest.approx(0.5 * distance(points), rel=1e-12)
    record = fitted.describe()
    assert (record["bandwidth"], record["factor"], record["length"]) == (rule, 0.5, fitted.length)
    again = fitted.fit(4.0 * points)
    assert again.length == pytest.approx(4.0 * fitted.length, rel=1e-5)
    for one, other in zip(make(bandwidth=fitted.length).profile(points), fitted.profile(points), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())  # negative entries are outside the domain
    with pytest.raises(NumericalError):
        kernel.fit(torch.ones(5, 2))


@every_kernel
def test_auto_is_resolved(make):
    assert 0.0 < make(bandwidth="auto").fit(draw((40, 2))).length < math.inf


@every_kernel
def test_with_length(make):
    kernel = make(bandwidth="median", factor=2.0)
    changed = kernel.with_length(0.3)
    assert (changed.length, math.isnan(kernel.length)) == (0.3, True)
    assert changed.fit(draw((20, 2))).length == pytest.approx(2.0 * median_distance(draw((20, 2))), rel=1e-14)
    given = make(bandwidth=3.0, factor=2.0)
    assert given.fit(torch.ones(5, 2)).length == 6.0  # a given bandwidth does not look at the points
    assert given.fit(torch.ones(5, 2)) is not given


@every_kernel
@pytest.mark.parametrize("length", [0.0, -1.0, math.nan, math.inf, 1e-80, 1e80])
def test_bad_length(make, length):
    with pytest.raises(ParameterError, match="bad bandwidth"):
        make(bandwidth=1.0).with_length(length)
    with pytest.raises(ParameterError, match="bad bandwidth"):
        make(bandwidth=length)


@every_kernel
def test_the_extreme_lengths_stay_finite(make):
    for length in (1e-75, 1e75):
        s = length**2 * torch.tensor([0.0, 1.0, 1e8], dtype=F64)
        assert all(bool(part.isfinite().all()) for part in make(bandwidth=length).profile(s))


@every_kernel
@pytest.mark.parametrize("bandwidth", ["mean", None, "1.0"])
def test_bad_bandwidth(make, bandwidth):
    with pytest.raises(ParameterError, match="bad bandwidth"):
        make(bandwidth=bandwidth)


@every_kernel
def test_unresolved_and_bad_factor(make):
    with pytest.raises(ParameterError, match="median bandwidth is not resolved"):
        make(bandwidth="median").profile(torch.zeros(3))
    for factor in (0.0, -2.0, math.nan, math.inf):
        with pytest.raises(ParameterError, match="bad bandwidth factor"):
            make(factor=factor)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_bad_alpha(alpha):
    with pytest.raises(ParameterError, match="bad alpha"):
        RationalQuadratic(alpha=alpha)


def test_describe_records_alpha():
    assert RationalQuadratic(alpha=2.5, bandwidth=2.0, factor=0.5).describe() == {
        "alpha": 2.5,
        "bandwidth": 2.0,
        "factor": 0.5,
        "length": 1.0,
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_contract(cls):
    assert isinstance(cls(), Kernel)
    assert isinstance(cls(), RadialBase)
