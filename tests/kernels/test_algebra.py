"""Sums, products and multiples of kernels: values, and generators against two-fold automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import CapabilityError, ParameterError, UnknownComponentError
from kfpbench.kernels import jet as jets
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.jet import InnerProduct, Jet, JetKernel, SquaredDistance
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.product import Product
from kfpbench.kernels.rational_quadratic import RationalQuadratic
from kfpbench.kernels.rbf import RBF
from kfpbench.kernels.scaled import Scaled
from kfpbench.kernels.sum import Sum
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.protocols import BlockKernel, Kernel
from kfpbench.suite.components import create
from kfpbench.suite.signature import read_signature

F64 = torch.float64
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def scales(dimension: int) -> list[float]:
    return torch.linspace(0.5, 1.6, dimension).tolist()


def diffusions(n: int, d: int) -> dict[str, Diffusion]:
    roots = draw(n, d, d, seed=7)
    return {
        "zero": Diffusion.constant(0.0),
        "scalar": Diffusion.constant(0.7),
        "diagonal": Diffusion.constant(torch.linspace(0.0, 1.5, d, dtype=F64)),
        "matrix": Diffusion.constant(roots[0] @ roots[0].T),
        "scalar at points": Diffusion.at_points(torch.linspace(0.0, 1.5, n, dtype=F64)),
        "diagonal at points": Diffusion.at_points(draw(n, d, seed=8).square()),
        "matrix at points": Diffusion.at_points(roots @ roots.mT),
    }


KINDS = list(diffusions(1, 1))


def matrices(diffusion: Diffusion, n: int, d: int) -> torch.Tensor:
    """a at every point, (n, d, d)."""
    values = diffusion.values if diffusion.pointwise else diffusion.values[None]
    if diffusion.kind == "scalar":
        values = values[:, None, None] * torch.eye(d, dtype=F64)
    elif diffusion.kind == "diagonal":
        values = torch.diag_embed(values)
    return values.expand(n, d, d)


def derivatives(function, x, centres):
    """Gradient (n, M, d) and Hessian (n, M, d, d) in x of the two-point function alone."""

    def everywhere(derivative):
        return torch.func.vmap(torch.func.vmap(derivative, (None, 0)), (0, None))(x, centres)

    return everywhere(torch.func.grad(function)), everywhere(torch.func.hessian(function))


def generator(parts, drift, diffusion):
    """b . grad k + tr(a Hess k), shape (n, M)."""
    first = torch.einsum("nms,ns->nm", parts[0], drift)
    return first + torch.einsum("nmst,nst->nm", parts[1], matrices(diffusion, *drift.shape))


def gaussian(length, weights=None):
    def function(x, c):
        delta = x - c if weights is None else (x - c) * torch.tensor(weights, dtype=F64)
        return torch.exp(-delta.square().sum() / (2 * length**2))

    return function


def rational(length, alpha):
    return lambda x, c: (1 + (x - c).square().sum() / (2 * alpha * length**2)) ** -alpha


def polynomial(degree, offset, length):
    return lambda x, c: (offset + (x @ c) / length**2) ** degree


def matern52(length):
    def function(x, c):
        u = (5.0 * (x - c).square().sum()).sqrt() / length
        return (1 + u + u**2 / 3) * torch.exp(-u)

    return function


def cases(d: int):
    """A kernel, and the same as a function of two points."""
    w = scales(d)
    rbf, narrow, weighted = RBF(bandwidth=1.3), RBF(bandwidth=0.8), ARD(RBF(bandwidth=1.0), scales=w)
    f, g, h = gaussian(1.3), gaussian(0.8), gaussian(1.0, w)
    poly, p = Polynomial(degree=3, offset=0.5, length=1.7), polynomial(3, 0.5, 1.7)
    rq, q = RationalQuadratic(alpha=0.7, bandwidth=1.1), rational(1.1, 0.7)
    matern, m = Matern52(bandwidth=1.4), matern52(1.4)
    return {
        "sum of equal arguments": (Sum([rbf, narrow]), lambda x, c: f(x, c) + g(x, c)),
        "sum of three": (Sum([rbf, weighted, poly]), lambda x, c: f(x, c) + h(x, c) + p(x, c)),
        "product of equal arguments": (Product([rbf, rq]), lambda x, c: f(x, c) * q(x, c)),
        "product of two metrics": (Product([weighted, rq]), lambda x, c: h(x, c) * q(x, c)),
        "product with an inner product": (Product([matern, poly]), lambda x, c: m(x, c) * p(x, c)),
        "product of three": (Product([weighted, poly, rq]), lambda x, c: h(x, c) * p(x, c) * q(x, c)),
        "product of itself": (Product([rbf, rbf]), lambda x, c: f(x, c) ** 2),
        "multiple": (Scaled(rbf, 2.5), lambda x, c: 2.5 * f(x, c)),
        "nested": (
            Sum([Scaled(Product([poly, Sum([rbf, weighted])]), 0.3), rq]),
            lambda x, c: 0.3 * p(x, c) * (f(x, c) + h(x, c)) + q(x, c),
        ),
    }


CASES = list(cases(1))


def setting(d: int):
    return draw(4, d), draw(3, d, seed=1), draw(4, d, seed=2)


# ---- values and generators ----


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("d", [1, 3])
def test_values(name, d):
    kernel, function = cases(d)[name]
    x, centres, _ = setting(d)
    expected = torch.func.vmap(torch.func.vmap(function, (None, 0)), (0, None))(x, centres)
    torch.testing.assert_close(kernel_block(kernel, x, centres), expected, rtol=1e-12, atol=1e-13)
    assert isinstance(kernel, Kernel)
    assert isinstance(kernel, JetKernel)
    assert not isinstance(kernel, BlockKernel)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("d", [1, 2, 4])
def test_generator(name, d):
    kernel, function = cases(d)[name]
    x, centres, drift = setting(d)
    parts = derivatives(function, x, centres)
    for kind, diffusion in diffusions(len(x), d).items():
        expected = generator(parts, drift, diffusion)
        block = generator_block(kernel, x, centres, drift, diffusion)
        torch.testing.assert_close(block, expected, **TOLERANCE, msg=lambda text, kind=kind: f"{kind}: {text}")


def test_the_cross_term_is_tested(monkeypatch):
    """A planted defect: the product rule without 2 grad k1 . a grad k2 fails wherever there is diffusion."""

    def without_cross(one: Jet, other: Jet) -> Jet:
        whole = jets.multiply(one, other)
        second = {key: entry * other.value for key, entry in one.second.items()}
        for key, entry in other.second.items():
            second[key] = second[key] + entry * one.value if key in second else entry * one.value
        return Jet(whole.value, whole.first, second)

    d = 3
    x, centres, drift = setting(d)
    for name in ("product of equal arguments", "product of two metrics", "product with an inner product"):
        kernel, function = cases(d)[name]
        parts = derivatives(function, x, centres)
        monkeypatch.setattr(Product, "combine", staticmethod(without_cross))
        for kind, diffusion in diffusions(4, d).items():
            expected = generator(parts, drift, diffusion)
            error = (generator_block(kernel, x, centres, drift, diffusion) - expected).abs().max()
            assert float(error) < 1e-10 if kind == "zero" else float(error) > 1e-2, (name, kind)
        monkeypatch.undo()


def test_product_rule_term_by_term():
    """L(k1 k2) = k2 L k1 + k1 L k2 + 2 grad k1 . a grad k2, with the gradients from generators along the axes."""
    d, a = 3, diffusions(4, 3)["matrix"]
    one, other = ARD(RBF(bandwidth=1.0), scales=scales(d)), Matern52(bandwidth=1.2)
    x, centres, drift = setting(d)

    def gradient(kernel):
        axes = torch.eye(d, dtype=F64)
        return torch.stack([generator_block(kernel, x, centres, e.expand(4, d), Diffusion.constant(0.0)) for e in axes])

    gamma = torch.einsum("snm,st,tnm->nm", gradient(one), a.values, gradient(other))
    expected = kernel_block(other, x, centres) * generator_block(one, x, centres, drift, a)
    expected += kernel_block(one, x, centres) * generator_block(other, x, centres, drift, a) + 2.0 * gamma
    torch.testing.assert_close(
        generator_block(Product([one, other]), x, centres, drift, a), expected, rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("name", CASES)
def test_gram_matrices_are_positive_semidefinite(name):
    x = draw(40, 3)
    gram = kernel_block(cases(3)[name][0], x, x)
    assert float(torch.linalg.eigvalsh(gram).min()) > -40 * 50 * torch.finfo(F64).eps * float(gram.max())


# ---- arguments ----


def test_equal_arguments_are_merged():
    w = scales(3)
    assert len(Sum([RBF(bandwidth=1.0), Matern52(bandwidth=2.0), RationalQuadratic(bandwidth=1.0)]).arguments()) == 1
    assert len(Product([RBF(bandwidth=1.0), RBF(bandwidth=2.0)]).arguments()) == 1
    twice = Sum([ARD(RBF(bandwidth=1.0), scales=w), RBF(bandwidth=1.0), ARD(Matern52(bandwidth=1.0), scales=w)])
    assert len(twice.arguments()) == 2
    assert len(Product([twice, Polynomial(length=1.0), Scaled(twice, 2.0)]).arguments()) == 3


def test_arguments_that_become_one_add_their_derivatives():
    """phi(z_0, z_1) with z_0 = z_1 = z: phi' = phi_0 + phi_1 and phi'' = phi_00 + 2 phi_01 + phi_11."""
    u, v = (torch.tensor(value, dtype=F64) for value in (0.3, 0.3))
    product = Jet(u**2 * v, {0: 2 * u * v, 1: u**2}, {(0, 0): 2 * v, (0, 1): 2 * u, (1, 1): v * 0.0})  # u^2 v
    merged = jets.relabel(product, [0, 0])
    assert float(merged.first[0]) == pytest.approx(3 * 0.3**2, rel=1e-15)  # z^3
    assert float(merged.second[0, 0]) == pytest.approx(6 * 0.3, rel=1e-15)


def test_a_metric_that_cannot_tell_arguments_apart():
    """Two metrics that differ in a direction of weight zero only are one argument: the generator stays right."""
    inner = Product([ARD(RBF(bandwidth=1.0), scales=[1.0, 2.0]), ARD(RBF(bandwidth=1.0), scales=[1.0, 3.0])])
    points = draw(50, 2) * torch.tensor([1.0, 0.0])
    kernel = ARD(inner, scales="standard_deviation").fit(points)
    rate = 1.0 / float(points[:, 0].std(correction=0))
    x, centres, drift = setting(2)
    outer = Sum([kernel, RBF(bandwidth=1.0)])
    assert len(outer.arguments()) == 2

    def function(a, c):
        return torch.exp(-((rate * (a - c)[0]) ** 2)) + torch.exp(-(a - c).square().sum() / 2)

    parts = derivatives(function, x, centres)
    for diffusion in diffusions(4, 2).values():
        expected = generator(parts, drift, diffusion)
        torch.testing.assert_close(generator_block(outer, x, centres, drift, diffusion), expected, **TOLERANCE)


def test_kinds_of_arguments_are_kept_apart():
    first, second = Product([Polynomial(length=1.0), RBF(bandwidth=1.0)]).arguments()
    assert isinstance(first, InnerProduct)
    assert isinstance(second, SquaredDistance)


def test_keops_takes_composite_formulas():
    """A product of a sum and a polynomial, phi and its derivatives, by LazyTensors."""
    from pykeops.torch import LazyTensor

    kernel = Product([Sum([RBF(bandwidth=1.1), RationalQuadratic(bandwidth=0.9)]), Polynomial(degree=1, length=1.0)])
    x, y = draw(12, 2), draw(9, 2, seed=1)
    xs, ys = LazyTensor(x[:, None, :]), LazyTensor(y[None, :, :])
    lazy = kernel.jet(((xs - ys) ** 2).sum(-1), (xs * ys).sum(-1))
    dense = kernel.jet((x[:, None] - y[None]).square().sum(-1), x @ y.T)
    assert lazy.second.keys() == dense.second.keys() == {(0, 0), (0, 1)}
    pairs = [(lazy.value, dense.value)] + [(lazy.first[key], dense.first[key]) for key in dense.first]
    pairs += [(lazy.second[key], dense.second[key]) for key in dense.second]
    symbolic, values = lazy.value, dense.value
    for weight, (one, other) in enumerate(pairs, 2):  # one formula, which compiles in seconds
        symbolic, values = symbolic + one * float(weight**2), values + other * float(weight**2)
    torch.testing.assert_close(symbolic.sum(dim=1)[:, 0], values.sum(1), rtol=1e-11, atol=1e-11)


# ---- smoothness, fit, record ----


def test_smoothness_is_that_of_the_roughest_part():
    assert Sum([RBF(), Matern52()]).smoothness == 2
    assert Product([RBF(), Sum([Matern52(), Matern32()])]).smoothness == 1
    assert Scaled(Matern32(), 2.0).smoothness == 1
    assert Product([RBF(), Polynomial()]).smoothness == math.inf


@pytest.mark.parametrize("compose", [Sum, Product])
def test_a_rough_part_serves_first_order_operators_only(compose):
    kernel = compose([RBF(bandwidth=1.0), Matern32(bandwidth=1.0)])
    x, centres, drift = setting(2)

    def function(a, c):
        u = (3.0 * (a - c).square().sum()).sqrt()
        parts = (torch.exp(-(a - c).square().sum() / 2), (1 + u) * torch.exp(-u))
        return parts[0] + parts[1] if compose is Sum else parts[0] * parts[1]

    zero = Diffusion.constant(0.0)
    slope = torch.func.vmap(torch.func.vmap(torch.func.grad(function), (None, 0)), (0, None))(x, centres)
    expected = torch.einsum("nms,ns->nm", slope, drift)
    torch.testing.assert_close(generator_block(kernel, x, centres, drift, zero), expected, **TOLERANCE)
    with pytest.raises(CapabilityError, match="derivatives"):
        generator_block(kernel, x, centres, drift, Diffusion.constant(0.5))


def test_fit_reaches_every_part():
    points = draw(60, 3)
    kernel = Sum(
        [RBF(bandwidth="median"), Scaled(Product([Matern52(bandwidth="median", factor=0.5), Polynomial()]), 2.0)]
    )
    with pytest.raises(ParameterError, match="not resolved"):
        kernel_block(kernel, points, points)
    fitted = kernel.fit(points)
    first, scaled = fitted.kernels
    assert first.length == RBF(bandwidth="median").fit(points).length
    assert scaled.kernel.kernels[0].length == 0.5 * first.length
    assert math.isnan(kernel.kernels[0].length)
    expected = kernel_block(first, points, points) + 2.0 * kernel_block(
        Matern52(bandwidth="median", factor=0.5).fit(points), points, points
    ) * kernel_block(Polynomial().fit(points), points, points)
    torch.testing.assert_close(kernel_block(fitted, points, points), expected, rtol=1e-12, atol=1e-13)


def test_records_nest():
    record = Sum([RBF(bandwidth=2.0), Scaled(Matern52(bandwidth=1.0), 0.5)]).describe()
    assert record == {
        "kernels": [
            {"class": "RBF", "bandwidth": 2.0, "factor": 1.0, "length": 2.0},
            {
                "class": "Scaled",
                "variance": 0.5,
                "kernel": {"class": "Matern52", "bandwidth": 1.0, "factor": 1.0, "length": 1.0},
            },
        ]
    }


# ---- parameters ----


@pytest.mark.parametrize("compose", [Sum, Product])
def test_no_kernels(compose):
    for nothing in ([], "rbf"):
        with pytest.raises(ParameterError, match="no kernels"):
            compose(nothing)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
def test_bad_variance(variance):
    with pytest.raises(ParameterError, match="bad variance"):
        Scaled(RBF(), variance)


def test_names_are_resolved():
    kernel = Sum(["rbf", Scaled("rbf", 2.0)])
    assert isinstance(kernel.kernels[0], RBF)
    assert isinstance(kernel.kernels[1].kernel, RBF)
    with pytest.raises(UnknownComponentError):
        Product(["rbf", "no such kernel"])


class OnlyBlocks:
    smoothness = math.inf
    max_dim = 3

    def fit(self, points):
        return self

    def describe(self):
        return {}

    def block(self, x, centres):
        return x @ centres.T

    def generator_block(self, x, centres, drift, diffusion):
        return drift @ centres.T


@pytest.mark.parametrize("compose", [lambda k: Sum([k]), lambda k: Product([k]), Scaled, ARD])
def test_a_part_without_a_formula_is_refused(compose):
    with pytest.raises(CapabilityError, match="declares no formula"):
        compose(OnlyBlocks())


@pytest.mark.parametrize("component", [Sum, Product])
def test_suites_nest_a_list_of_kernels(component):
    nested = read_signature(component).nested
    assert list(nested) == ["kernels"]
    assert (nested["kernels"].kind, nested["kernels"].many, nested["kernels"].required) == ("kernels", True, True)


def test_suites_nest_a_kernel_in_a_multiple():
    signature = read_signature(Scaled)
    assert signature.nested["kernel"].kind == "kernels"
    assert not signature.nested["kernel"].many
    assert signature.names == ("kernel", "variance")


def test_a_suite_builds_a_sum(monkeypatch):
    """From a block as a suite writes it, whether or not this installation registers the names yet."""
    from kfpbench import registry

    known = dict(registry.available("kernels"))
    for name, cls in {"sum": Sum, "product": Product, "scaled": Scaled, "matern52": Matern52, "rbf": RBF}.items():
        known[name] = registry.Entry("kernels", name, f"{cls.__module__}:{cls.__qualname__}", "test", cls)
    monkeypatch.setattr(registry, "available", lambda kind: known)
    parts = ["rbf", {"name": "scaled", "kernel": {"name": "matern52", "factor": 0.5}, "variance": 3.0}]
    kernel = create("kernels", {"name": "sum", "kernels": parts})
    assert isinstance(kernel, Sum)
    assert kernel.kernels[0].describe()["factor"] == 1.0
    assert (kernel.kernels[1].variance, kernel.kernels[1].kernel.factor) == (3.0, 0.5)
