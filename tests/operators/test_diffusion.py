"""The diffusion matrix: what is refused, and its products, traces, pairings and roots against einsum."""

from __future__ import annotations

import math

import pytest
import torch

from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.operators.diffusion import Diffusion

N, M, D = 6, 4, 3
KINDS = ["scalar", "diagonal", "matrix"]
over_all = pytest.mark.parametrize(
    ("kind", "pointwise"), [(kind, pointwise) for kind in KINDS for pointwise in (False, True)]
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(kind: str, pointwise: bool) -> tuple[Diffusion, torch.Tensor]:
    """A diffusion, and its matrices (N, D, D) written out. The last axis of diagonals does not diffuse at point 0."""
    lead = (N,) if pointwise else ()
    eye = torch.eye(D, dtype=torch.float64)
    if kind == "scalar":
        values = draw(*lead, seed=1).square()
        full = values[..., None, None] * eye
    elif kind == "diagonal":
        values = draw(*lead, D, seed=2).square()
        values.view(-1, D)[0, -1] = 0.0
        full = torch.diag_embed(values)
    else:
        factors = draw(*lead, D, 2, seed=3)  # rank 2: semi-definite
        values = full = factors @ factors.mT
    diffusion = Diffusion.at_points(values) if pointwise else Diffusion.constant(values)
    assert (diffusion.kind, diffusion.pointwise) == (kind, pointwise)
    return diffusion, full.expand(N, D, D)


def metrics() -> list[torch.Tensor | None]:
    square = draw(D, D, seed=4)
    return [None, draw(D, seed=5).square(), square @ square.T]


@over_all
def test_apply(kind, pointwise):
    diffusion, full = make(kind, pointwise)
    vectors = draw(N, D)
    torch.testing.assert_close(diffusion.apply(vectors), torch.einsum("nij,nj->ni", full, vectors))


@over_all
@pytest.mark.parametrize("metric", metrics(), ids=["identity", "diagonal", "matrix"])
def test_trace(kind, pointwise, metric):
    diffusion, full = make(kind, pointwise)
    matrix = torch.eye(D, dtype=torch.float64) if metric is None else torch.diag(metric) if metric.ndim == 1 else metric
    trace = diffusion.trace(metric, D)
    assert trace.shape == ((N,) if pointwise else ())
    torch.testing.assert_close(trace.expand(N), torch.einsum("nij,ji->n", full, matrix))


@over_all
def test_pairs(kind, pointwise):
    diffusion, full = make(kind, pointwise)
    left, right = draw(M, D, seed=6), draw(M, D, seed=7)
    pairs = diffusion.pairs(left, right)
    assert pairs.shape == ((N, M) if pointwise else (M,))
    torch.testing.assert_close(pairs.expand(N, M), torch.einsum("mi,nij,mj->nm", left, full, right))


@over_all
def test_root_fields_sum_to_the_matrix(kind, pointwise):
    diffusion, full = make(kind, pointwise)
    fields = list(diffusion.root_fields(draw(N, D)))
    assert [tuple(field.shape) for field in fields] == [(N, D)] * D
    total = sum(field[:, :, None] * field[:, None, :] for field in fields)
    torch.testing.assert_close(total, full, rtol=1e-12, atol=1e-13)


@over_all
def test_rows(kind, pointwise):
    diffusion, full = make(kind, pointwise)
    for rows in (slice(1, 4), torch.tensor([5, 0, 0])):
        vectors = draw(3, D)
        expected = torch.einsum("nij,nj->ni", full[rows], vectors)
        torch.testing.assert_close(diffusion.rows(rows).apply(vectors), expected)


@over_all
def test_to_takes_the_dtype(kind, pointwise):
    diffusion, _ = make(kind, pointwise)
    assert diffusion.to(torch.zeros(1, dtype=torch.float32)).values.dtype == torch.float32


def test_zero_and_isotropic():
    assert Diffusion.constant(0.0).is_zero
    assert Diffusion.at_points(torch.zeros(4, 2, 2)).is_zero
    assert not Diffusion.constant(torch.tensor([0.0, 1.0])).is_zero
    assert Diffusion.constant(0.5).isotropic == 0.5
    assert Diffusion.constant(torch.full((3,), 0.5)).isotropic == 0.5
    assert Diffusion.at_points(torch.full((7,), 0.5)).isotropic == 0.5
    assert Diffusion.constant(torch.tensor([0.5, 0.6])).isotropic is None
    assert Diffusion.at_points(torch.tensor([0.5, 0.6])).isotropic is None


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_are_finite(pointwise, value):
    for shape in [(3,), (3, 3)]:
        values = torch.zeros(shape)
        values[0] = value
        with pytest.raises(NumericalError, match="NaN or infinity"):
            Diffusion.at_points(values) if pointwise else Diffusion.constant(values)


@pytest.mark.parametrize("values", [-1.0, torch.tensor([1.0, -1e-3])])
def test_negative_values_are_refused(values):
    with pytest.raises(ParameterError, match="negative"):
        Diffusion.constant(values)


def test_negative_values_at_a_point_are_refused():
    for values in (torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 2.0], [0.0, -1.0]])):
        with pytest.raises(ParameterError, match="negative"):
            Diffusion.at_points(values)


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize(
    ("rows", "reason"),
    [([[1.0, 0.5], [0.4, 1.0]], "not symmetric"), ([[1.0, 2.0], [2.0, 1.0]], "not positive semi-definite")],
)
def test_bad_matrices_are_refused(pointwise, rows, reason):
    matrix = torch.tensor(rows, dtype=torch.float64)
    good = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ParameterError, match=reason):
        Diffusion.at_points(torch.stack([good, matrix])) if pointwise else Diffusion.constant(matrix)


def test_rounding_is_forgiven():
    square = draw(5, 2)
    matrix = square @ square.T  # of rank 2: its other eigenvalues are rounding of either sign
    matrix[0, 1] *= 1.0 + 1e-14
    assert Diffusion.constant(matrix).kind == "matrix"


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2), (1, 2, 3, 3)])
def test_shapes_of_constants(shape):
    with pytest.raises(ShapeError, match="constant diffusion"):
        Diffusion.constant(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(), (2, 2, 3), (1, 2, 3, 3)])
def test_shapes_at_points(shape):
    with pytest.raises(ShapeError, match="diffusion at points"):
        Diffusion.at_points(torch.zeros(shape))


@over_all
def test_check_against_points(kind, pointwise):
    diffusion, _ = make(kind, pointwise)
    diffusion.check(draw(N, D))
    if pointwise:
        with pytest.raises(ShapeError, match="does not fit"):
            diffusion.check(draw(N + 1, D))
    if kind != "scalar":
        with pytest.raises(ShapeError, match="does not fit"):
            diffusion.check(draw(N, D + 1))
