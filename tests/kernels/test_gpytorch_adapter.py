"""gpytorch kernels: closed forms against gpytorch's own values, derivatives against formulas and autograd."""

from __future__ import annotations

import math

import gpytorch.kernels as theirs
import pytest
import torch

from kfpbench.errors import CapabilityError, NumericalError, ParameterError, ShapeError
from kfpbench.kernels.ard import ARD
from kfpbench.kernels.gpytorch_adapter import GPyTorchKernel, closed_form
from kfpbench.kernels.jet import JetKernel, has_formula
from kfpbench.kernels.matern32 import Matern32
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pairwise import generator_block, kernel_block
from kfpbench.operators.pencil import require_smooth
from kfpbench.operators.tiled import TiledGram
from kfpbench.protocols import BlockKernel, Kernel
from kfpbench.suite.signature import read_signature

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def set_to(kernel, **values):
    kernel = kernel.double()
    kernel.initialize(**{name: torch.as_tensor(value, dtype=F64) for name, value in values.items()})
    return kernel


def their_values(kernel, x, centres):
    with torch.no_grad():
        return kernel.double()(x, centres).to_dense()


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


def check_generator(kernel, function, x, centres, drift, tolerance, first_order=False):
    """The generator of a kernel against gradient and Hessian of a two-point function."""

    def everywhere(derivative):
        return torch.func.vmap(torch.func.vmap(derivative, (None, 0)), (0, None))(x, centres)

    gradient = everywhere(torch.func.grad(function))
    hessian = gradient[..., None] * 0.0 if first_order else everywhere(torch.func.hessian(function))
    for diffusion, matrices in diffusions(*x.shape)[: 1 if first_order else None]:
        expected = torch.einsum("nms,ns->nm", gradient, drift) + torch.einsum("nmst,nst->nm", hessian, matrices)
        block = generator_block(kernel, x, centres, drift, diffusion)
        bound = tolerance * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(block, expected, rtol=0.0, atol=bound)


# ---- closed forms ----

WEIGHTS = [0.5, 1.1, 2.0]


def squared(x, c, lengths=1.0):
    return ((x - c) / torch.as_tensor(lengths, dtype=F64)).square().sum()


def rough(nu, u):
    return {1.5: lambda: 1 + u, 2.5: lambda: 1 + u + u**2 / 3}[nu]() * torch.exp(-u)


def known():
    """gpytorch kernels whose formula is known, and the formula as a function of two points in 3 dimensions."""
    rbf = set_to(theirs.RBFKernel(), lengthscale=0.8)
    ard = set_to(theirs.RBFKernel(ard_num_dims=3), lengthscale=[WEIGHTS])
    m32 = set_to(theirs.MaternKernel(nu=1.5), lengthscale=1.3)
    m52 = set_to(theirs.MaternKernel(nu=2.5, ard_num_dims=3), lengthscale=[WEIGHTS])
    rq = set_to(theirs.RQKernel(), lengthscale=1.2, alpha=0.6)
    rq_ard = set_to(theirs.RQKernel(ard_num_dims=3), lengthscale=[WEIGHTS], alpha=1.7)
    poly = set_to(theirs.PolynomialKernel(power=3), offset=0.4)
    linear = set_to(theirs.LinearKernel(), variance=0.7)
    linear_ard = set_to(theirs.LinearKernel(ard_num_dims=3), variance=[WEIGHTS])
    scaled = set_to(theirs.ScaleKernel(rbf), outputscale=2.5)
    f = {
        "rbf": lambda x, c: torch.exp(-squared(x, c, 0.8) / 2),
        "rbf, a length a coordinate": lambda x, c: torch.exp(-squared(x, c, WEIGHTS) / 2),
        "matern 3/2": lambda x, c: rough(1.5, (3 * squared(x, c, 1.3)).sqrt()),
        "matern 5/2, a length a coordinate": lambda x, c: rough(2.5, (5 * squared(x, c, WEIGHTS)).sqrt()),
        "rational quadratic": lambda x, c: (1 + squared(x, c, 1.2) / 1.2) ** -0.6,
        "rational quadratic, ard": lambda x, c: (1 + squared(x, c, WEIGHTS) / 3.4) ** -1.7,
        "polynomial": lambda x, c: (x @ c + 0.4) ** 3,
        "linear": lambda x, c: 0.7 * (x @ c),
        "linear, ard": lambda x, c: (x * torch.tensor(WEIGHTS, dtype=F64)) @ c,
        "scaled": lambda x, c: 2.5 * torch.exp(-squared(x, c, 0.8) / 2),
    }
    found = dict(zip(f, (rbf, ard, m32, m52, rq, rq_ard, poly, linear, linear_ard, scaled), strict=True))
    found["sum"] = ard + scaled + poly
    f["sum"] = lambda x, c: f["rbf, a length a coordinate"](x, c) + f["scaled"](x, c) + f["polynomial"](x, c)
    found["product"] = ard * rq
    f["product"] = lambda x, c: f["rbf, a length a coordinate"](x, c) * f["rational quadratic"](x, c)
    found["product of linear ones"] = linear * linear_ard
    f["product of linear ones"] = lambda x, c: f["linear"](x, c) * f["linear, ard"](x, c)
    found["nested"] = set_to(theirs.ScaleKernel(ard * poly + rbf), outputscale=0.3)
    f["nested"] = lambda x, c: 0.3 * (f["rbf, a length a coordinate"](x, c) * f["polynomial"](x, c) + f["rbf"](x, c))
    return {name: (found[name], f[name]) for name in found}


@pytest.mark.parametrize("name", known())
def test_closed_form(name):
    instance, function = known()[name]
    kernel = GPyTorchKernel.of(instance)
    x, centres, drift = draw(6, 3), draw(4, 3, seed=1), draw(6, 3, seed=2)
    expected = their_values(instance, x, centres)
    atol = 1e-12 * float(expected.abs().max())
    torch.testing.assert_close(kernel_block(kernel, x, centres), expected, rtol=0.0, atol=atol)
    check_generator(kernel, function, x, centres, drift, 1e-11, first_order=name == "matern 3/2")
    assert has_formula(kernel)
    assert isinstance(kernel, JetKernel)
    assert isinstance(kernel, Kernel)
    assert not isinstance(kernel, BlockKernel)
    fitted = kernel.fit(x)
    torch.testing.assert_close(kernel_block(fitted, x, centres), expected, rtol=0.0, atol=atol)
    assert "closed_form" in kernel.describe()


def test_values_where_points_meet():
    """gpytorch treats k(x, x) apart; the formulas agree with it there too."""
    x = draw(7, 3)
    for name, (instance, _) in known().items():
        if name != "product of linear ones":  # gpytorch's own product of two roots is approximate for equal points
            expected = their_values(instance, x, x)
            atol = 1e-12 * float(expected.abs().max())
            torch.testing.assert_close(kernel_block(GPyTorchKernel.of(instance), x, x), expected, rtol=0.0, atol=atol)


def test_known_smoothness():
    found = {name: GPyTorchKernel.of(instance).smoothness for name, (instance, _) in known().items()}
    assert {name for name, smoothness in found.items() if smoothness == 1} == {"matern 3/2"}
    assert {name for name, smoothness in found.items() if smoothness == 2} == {"matern 5/2, a length a coordinate"}
    with pytest.raises(ParameterError, match="is known"):
        GPyTorchKernel.of(theirs.MaternKernel(nu=1.5), smoothness=2)
    with pytest.raises(CapabilityError, match="too rough"):
        require_smooth(GPyTorchKernel.of(theirs.MaternKernel(nu=1.5)), 2)


def test_matern_one_half_is_refused():
    for instance in (theirs.MaternKernel(nu=0.5), theirs.ScaleKernel(theirs.MaternKernel(nu=0.5) + theirs.RBFKernel())):
        with pytest.raises(CapabilityError, match="no derivative"):
            GPyTorchKernel.of(instance)


def test_what_has_no_closed_form():
    class Own(theirs.RBFKernel):
        pass  # a subclass may compute anything

    for instance in (
        Own(),
        theirs.PeriodicKernel(),
        theirs.RBFKernel(active_dims=(0,)),
        theirs.RBFKernel() + theirs.CosineKernel(),
        theirs.ScaleKernel(theirs.PeriodicKernel() * theirs.RBFKernel()),
    ):
        assert closed_form(instance) is None
        with pytest.raises(ParameterError, match="smoothness must be declared"):
            GPyTorchKernel.of(instance)


# ---- automatic differentiation ----


class Decay(theirs.Kernel):
    """exp(-|x - c|^2 / 2 - 0.1 (|x|^4 + |c|^4)): not stationary, written with differences."""

    def forward(self, x1, x2, diag=False, **params):
        delta = x1[..., :, None, :] - x2[..., None, :, :]
        weight = torch.exp(-0.1 * x1.square().sum(-1).square())[..., :, None]
        return (
            weight
            * torch.exp(-0.1 * x2.square().sum(-1).square())[..., None, :]
            * torch.exp(-0.5 * delta.square().sum(-1))
        )


class ByCdist(theirs.Kernel):
    def forward(self, x1, x2, diag=False, **params):
        return torch.exp(-(torch.cdist(x1, x2) ** 2))


class ByNorm(theirs.Kernel):
    def forward(self, x1, x2, diag=False, **params):
        return torch.exp(-((x1[..., :, None, :] - x2[..., None, :, :]).norm(dim=-1) ** 2))


class ByRoot(theirs.Kernel):
    def forward(self, x1, x2, diag=False, **params):
        return torch.exp(-((x1[..., :, None, :] - x2[..., None, :, :]).square().sum(-1).sqrt() ** 2))


class OwnRBF(theirs.RBFKernel):
    """gpytorch's RBF, and through it ``covar_dist``, without a closed form."""


class OwnMatern(theirs.MaternKernel):
    pass


def unknown():
    """Kernels without a closed form, and the same as smooth functions of two points in any dimension."""

    def periodic(x, c):  # sin^2 z = (1 - cos 2 z) / 2: smooth where points meet
        return torch.exp(-(1 - torch.cos(2 * math.pi * (x - c) / 2.3)).sum() / 0.9)

    def decay(x, c):
        return torch.exp(-0.5 * (x - c).square().sum() - 0.1 * (x.square().sum() ** 2 + c.square().sum() ** 2))

    def first(x, c):
        return torch.exp(-0.5 * (x[0] - c[0]) ** 2 / 0.49)

    rbf = set_to(OwnRBF(), lengthscale=0.8)
    found = {
        "periodic": (set_to(theirs.PeriodicKernel(), lengthscale=0.9, period_length=2.3), periodic),
        "written with differences": (Decay(), decay),
        "written with cdist": (ByCdist(), lambda x, c: torch.exp(-(x - c).square().sum())),
        "rbf": (rbf, lambda x, c: torch.exp(-squared(x, c, 0.8) / 2)),
        "some coordinates": (set_to(theirs.RBFKernel(active_dims=(0,)), lengthscale=0.7), first),
        "linear": (_Linear(), lambda x, c: x @ c),
        "constant": (_Constant(), lambda x, c: (x * 0.0).sum() + 1.5),
        "sum": (
            Decay() + set_to(theirs.PeriodicKernel(), lengthscale=0.9, period_length=2.3),
            lambda x, c: decay(x, c) + periodic(x, c),
        ),
        "product": (
            set_to(theirs.ScaleKernel(Decay() * set_to(theirs.RBFKernel(), lengthscale=1.0)), outputscale=2.0),
            lambda x, c: 2 * decay(x, c) * torch.exp(-squared(x, c) / 2),
        ),
    }
    return found


class _Linear(theirs.LinearKernel):
    def forward(self, x1, x2, **params):
        return x1 @ x2.mT


class _Constant(theirs.Kernel):
    def forward(self, x1, x2, **params):
        return torch.full((len(x1), len(x2)), 1.5, dtype=x1.dtype)


@pytest.mark.parametrize("name", unknown())
@pytest.mark.parametrize("d", [1, 3])
def test_autograd(name, d):
    """Points that meet a centre are among them: there the distance is off by 4e-11, times fourth derivatives."""
    instance, function = unknown()[name]
    kernel = GPyTorchKernel.of(instance, smoothness=math.inf)
    x, drift = draw(6, d), draw(6, d, seed=2)
    centres = torch.cat([x[:2], draw(3, d, seed=1)])
    torch.testing.assert_close(
        kernel_block(kernel, x, centres), their_values(instance, x, centres), rtol=0.0, atol=1e-14
    )
    check_generator(kernel, function, x, centres, drift, 3e-8)
    away = draw(4, d, seed=1)
    check_generator(kernel, function, x, away, drift, 3e-9)
    assert isinstance(kernel, BlockKernel)
    assert isinstance(kernel, Kernel)
    assert not has_formula(kernel)
    fitted = kernel.fit(x)
    assert torch.equal(kernel_block(fitted, x, centres), kernel_block(kernel, x, centres))
    assert isinstance(fitted, BlockKernel)


def test_cosine():
    """cos(pi r / p), which is smooth in x since even in r; autograd of |x - c| alone would give 0 where points meet."""
    kernel = GPyTorchKernel.of(set_to(theirs.CosineKernel(), period_length=2.0), smoothness=math.inf)
    x = draw(5, 2)
    block = generator_block(kernel, x, x, draw(5, 2, seed=1), Diffusion.constant(1.0))
    # the Laplacian of cos(w r) at r = 0 is -d w^2
    torch.testing.assert_close(
        block.diagonal(), torch.full((5,), -2 * (math.pi / 2) ** 2, dtype=F64), rtol=0.0, atol=1e-8
    )
    off = [(0, 1), (2, 3), (4, 0)]
    for i, j in off:
        a, w = (x[i] - x[j]), math.pi / 2
        r = float(a.norm())
        expected = (
            -(w**2) * math.cos(w * r)
            - w * math.sin(w * r) / r
            + float(draw(5, 2, seed=1)[i] @ a) * (-w * math.sin(w * r) / r)
        )
        assert float(block[i, j]) == pytest.approx(expected, abs=1e-9)


def test_matern_by_autograd_is_the_closed_form():
    """Matern-5/2 through |x - c|: two derivatives, by autograd as by h' and h'', on the diagonal as off it."""
    x, drift = draw(8, 3), draw(8, 3, seed=1)
    closed = GPyTorchKernel.of(set_to(theirs.MaternKernel(nu=2.5), lengthscale=0.9))
    other = GPyTorchKernel.of(set_to(OwnMatern(nu=2.5), lengthscale=0.9), smoothness=2)
    for diffusion, _ in diffusions(8, 3):
        block = generator_block(closed, x, x, drift, diffusion)
        torch.testing.assert_close(generator_block(other, x, x, drift, diffusion), block, rtol=0.0, atol=1e-8)


def test_their_own_autograd_would_lose_the_diagonal():
    """The defect that the adapter avoids: gpytorch's cut at zero stops the derivative where s rounds below."""
    x = (10.0 * draw(40, 3)).requires_grad_(True)
    values = theirs.RBFKernel().double()(x, x.detach().clone()).to_dense()
    (gradient,) = torch.autograd.grad(values.diagonal().sum(), x, create_graph=True)
    laplacian = sum(torch.autograd.grad(gradient[:, s].sum(), x, retain_graph=True)[0][:, s] for s in range(3))
    length = theirs.RBFKernel().lengthscale.item()
    right = (laplacian + 3 / length**2).abs() < 1e-3
    assert not bool(right.all())
    kernel = GPyTorchKernel.of(set_to(OwnRBF(), lengthscale=length), smoothness=math.inf)
    block = generator_block(kernel, x.detach(), x.detach(), torch.zeros(40, 3, dtype=F64), Diffusion.constant(1.0))
    torch.testing.assert_close(block.diagonal(), torch.full((40,), -3 / length**2, dtype=F64), rtol=0.0, atol=1e-7)


def test_lost_derivatives_are_found():
    """A norm loses its derivative silently where points meet, a square root gives NaN, e^-r has a kink."""
    points = draw(20, 2)
    with pytest.raises(CapabilityError, match="lost where a point meets"):
        GPyTorchKernel.of(ByNorm(), smoothness=math.inf).fit(points)
    with pytest.raises(CapabilityError, match="lost where a point meets"):
        GPyTorchKernel.of(OwnMatern(nu=0.5), smoothness=2).fit(points)
    with pytest.raises(NumericalError, match="not finite"):
        GPyTorchKernel.of(ByRoot(), smoothness=math.inf).fit(points)
    for honest in (ByNorm(), OwnMatern(nu=1.5)):
        assert GPyTorchKernel.of(honest, smoothness=1).fit(points).smoothness == 1


def test_a_rough_kernel_in_first_order():
    x, drift = draw(6, 2), draw(6, 2, seed=1)
    kernel = GPyTorchKernel.of(set_to(OwnMatern(nu=1.5), lengthscale=1.3), smoothness=1)
    zero = Diffusion.constant(0.0)
    expected = generator_block(Matern32(bandwidth=1.3), x, x, drift, zero)
    torch.testing.assert_close(generator_block(kernel, x, x, drift, zero), expected, rtol=0.0, atol=1e-8)


def test_backends_agree():
    x, centres, drift = draw(30, 2), draw(11, 2, seed=1), draw(30, 2, seed=2)
    kernel = GPyTorchKernel.of(theirs.PeriodicKernel(), smoothness=math.inf)
    diffusion = diffusions(30, 2)[-1][0]
    right = draw(11, 3, seed=3)
    dense, tiled = DenseGram(), TiledGram(tile=7)
    torch.testing.assert_close(
        tiled.gram(kernel, x, centres).matmul(right), dense.gram(kernel, x, centres).matmul(right), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        tiled.generator_gram(kernel, x, centres, drift, diffusion).matmul(right),
        dense.generator_gram(kernel, x, centres, drift, diffusion).matmul(right),
        rtol=0,
        atol=1e-9,
    )


def test_equal_products_of_roots_are_exact():
    """gpytorch factors the product of two linear kernels of equal points approximately; blocks here are exact."""
    x = draw(30, 2)
    kernel = GPyTorchKernel.of(theirs.LinearKernel() * theirs.LinearKernel(active_dims=(0,)), smoothness=math.inf)
    expected = math.log(2.0) ** 2 * (x @ x.T) * x[:, :1] * x[:, 0]
    torch.testing.assert_close(kernel_block(kernel, x, x), expected, rtol=1e-6, atol=1e-6)


def test_max_dim():
    x = draw(4, 3)
    kernel = GPyTorchKernel.of(theirs.PeriodicKernel(), smoothness=math.inf, max_dim=2)
    with pytest.raises(CapabilityError, match="too costly"):
        require_smooth(kernel, 2, 3)
    with pytest.raises(CapabilityError, match="too costly"):
        generator_block(kernel, x, x, x, Diffusion.constant(1.0))
    assert generator_block(kernel, x, x, x, Diffusion.constant(0.0)).shape == (4, 4)
    assert kernel.fit(x).max_dim == 2


def test_float32():
    x, drift = draw(8, 2), draw(8, 2, seed=1)
    kernel = GPyTorchKernel.of(theirs.PeriodicKernel(), smoothness=math.inf)
    double = generator_block(kernel, x, x, drift, Diffusion.constant(0.5))
    single = generator_block(kernel, x.float(), x.float(), drift.float(), Diffusion.constant(0.5))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0.0, atol=5e-3 * float(double.abs().max()))
    assert kernel_block(kernel, x.float(), x.float()).dtype == torch.float32


# ---- hyperparameters ----


def test_nothing_is_trained():
    """The instance is copied and detached; blocks carry no graph, and gradients leave no trace in it."""
    instance = theirs.ScaleKernel(theirs.PeriodicKernel())
    kernel, x = GPyTorchKernel.of(instance, smoothness=math.inf), draw(5, 2)
    before = kernel_block(kernel, x, x)
    instance.initialize(outputscale=torch.tensor(9.0))
    assert torch.equal(kernel_block(kernel, x, x), before)
    block = generator_block(kernel, x, x, x, Diffusion.constant(1.0))
    assert not before.requires_grad
    assert not block.requires_grad
    assert all(parameter.grad is None and parameter.requires_grad for parameter in instance.parameters())
    with torch.no_grad():
        assert torch.equal(generator_block(kernel, x, x, x, Diffusion.constant(1.0)), block)


def test_by_name():
    kernel = GPyTorchKernel("RBFKernel", lengthscale=0.7)
    x = draw(5, 2)
    torch.testing.assert_close(kernel_block(kernel, x, x), kernel_block(RBF(bandwidth=0.7), x, x), rtol=0, atol=1e-14)
    ard = GPyTorchKernel("RBFKernel", options={"ard_num_dims": 2}, hyperparameters={"lengthscale": [0.5, 2.0]})
    expected = kernel_block(ARD(RBF(bandwidth=1.0), scales=[2.0, 0.5]), x, x)
    torch.testing.assert_close(kernel_block(ard, x, x), expected, rtol=0, atol=1e-14)
    with pytest.raises(ShapeError):
        ard.fit(draw(5, 3))
    periodic = GPyTorchKernel(
        "PeriodicKernel", lengthscale=0.9, hyperparameters={"period_length": 2.3}, smoothness=math.inf, max_dim=3
    )
    record = periodic.describe()
    assert (record["module"], record["max_dim"], record["smoothness"]) == ("PeriodicKernel", 3, math.inf)
    assert record["hyperparameters"]["period_length"] == pytest.approx(2.3, rel=1e-14)
    assert record["hyperparameters"]["lengthscale"] == pytest.approx(0.9, rel=1e-14)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"module": "NoKernel"}, "no kernel of that name"),
        ({"module": "keops"}, "no kernel of that name"),
        ({"module": "RBFKernel", "options": {"batch_shapes": 3, "power": 1, "nu": []}, "lengthscale": -1.0}, "refuses"),
        ({"module": "MaternKernel", "options": {"nu": 3.5}}, "refuses"),
        ({"module": "PolynomialKernel"}, "refuses"),
        ({"module": "PolynomialKernel", "options": {"power": 2}, "lengthscale": 1.0}, "refuses"),
        ({"module": "RBFKernel", "hyperparameters": {"period": 1.0}}, "refuses"),
        ({"module": "PeriodicKernel"}, "smoothness must be declared"),
        ({"module": "PeriodicKernel", "smoothness": 0.0}, "smoothness must be declared"),
        ({"module": "PeriodicKernel", "smoothness": 2, "max_dim": 0}, "bad max_dim"),
    ],
)
def test_bad_parameters(given, match):
    with pytest.raises(ParameterError, match=match):
        GPyTorchKernel(**given)


def test_batches_and_several_outputs_are_refused():
    with pytest.raises(CapabilityError, match="batch"):
        GPyTorchKernel.of(theirs.RBFKernel(batch_shape=torch.Size([2])))
    kernel = GPyTorchKernel.of(theirs.RBFKernelGrad(), smoothness=math.inf)
    with pytest.raises(ShapeError, match="one number"):
        kernel_block(kernel, draw(4, 2), draw(3, 2))


def test_signature():
    signature = read_signature(GPyTorchKernel)
    assert signature.nested == {}
    assert signature.names == ("module", "options", "lengthscale", "hyperparameters", "smoothness", "max_dim")
    model = signature.model.model_validate(
        {"module": "RBFKernel", "options": {"ard_num_dims": 2}, "hyperparameters": {"lengthscale": [1.0, 2.0]}}
    )
    assert model.options == {"ard_num_dims": 2}
