"""Kernels in another metric: the rules, values and generators against automatic differentiation, degenerate points."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.bandwidth import median_distance
from kfpbench.kernels.jet import SquaredDistance
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.matern52 import Matern52
from kfpbench.kernels.polynomial import Polynomial
from kfpbench.kernels.product import Product
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.suite.signature import read_signature

F64 = torch.float64
EPS = torch.finfo(F64).eps


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def cloud(count: int, d: int) -> torch.Tensor:
    """Correlated points away from the origin, their standard deviations an order of magnitude apart."""
    return draw(count, d) * torch.logspace(-0.5, 0.5, d, dtype=F64) @ (torch.eye(d, dtype=F64) + 0.3) + 2.0


def covariance(points: torch.Tensor) -> torch.Tensor:
    return torch.cov(points.T, correction=0).reshape(points.shape[1], -1)


def matrix(kernel: ARD) -> torch.Tensor:
    """The metric R^T R that the fitted kernel of one squared distance holds, (d, d)."""
    (argument,) = kernel.arguments()
    assert isinstance(argument, SquaredDistance)
    return argument.metric if argument.metric.ndim == 2 else torch.diag(argument.metric)


def derivatives(function, x, centres):
    def everywhere(derivative):
        return torch.func.vmap(torch.func.vmap(derivative, (None, 0)), (0, None))(x, centres)

    return everywhere(function), everywhere(torch.func.grad(function)), everywhere(torch.func.hessian(function))


def diffusions(n: int, d: int) -> list[tuple[Diffusion, torch.Tensor]]:
    """Diffusions, and each as matrices (n, d, d)."""
    roots, eye = draw(n, d, d, seed=7), torch.eye(d, dtype=F64)
    a, weights = roots @ roots.mT, torch.linspace(0.0, 1.5, d, dtype=F64)
    levels, axes = torch.linspace(0.0, 1.5, n, dtype=F64), draw(n, d, seed=8).square()
    return [
        (Diffusion.constant(0.0), 0.0 * a),
        (Diffusion.constant(0.7), (0.7 * eye).expand(n, d, d)),
        (Diffusion.constant(weights), torch.diag(weights).expand(n, d, d)),
        (Diffusion.constant(a[0]), a[0].expand(n, d, d)),
        (Diffusion.at_points(levels), levels[:, None, None] * eye),
        (Diffusion.at_points(axes), torch.diag_embed(axes)),
        (Diffusion.at_points(a), a),
    ]


# ---- values and generators ----

SCALES = ["list", "standard_deviation", "mahalanobis", "signal_to_noise"]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("inner", ["rbf", "matern52", "polynomial", "product"])
def test_generator(scales, d, inner):
    kernels = {
        "rbf": (RBF(bandwidth=1.2), lambda x, c: torch.exp(-(x - c).square().sum() / (2 * 1.2**2))),
        "matern52": (Matern52(bandwidth=1.2), lambda x, c: matern(x, c)),
        "polynomial": (Polynomial(degree=3, offset=0.4, length=1.5), lambda x, c: (0.4 + x @ c / 1.5**2) ** 3),
        "product": (
            Product([RBF(bandwidth=1.2), Polynomial(degree=1, offset=0.4, length=1.5)]),
            lambda x, c: torch.exp(-(x - c).square().sum() / (2 * 1.2**2)) * (0.4 + x @ c / 1.5**2),
        ),
    }

    def matern(x, c):
        u = (5.0 * (x - c).square().sum()).sqrt() / 1.2
        return (1 + u + u**2 / 3) * torch.exp(-u)

    points = cloud(80, d)
    given = torch.linspace(0.3, 1.4, d).tolist() if scales == "list" else scales
    kernel, plain = kernels[inner]
    kernel = ARD(kernel, scales=given).fit(points)
    transform = {
        "list": lambda: torch.diag(torch.tensor(given, dtype=F64)),
        "standard_deviation": lambda: torch.diag(covariance(points).diagonal().rsqrt()),
        "mahalanobis": lambda: root_of(covariance(points), lambda levels: 1.0 / levels),
        "signal_to_noise": lambda: root_of(covariance(points), lambda levels: (levels - levels.min()) / levels),
    }[scales]()
    x, centres, drift = points[:5], points[5:9] + 0.1, draw(5, d, seed=2)
    value, gradient, hessian = derivatives(lambda a, c: plain(a @ transform, c @ transform), x, centres)
    torch.testing.assert_close(kernel_block(kernel, x, centres), value, rtol=1e-9, atol=1e-11)
    for diffusion, matrices in diffusions(5, d):
        expected = torch.einsum("nms,ns->nm", gradient, drift) + torch.einsum("nmst,nst->nm", hessian, matrices)
        block = generator_block(kernel, x, centres, drift, diffusion)
        torch.testing.assert_close(block, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def root_of(symmetric: torch.Tensor, function) -> torch.Tensor:
    """The square root of a function of a symmetric matrix, in another way than the kernel's: by Schur-free SVD."""
    axes, levels, _ = torch.linalg.svd(symmetric)
    return axes @ torch.diag(function(levels).clamp_min(0.0).sqrt()) @ axes.T


# ---- the rules ----


def test_given_scales_are_weights_of_coordinates():
    x, c = draw(4, 3), draw(5, 3, seed=1)
    w = torch.tensor([0.5, 1.0, 3.0], dtype=F64)
    expected = torch.exp(-0.5 * ((x[:, None] - c[None]) * w).square().sum(-1))
    torch.testing.assert_close(kernel_block(ARD(RBF(bandwidth=1.0), scales=w.tolist()), x, c), expected)


def test_standard_deviation():
    points = cloud(300, 4)
    variances = matrix(ARD(RBF(bandwidth=1.0), scales="standard_deviation").fit(points)).diagonal().reciprocal()
    torch.testing.assert_close(variances, points.var(0, correction=0), rtol=1e-12, atol=0.0)


def test_mahalanobis_is_the_inverse_covariance():
    points = cloud(300, 4)
    metric = matrix(ARD(RBF(bandwidth=1.0), scales="mahalanobis").fit(points))
    torch.testing.assert_close(metric @ covariance(points), torch.eye(4, dtype=F64), rtol=0.0, atol=1e-11)


def test_mahalanobis_does_not_depend_on_coordinates():
    """Points in other coordinates y = B x + v have the same kernel; with the plain metric they have not."""
    points = cloud(60, 3)
    moved = points @ (torch.eye(3, dtype=F64) + 0.4 * draw(3, 3, seed=3)) + 1.0
    for scales, invariant in (("mahalanobis", True), ("standard_deviation", False)):
        one, other = (kernel_block(ARD(RBF(), scales=scales).fit(p), p, p) for p in (points, moved))
        assert (float((one - other).abs().max()) < 1e-10) == invariant


def test_mahalanobis_of_points_in_a_plane():
    """Rank 2 in 4 dimensions: the metric is the pseudo-inverse, and directions off the plane have no weight."""
    plane = draw(50, 2) @ draw(2, 4, seed=1)
    fitted = ARD(RBF(bandwidth=1.0), scales="mahalanobis").fit(plane)
    torch.testing.assert_close(matrix(fitted), torch.linalg.pinv(covariance(plane), rtol=1e-10), rtol=1e-8, atol=1e-10)
    assert torch.linalg.matrix_rank(matrix(fitted), rtol=1e-10) == 2
    assert fitted.describe()["metric_trace"] == pytest.approx(float(matrix(fitted).trace()), rel=1e-12)


def test_mahalanobis_of_fewer_points_than_coordinates():
    points = draw(5, 9)
    metric = matrix(ARD(RBF(bandwidth=1.0), scales="mahalanobis").fit(points))
    assert torch.linalg.matrix_rank(metric, rtol=1e-10) == 4
    centred = points - points.mean(0)
    # all 5 points are at Mahalanobis distance sqrt(N - 1) of their mean, and 2N of each other
    torch.testing.assert_close((centred @ metric * centred).sum(1), torch.full((5,), 4.0, dtype=F64))


def test_signal_to_noise_keeps_the_share_of_signal():
    """Known spectrum: levels 10, 4, 1, 1 with the floor 1: gains 0.9, 0.75, 0, 0 along known axes."""
    axes, _ = torch.linalg.qr(draw(4, 4, seed=4))
    levels = torch.tensor([10.0, 4.0, 1.0, 1.0], dtype=F64)
    white = torch.linalg.qr(draw(40, 5, seed=5))[0]
    white = torch.linalg.qr(torch.cat([torch.ones(40, 1, dtype=F64), white[:, :4]], 1))[0][:, 1:] * math.sqrt(40.0)
    points = white * levels.sqrt() @ axes.T  # mean 0 and covariance U diag(levels) U^T, exactly
    metric = matrix(ARD(RBF(bandwidth=1.0), scales="signal_to_noise").fit(points))
    gains = torch.tensor([0.9, 0.75, 0.0, 0.0], dtype=F64)
    torch.testing.assert_close(metric, axes * gains @ axes.T, rtol=0.0, atol=1e-12)
    given = matrix(ARD(RBF(bandwidth=1.0), scales="signal_to_noise", noise=2.5).fit(points))
    gains = torch.tensor([0.75, 0.375, 0.0, 0.0], dtype=F64)
    torch.testing.assert_close(given, axes * gains @ axes.T, rtol=0.0, atol=1e-12)
    without = matrix(ARD(RBF(bandwidth=1.0), scales="signal_to_noise", noise=0.0).fit(points))
    torch.testing.assert_close(without, torch.eye(4, dtype=F64), rtol=0.0, atol=1e-12)


def test_signal_to_noise_tells_clusters_apart_in_noise():
    """Two clusters 6 apart in 1 of 40 directions with noise of variance 1: plain distances hardly show them.

    A plain squared distance is 36 [different] + 2 chi2(40): mean 80 or 116, deviation 2 sqrt(80) = 18. Weighted with
    the true noise n = 1 the signal's level is 10 and its gain 0.9; of the other 39 levels, by Marchenko-Pastur below
    (1 + sqrt(40 / 400))^2 = 1.73 but for 5 %, the positive parts leave less than 0.45 each, on average 0.13 and in
    all some 5 x 2: 32 against 10.
    """
    label = torch.arange(400) % 2
    points = draw(400, 40)
    points[:, 0] += 6.0 * label

    def separation(kernel):
        squared = -2.0 * kernel_block(kernel.fit(points), points, points).log() * 20.0**2
        same = label[:, None] == label[None]
        off = ~torch.eye(400, dtype=torch.bool)
        return float((squared[~same].mean() - squared[same & off].mean()) / squared[same & off].mean())

    plain = separation(ARD(RBF(bandwidth=20.0), scales=[1.0] * 40))
    weighted = separation(ARD(RBF(bandwidth=20.0), scales="signal_to_noise", noise=1.0))
    assert plain == pytest.approx(36.0 / 80.0, rel=0.1)
    assert weighted > 4.0 * plain


# ---- fit ----


def test_the_kernel_is_fitted_on_transformed_points():
    points = cloud(100, 3)
    fitted = ARD(RBF(bandwidth="median", factor=0.5), scales="standard_deviation").fit(points)
    assert fitted.kernel.length == pytest.approx(0.5 * median_distance(points / points.std(0, correction=0)), rel=1e-12)
    assert ARD(RBF(bandwidth="median"), scales=[2.0] * 3).fit(points).kernel.length == pytest.approx(
        2 * median_distance(points)
    )


@pytest.mark.parametrize("scales", SCALES[1:])
def test_fit_is_a_copy_and_may_be_repeated(scales):
    kernel, points = ARD(RBF(), scales=scales), cloud(60, 3)
    with pytest.raises(ParameterError, match="not resolved"):
        kernel_block(kernel, points, points)
    fitted = kernel.fit(points)
    with pytest.raises(ParameterError, match="not resolved"):
        kernel.arguments()
    again = fitted.fit(3.0 * points)
    torch.testing.assert_close(  # every rule but the gains, which have no unit, undoes a change of unit
        matrix(again), matrix(fitted) / (1.0 if scales == "signal_to_noise" else 9.0), rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(kernel_block(again, 3.0 * points, 3.0 * points), kernel_block(fitted, points, points))


def test_arguments_are_the_same_objects_each_time():
    """So that the root of a full metric is taken once, not at every tile."""
    fitted = ARD(Product([RBF(bandwidth=1.0), Polynomial(length=1.0)]), scales="mahalanobis").fit(cloud(30, 3))
    first, again = fitted.arguments(), fitted.arguments()
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert first[0].root is again[0].root
    torch.testing.assert_close(first[0].root @ first[0].root.T, first[0].metric, rtol=1e-12, atol=1e-14)


def test_scales_nest():
    """Mahalanobis of points that were weighted before is Mahalanobis."""
    points = cloud(60, 3)
    nested = ARD(ARD(RBF(), scales="mahalanobis"), scales=[0.2, 1.0, 5.0]).fit(points)
    plain = ARD(RBF(), scales="mahalanobis").fit(points)
    torch.testing.assert_close(kernel_block(nested, points, points), kernel_block(plain, points, points))


@pytest.mark.parametrize("scales", SCALES[1:])
def test_float32_points(scales):
    points = cloud(60, 3)
    expected = kernel_block(ARD(RBF(), scales=scales).fit(points), points, points)
    single = points.float()
    block = kernel_block(ARD(RBF(), scales=scales).fit(single), single, single)
    assert block.dtype == torch.float32
    torch.testing.assert_close(block.double(), expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("scales", SCALES[1:])
def test_constant_coordinates_have_no_weight(scales):
    points = cloud(60, 3)
    points[:, 1] = 0.1  # its mean and deviation are rounding
    metric = matrix(ARD(RBF(bandwidth=1.0), scales=scales, noise=None).fit(points))
    assert float(metric[1].abs().max()) < 1e-10 * float(metric.abs().max())
    assert bool(metric.isfinite().all())


@pytest.mark.parametrize("scales", SCALES[1:])
@pytest.mark.parametrize("bad", ["equal", "nan", "none", "infinite"])
def test_degenerate_points(scales, bad):
    points = {
        "equal": torch.full((7, 3), 0.1, dtype=F64),
        "nan": torch.full((7, 3), math.nan, dtype=F64),
        "none": torch.zeros(0, 3, dtype=F64),
        "infinite": torch.full((7, 3), math.inf, dtype=F64),
    }[bad]
    with pytest.raises(NumericalError, match="ARD"):
        ARD(RBF(bandwidth=1.0), scales=scales).fit(points)


def test_nothing_above_the_noise():
    for kernel in (ARD(scales="signal_to_noise", noise=100.0), ARD(scales="signal_to_noise")):
        with pytest.raises(NumericalError, match="nowhere above the noise"):
            kernel.fit(draw(50, 1))


def test_wrong_number_of_scales():
    kernel = ARD(RBF(bandwidth=1.0), scales=[1.0, 2.0])
    with pytest.raises(ShapeError, match="one scale a coordinate"):
        kernel.fit(draw(10, 3))
    for scales in ([1.0, 2.0], [1.0]):  # one weight would broadcast
        with pytest.raises(ShapeError, match="differ in dimension"):
            kernel_block(ARD(RBF(bandwidth=1.0), scales=scales), draw(4, 3), draw(4, 3))


# ---- parameters ----


@pytest.mark.parametrize("scales", [[], [1.0, 0.0], [1.0, -1.0], [math.nan], [math.inf], "std"])
def test_bad_scales(scales):
    with pytest.raises(ParameterError, match="scales"):
        ARD(RBF(), scales=scales)


@pytest.mark.parametrize(("scales", "noise"), [("mahalanobis", 1.0), ([1.0], 1.0), ("signal_to_noise", -1.0)])
def test_bad_noise(scales, noise):
    with pytest.raises(ParameterError, match="bad noise"):
        ARD(RBF(), scales=scales, noise=noise)


def test_smoothness_and_record():
    assert ARD(Matern32()).smoothness == 1
    assert ARD(RBF(bandwidth=2.0), scales=[1.0, 2.0]).describe() == {
        "scales": [1.0, 2.0],
        "noise": None,
        "metric_trace": 5.0,
        "kernel": {"class": "RBF", "bandwidth": 2.0, "factor": 1.0, "length": 2.0},
    }


def test_signature():
    signature = read_signature(ARD)
    assert signature.names == ("kernel", "scales", "noise")
    assert signature.nested["kernel"].kind == "kernels"
    for scales in ([0.5, 2.0], "mahalanobis"):
        assert signature.model.model_validate({"scales": scales}).scales == scales
    for scales in ([0.5, -2.0], "std"):
        with pytest.raises(ValueError, match="scales"):
            signature.model.model_validate({"scales": scales})
