"""Agreement with the reference implementations on the same features, to 1e-6 relative.

torchmetrics (Frechet and kernel distance), prdc (precision, recall, density, coverage) and vendi_score; features are
continuous, so that no neighbour is at a boundary, and float32 numbers, as metrics are given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from kfpbench.metrics.density_coverage import DensityCoverage
from kfpbench.metrics.frechet import FrechetDistance, frechet_distance
from kfpbench.metrics.kid import KernelDistance
from kfpbench.metrics.precision_recall import PrecisionRecall
from kfpbench.metrics.vendi import Vendi

SIZES = [(60, 5), (150, 16), (64, 64), (80, 200), (300, 64)]


class Given(nn.Module):
    """Features that are the rows themselves."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, rows):
        return rows


@pytest.fixture(params=SIZES, ids=lambda size: f"n{size[0]}-d{size[1]}")
def clouds(request):
    n, d = request.param
    rng = np.random.default_rng(n + d)
    scales = np.linspace(1.5, 0.5, d)
    x = rng.standard_normal((n, d)) * scales * 1.1 + 0.2
    y = rng.standard_normal((n, d)) * scales
    return x.astype(np.float32), y.astype(np.float32)


def values(metric, make_input, clouds):
    return {m.metric: m.value for m in metric.evaluate(make_input(*clouds))}


def test_torchvision_is_absent():
    """The reference implementations are checked without it: nothing may pull it in."""
    assert importlib.util.find_spec("torchvision") is None


def test_frechet_against_torchmetrics(clouds, make_input):
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = clouds
    metric = FrechetInceptionDistance(feature=Given(x.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(y.astype(np.float64)), real=True)
    metric.update(torch.from_numpy(x.astype(np.float64)), real=False)
    theirs, ours = float(metric.compute()), values(FrechetDistance("identity"), make_input, clouds)["frechet"]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(
        by_singular_values(x, y), rel=1e-9
    )  # singular covariances for n <= d, no root of C1 C2
    assert ours == frechet_distance(x, y)


def by_singular_values(x, y):
    """tr (C1 C2)^(1/2) as the nuclear norm of X Y^T, with rows centred apart."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    gap, n = x.mean(0) - y.mean(0), len(x)
    x, y = x - x.mean(0), y - y.mean(0)
    nuclear = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return gap @ gap + ((x**2).sum() + (y**2).sum() - 2 * nuclear) / (n - 1)


@pytest.mark.parametrize("parameters", [(3, None, 1.0), (2, 0.1, 0.5)])
def test_kid_against_torchmetrics(clouds, make_input, parameters):
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = clouds
    degree, gamma, coef0 = parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that it keeps the features
        theirs = KernelInceptionDistance(
            feature=Given(x.shape[1]), subsets=1, subset_size=len(x), degree=degree, gamma=gamma, coef=coef0
        )
    theirs.update(torch.from_numpy(y.astype(np.float64)), real=True)
    theirs.update(torch.from_numpy(x.astype(np.float64)), real=False)
    ours = KernelDistance(degree=degree, gamma=gamma, coef0=coef0, features="identity")
    assert values(ours, make_input, clouds)["kid"] == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_coverage_against_prdc(clouds, make_input, k):
    from prdc import compute_prdc

    x, y = clouds
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(real_features=y.astype(np.float64), fake_features=x.astype(np.float64), nearest_k=k)
    ours = {
        **values(PrecisionRecall(k, "identity"), make_input, clouds),
        **values(DensityCoverage(k, "identity"), make_input, clouds),
    }
    assert ours == pytest.approx({name: float(value) for name, value in theirs.items()}, rel=1e-6, abs=1e-12)


def test_vendi_against_vendi_score(clouds, make_input):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of scipy, about a name that vendi_score uses
        from vendi_score import vendi

        x, y = (rows.astype(np.float64) for rows in clouds)
        theirs, of_reference = vendi.score_X(x), vendi.score_X(y)
        dual = vendi.score_dual(x)
        gram = np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=2) / (2 * 3.0**2))
        rbf = vendi.score_K(gram), vendi.score_K(gram, q=2)
    ours = values(Vendi(features="identity"), make_input, clouds)
    assert ours["vendi"] == pytest.approx(theirs, rel=1e-6)
    assert ours["vendi"] == pytest.approx(dual, rel=1e-6)
    assert ours["vendi_ratio"] == pytest.approx(theirs / of_reference, rel=1e-6)
    for order, value in zip((1.0, 2.0), rbf, strict=True):
        metric = Vendi(kernel="rbf", bandwidth=3.0, order=order, features="identity")
        assert values(metric, make_input, clouds)["vendi"] == pytest.approx(value, rel=1e-6)
