"""Smoothing kernels of the density mode: clipping, the choice of a particle, and the moments of each kernel."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.cluster
import threadpoolctl
import torch

from kfpbench.data.moments import training_moments
from kfpbench.errors import NumericalError
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.operators.marginal import marginal
from kfpbench.processes.ve import VarianceExploding
from kfpbench.samplers.density import Density
from kfpbench.samplers.fokker_planck_weights import WeightedPoints, clipped
from kfpbench.samplers.jump import Jump
from kfpbench.samplers.local_gaussians import LocalGaussians
from kfpbench.samplers.smoothing import Isotropic, choose, silverman

CPU = torch.device("cpu")
VE = VarianceExploding(0.05, 20.0)
Z = 4.4  # standard errors: a two-sided probability of 1e-5


def stream(count, dimension=2, seed=5):
    return NoiseStream.of_range(seed, 0, count, dimension, CPU, torch.float64)


def test_clipping_and_its_record():
    law = WeightedPoints(torch.zeros(4, 1).double(), torch.tensor([0.6, 0.6, -0.3, 0.1]).double())
    record = law.describe()
    assert record["total"] == pytest.approx(1.0)
    assert record["negative_mass"] == pytest.approx(0.3 / 1.6)
    assert record["effective_size"] == pytest.approx(1.3**2 / 0.73)
    assert record["largest_ratio"] == pytest.approx(2.4)
    assert clipped(law.weights).tolist() == pytest.approx([6 / 13, 6 / 13, 0.0, 1 / 13])


@pytest.mark.parametrize("weights", [[-0.5, -0.5], [0.0, 0.0], [0.5, float("nan")], [0.5, float("inf")]])
def test_weights_that_leave_nothing_to_draw_from(weights):
    with pytest.raises(NumericalError, match="nothing to draw"):
        clipped(torch.tensor(weights, dtype=torch.float64))


# ---- smoothing kernels


def test_indices_follow_the_weights():
    weights = torch.tensor([0.1, 0.0, 0.25, 0.65], dtype=torch.float64)
    counts = torch.bincount(choose(weights.cumsum(0), stream(20_000)), minlength=4).numpy()
    assert counts[1] == 0
    kept = [0, 2, 3]
    assert scipy.stats.chisquare(counts[kept], 20_000 * weights.numpy()[kept]).pvalue > 1e-5


def test_silverman_is_the_rule_of_the_plane_and_the_line():
    assert silverman(1000, 1) == pytest.approx((4 / 3) ** 0.2 * 1000**-0.2)
    assert silverman(1000, 2) == pytest.approx(1000 ** (-1 / 6))


def test_isotropic_smoothing_keeps_the_mean_and_the_total_variance(planar):
    frame, at = FRAMES["raw"](planar, CPU, torch.float64), marginal(VE, 1.0)
    y = torch.tensor([[0.0, 1.0], [2.0, -1.0], [5.0, 0.5]]).double()
    weights = torch.tensor([0.2, 0.5, 0.3]).double()
    mean = weights @ y
    centred = y - mean
    covariance = (weights[:, None] * centred).T @ centred
    h, n = 0.7, 40_000
    x = Isotropic.fit(frame, at, y, weights, h, torch.float64).sample(stream(n))
    # the law's covariance in closed form, its trace that of the particles
    expected = (covariance + h**2 * covariance.trace() / 2 * torch.eye(2)) / (1 + h**2)
    assert float(expected.trace()) == pytest.approx(float(covariance.trace()))
    assert ((x.mean(0) - mean).abs() < Z * (expected.diagonal() / n).sqrt()).all()
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert ((products.mean(0) - expected).abs() < Z * products.std(0) / n**0.5).all()


def test_one_cluster_of_full_rank_is_the_weighted_gaussian(gaussian_data):
    moments, rng = training_moments(gaussian_data), np.random.default_rng(3)
    x, weights = torch.from_numpy(gaussian_data.train[:40]).double(), torch.from_numpy(rng.dirichlet(np.ones(40)))
    law = LocalGaussians.fit(x, weights, moments, 0.8, 1, 3, 0, torch.float64)
    mean = weights @ x
    covariance = (weights[:, None] * (x - mean)).T @ (x - mean)
    factor = law.basis @ law.factors[0]
    torch.testing.assert_close(law.basis @ law.means[0] + law.shift, mean)
    torch.testing.assert_close(factor @ factor.T, covariance)
    n = 40_000
    drawn = law.sample(stream(n, 3))
    assert ((drawn.mean(0) - mean).abs() < Z * (covariance.diagonal() / n).sqrt()).all()
    products = (drawn - mean)[:, :, None] * (drawn - mean)[:, None, :]
    assert ((products.mean(0) - covariance).abs() < Z * products.std(0) / n**0.5).all()


def test_low_rank_keeps_every_variance_and_drops_other_covariances(gaussian_data):
    moments = training_moments(gaussian_data)
    x = torch.from_numpy(gaussian_data.train[:100]).double()
    law = LocalGaussians.fit(x, torch.full((100,), 0.01).double(), moments, 1.0, 1, 1, 0, torch.float64)
    z = (x - torch.tensor(moments.mean)) @ torch.tensor(moments.basis)
    assert law.factors.shape == (1, 1, 1)
    assert law.scales.shape == (1, 2)
    found = torch.cat([law.factors[0, 0].square(), law.scales[0].square()])
    torch.testing.assert_close(found, z.var(0, correction=0))


def test_clusters_find_the_modes_and_a_lonely_particle_is_not_copied(ring):
    x = torch.from_numpy(ring.train[:800]).double()
    weights = torch.full((800,), 1 / 800).double()
    law = LocalGaussians.fit(x, weights, training_moments(ring), 1.0, 8, 2, 0, torch.float64)
    centres = law.means @ law.basis.T + law.shift
    gaps = torch.cdist(torch.from_numpy(ring.law.means), centres).min(1).values
    assert gaps.max() < Z * 0.3 * np.sqrt(2 / 60)  # at least 60 of 800 in each mode
    lonely = torch.cat([x, torch.tensor([[30.0, 30.0]]).double()])
    weights = torch.full((801,), 1 / 801).double()
    law = LocalGaussians.fit(lonely, weights, training_moments(ring), 1.0, 9, 2, 0, torch.float64)
    spread = (law.factors @ law.factors.mT).diagonal(dim1=1, dim2=2)
    alone = int(np.argmin(law.effective_sizes))
    assert law.effective_sizes[alone] == pytest.approx(1.0)
    # two pseudo-counts of the mean within-cluster covariance, 0.09 to some per cent, beside none of its own
    assert spread[alone].mean() == pytest.approx(0.09 * 2 / 3, rel=0.2)


def test_clusters_are_sought_on_one_thread(ring, monkeypatch):
    """Threads add up in the order in which they end: two runs of one seed would differ in their last bits."""
    limits = []

    class Watched(sklearn.cluster.KMeans):
        def fit(self, *arguments, **keywords):
            limits.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
            return super().fit(*arguments, **keywords)

    monkeypatch.setattr(sklearn.cluster, "KMeans", Watched)
    x, weights = torch.from_numpy(ring.train[:50]).double(), torch.full((50,), 0.02).double()
    with threadpoolctl.threadpool_limits(limits=2):
        LocalGaussians.fit(x, weights, training_moments(ring), 1.0, 3, 2, 0, torch.float64)
    assert limits
    assert set(limits) == {1}


def test_renoised_particles_have_the_marginal_of_the_process(make_problem, planar):
    """Rank 0, as a start: alpha x_0 + sigma xi over 3,000 rows, from no score evaluation."""
    problem = make_problem(planar, VE)
    start = Density(rank=0, smoothing="renoised", operator=GeneratorOptions(points=3000))
    fitted = Jump(start, "pf_ode_heun", sigma_star=2.0).fit(problem)
    assert problem.score.evaluations == 0
    n = 20_000
    x = fitted.start.sample(stream(n))
    rows = torch.from_numpy(planar.train).double()
    expected = rows.var(0, correction=0) + 4.0
    squares = (x - rows.mean(0)).square()
    # the chosen 3,000 rows are a sample too: its error adds to that of the draws
    error = Z * (squares.std(0) / n**0.5 + (rows - rows.mean(0)).square().std(0) / 3000**0.5)
    assert ((squares.mean(0) - expected).abs() < error).all()
    assert problem.score.evaluations == 0
    assert fitted.sample(stream(20)).shape == (20, 2)
