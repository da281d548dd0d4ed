"""The mixture's moments are the data's, and its draws follow alpha x_0 + sigma eps exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.data.shared_cost import billed
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.samplers.jump import Jump
from kfpbench.scores.gaussian import GaussianScore
from kfpbench_baselines.gaussian_mixture import GaussianMixture

CPU, D = torch.device("cpu"), 6
COUNTS = (300, 200, 100)


def blobs():
    """Three clusters far apart in six dimensions, with correlations of their own, and their labels."""
    rng = np.random.default_rng(5)
    rows = [
        rng.standard_normal((count, D)) @ (0.3 * rng.standard_normal((D, D))) + 8.0 * rng.standard_normal(D)
        for count in COUNTS
    ]
    order = rng.permutation(sum(COUNTS))
    labels = np.repeat([0, 1, 2], COUNTS)[order]
    train = np.concatenate(rows)[order].astype(np.float32)
    return Dataset("blobs", train, train[:0], train[:0], train_labels=labels, fingerprint="blobs of a test")


DATA = blobs()


def make(process=None, data=DATA):
    score = GaussianScore().bind(data, CPU, torch.float64)
    return Problem(data, process or VarianceExploding(0.5, 20.0), score, CPU, torch.float64, 0)


@dataclass(frozen=True)
class GivenNoise:
    integers: torch.Tensor  # (n,)
    draws: torch.Tensor  # (n, d)

    def uniform_integers(self, draw, high):
        assert draw == 0
        return self.integers

    def normal(self, draw):
        assert draw == 1
        return self.draws


# one float32 product of the fit sums b <= 4096 terms: relative error below b * 2^-24 of the sum of absolute values
ROUNDING = sum(COUNTS) * 2.0**-24


@pytest.mark.parametrize("rank", [0, 2, D, 50])
@pytest.mark.parametrize("by", ["kmeans", "class"])
def test_mean_and_trace_are_the_datas(rank, by):
    mixture = GaussianMixture(3, rank, by=by).mixture(DATA, 0)
    moments = training_moments(DATA)
    scale = float(np.abs(DATA.train - moments.mean).max())
    mean = mixture.weights @ mixture.means  # centred coordinates: 0
    assert np.abs(mean).max() < 4 * ROUNDING * scale
    within = np.concatenate(
        [np.diagonal(mixture.covariances, axis1=1, axis2=2), mixture.variances], axis=1
    )  # (K, d): of every axis
    total = mixture.weights @ (within + mixture.means**2) - mean**2
    np.testing.assert_allclose(total, moments.variances, atol=8 * ROUNDING * scale**2)
    assert mixture.covariances.shape[1] == min(rank, D)


def test_clusters_far_apart_are_found():
    found, given = (GaussianMixture(3, D, by=by).mixture(DATA, 0) for by in ("kmeans", "class"))
    np.testing.assert_allclose(sorted(given.weights), sorted(np.array(COUNTS) / 600))
    order = [np.argmin(((found.means - mean) ** 2).sum(1)) for mean in given.means]
    np.testing.assert_allclose(found.weights[order], given.weights)
    np.testing.assert_allclose(found.covariances[order], given.covariances, rtol=1e-6, atol=1e-6)
    moments = training_moments(DATA)
    for label in range(3):
        rows = (DATA.train[DATA.train_labels == label] - moments.mean) @ moments.basis
        np.testing.assert_allclose(given.means[label], rows.mean(0), atol=1e-4)
        np.testing.assert_allclose(given.covariances[label], np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rank", [0, 2, D])
@pytest.mark.parametrize("process", [VarianceExploding(0.5, 20.0), VariancePreserving(t_min=0.3)], ids=["ve", "vp"])
def test_each_component_is_drawn_from_its_smoothed_gaussian(process, rank):
    # fed with 0 and the basis vectors, the affine draw shows mean and covariance of a component exactly
    problem = make(process)
    fitted = GaussianMixture(3, rank, by="class").fit(problem)
    moments = training_moments(DATA)
    alpha, sigma = process.alpha(process.t_min), process.sigma(process.t_min)
    inside = (np.cumsum(COUNTS) - np.array(COUNTS) / 2) / 600 * 2**31  # an integer within each component's share
    draws = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
    for component in range(3):
        noise = GivenNoise(torch.full((D + 1,), int(inside[component])), draws)
        assert fitted.components(noise).unique().tolist() == [component]
        rows = fitted.sample(noise).numpy()
        response = rows[1:] - rows[0]
        own = DATA.train[DATA.train_labels == component].astype(np.float64)
        np.testing.assert_allclose(rows[0], alpha * own.mean(0), atol=1e-4)
        covariance = moments.basis.T @ np.cov(own.T, bias=True) @ moments.basis
        kept = np.diag(np.diag(covariance))
        kept[:rank, :rank] = covariance[:rank, :rank]
        expected = moments.basis @ (alpha**2 * kept + sigma**2 * np.eye(D)) @ moments.basis.T
        np.testing.assert_allclose(response.T @ response, expected, rtol=1e-3, atol=1e-3)


def test_clusters_with_fewer_rows_than_axes_and_little_noise():
    """Ten rows a cluster span nine of 64 axes; in the others the covariance is 0, and 4e-6 of t_min all there is.

    Products in float32 of rows of scale 30 would err by some 1e-4 there, and have no Cholesky factor.
    """
    rng = np.random.default_rng(0)
    rows = (30.0 * rng.standard_normal((200, 64))).astype(np.float32)
    data = Dataset("few", rows, rows[:0], rows[:0], train_labels=np.arange(200) % 20)
    fitted = GaussianMixture(rank=64, by="class").fit(make(VarianceExploding(0.002, 80.0), data))
    smallest = np.linalg.eigvalsh((fitted.factors @ fitted.factors.mT).numpy())[:, :55]
    # float64: 1e-16 of the largest eigenvalue, below 64 * 30^2 = 6e4
    np.testing.assert_allclose(smallest, 4e-6, rtol=1e-3)


def test_one_component_of_full_rank_is_the_gaussian_marginal():
    problem = make()
    fitted, moments = GaussianMixture(1, D).fit(problem), training_moments(DATA)
    draws = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
    rows = fitted.sample(GivenNoise(torch.zeros(D + 1, dtype=torch.int64), draws)).numpy()
    spread = (moments.basis * (moments.variances + 0.25)) @ moments.basis.T
    np.testing.assert_allclose((rows[1:] - rows[0]).T @ (rows[1:] - rows[0]), spread, rtol=1e-4, atol=1e-4)


def test_components_come_with_their_weights():
    # counts of n draws are multinomial: Pearson's statistic is chi^2 with 2 degrees, above 23.03 with probability 1e-5
    fitted, n = GaussianMixture(3, by="class").fit(make()), 30_000
    which = fitted.components(NoiseStream.of_range(4, 0, n, D, CPU, torch.float64))
    counts, expected = np.bincount(which, minlength=3), n * np.array(COUNTS) / 600
    assert ((counts - expected) ** 2 / expected).sum() < 23.03


def test_drawn_rows_have_the_smoothed_moments():
    problem, n = make(), 20_000
    rows = GaussianMixture(3, D).fit(problem).sample(NoiseStream.of_range(4, 0, n, D, CPU, torch.float64)).numpy()
    moments = training_moments(DATA)
    y = (rows - moments.mean) @ moments.basis
    spread = moments.variances + 0.25
    assert np.abs(y.mean(0) / np.sqrt(spread / n)).max() < 4.8  # two-sided, 6 axes: 1e-5
    # the sample variance's own standard error, from the drawn fourth moments
    error = np.sqrt(((y - y.mean(0)) ** 2).var(0) / n)
    assert (np.abs(y.var(0) - spread) / error).max() < 4.8
    assert problem.score.evaluations == 0


def test_it_starts_a_refiner():
    problem = make()
    fitted = Jump(GaussianMixture(3), "pf_ode_heun", sigma_star=4.0).fit(problem)
    rows = fitted.sample(NoiseStream.of_range(4, 0, 7, D, CPU, torch.float64))
    assert torch.isfinite(rows).all()
    assert problem.score.evaluations == 7 * 2 * 18  # the refiner's alone


def test_a_second_fit_is_charged_what_the_first_one_took():
    data = replace(DATA, fingerprint="blobs that no other test has fitted")
    with billed() as first:
        one = GaussianMixture(3).mixture(data, 0)
    with billed() as second:
        two = GaussianMixture(3).mixture(data, 0)
    assert one is two
    # what waits itself pays by its own clock; what comes later is charged those seconds
    assert sum(value for key, value in first.items() if key[0] == "gaussian_mixture") == 0
    assert sum(value for key, value in second.items() if key[0] == "gaussian_mixture") > 0
    assert GaussianMixture(3).mixture(data, 1) is not one
    assert GaussianMixture(2).mixture(data, 0) is not one


def test_what_cannot_be_fitted_is_refused():
    unlabelled = replace(DATA, train_labels=None, fingerprint="")
    with pytest.raises(CapabilityError, match="no labels"):
        GaussianMixture(by="class").fit(make(data=unlabelled))
    with pytest.raises(ParameterError, match="more components"):
        GaussianMixture(601).fit(make())


@pytest.mark.parametrize("parameters", [{"components": 0}, {"rank": -1}, {"clustered": 0}, {"by": "colour"}])
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(ParameterError, match=str(next(iter(parameters.values())))):
        GaussianMixture(**parameters)


def test_weights_are_met_by_the_integers_of_the_draw():
    fitted = GaussianMixture(3, by="class").fit(make())
    edges = np.concatenate([[0], fitted.shares.numpy(), [2**31]])
    np.testing.assert_allclose(np.diff(edges) / 2**31, np.array(COUNTS) / 600, atol=1 / 2**31)
    assert math.isclose(fitted.mixture.weights.sum(), 1.0)
