"""Rank 0 in the whitened frame is the closed-form Gaussian sampler, and both are exact for Gaussian data.

A sampler that draws nothing but its start is an affine map of it; fed with 0 and the basis vectors, it shows that map
without sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg
import torch

from kfpbench.data.moments import training_moments
from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.samplers.koopman import Koopman
from kfpbench_baselines.gaussian import ClosedFormGaussian

PROCESSES = [
    pytest.param(VarianceExploding(0.01, 20.0), id="ve"),
    pytest.param(VariancePreserving(), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.7, stationary_std=1.5, t_max=4.0), id="ou"),
]
SAMPLERS = [pytest.param(ClosedFormGaussian(), id="closed form")] + [
    pytest.param(Koopman(operator=GeneratorOptions(segments=count), rank=0), id=f"koopman, {count} segments")
    for count in (1, 4, 9)
]


@dataclass(frozen=True)
class GivenStart:
    """Stands in for a noise stream: draw 0 is given, no other draw is expected."""

    start: torch.Tensor

    def normal(self, draw: int) -> torch.Tensor:
        assert draw == 0
        return self.start


def affine_map(fitted, dimension):
    """(A, b) with sample = b + A start."""
    rows = torch.cat([torch.zeros(1, dimension), torch.eye(dimension)]).double()
    images = fitted.sample(GivenStart(rows)).numpy()
    return (images[1:] - images[0]).T, images[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("count", [1, 4, 9])
def test_rank_zero_is_the_closed_form(make_problem, gaussian_data, process, count, dtype):
    problem = make_problem(gaussian_data, process, dtype)
    noise = NoiseStream.of_range(2, 0, 500, 3, problem.device, dtype)
    spectral = Koopman(operator=GeneratorOptions(segments=count), rank=0).fit(problem).sample(noise)
    closed = ClosedFormGaussian().fit(problem).sample(noise)
    assert spectral.dtype == closed.dtype == dtype
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]  # some 20 eps: two maps of a dozen operations
    assert (spectral - closed).abs().max() <= tolerance * closed.abs().max()
    assert problem.score.evaluations == 0


@pytest.mark.parametrize("time", ["frozen", "piecewise"])
def test_with_stochasticity_rank_zero_is_another_sampler(make_problem, gaussian_data, time):
    problem = make_problem(gaussian_data, VarianceExploding(0.01, 20.0))
    noise = NoiseStream.of_range(2, 0, 50, 3, problem.device, torch.float64)
    spectral = Koopman(operator=GeneratorOptions(time=time, eta=0.5), rank=0).fit(problem).sample(noise)
    assert (spectral - ClosedFormGaussian().fit(problem).sample(noise)).abs().max() > 0.1


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_map_is_the_optimal_transport_between_the_marginals(make_problem, gaussian_data, process, sampler):
    moments = training_moments(gaussian_data)
    covariance = moments.basis @ np.diag(moments.variances) @ moments.basis.T

    def spread(t):
        return process.alpha(t) ** 2 * covariance + process.sigma(t) ** 2 * np.eye(3)

    first, last = spread(process.t_max), spread(process.t_min)
    matrix, shift = affine_map(sampler.fit(make_problem(gaussian_data, process)), 3)
    start, sigma = process.alpha(process.t_max) * moments.mean, process.sigma(process.t_max)
    # the law N(alpha_T mu, S_T) at t_max becomes N(alpha_0 mu, S_0) exactly
    np.testing.assert_allclose(matrix @ (first / sigma**2) @ matrix.T, last, atol=1e-12 * np.abs(last).max())
    np.testing.assert_allclose(
        matrix @ (start / sigma) + shift, process.alpha(process.t_min) * moments.mean, atol=1e-11
    )
    # and among the maps that do so, it is the flow's: S_0^(1/2) S_T^(-1/2), symmetric since the S_t commute
    flow = scipy.linalg.sqrtm(last) @ np.linalg.inv(scipy.linalg.sqrtm(first)) * sigma
    np.testing.assert_allclose(matrix, flow, atol=1e-10 * np.abs(flow).max())


def test_the_training_rows_decide_the_law(gaussian_data, make_problem):
    process = VarianceExploding(0.01, 20.0)
    rows = gaussian_data.train.astype(np.float64)
    matrix, shift = affine_map(ClosedFormGaussian().fit(make_problem(gaussian_data, process)), 3)
    # sigma_max = 20 against variances up to 3: the start is taken narrower than S_T by up to 3 / 400
    np.testing.assert_allclose(matrix @ matrix.T, np.cov(rows.T, bias=True), atol=0.03)
    np.testing.assert_allclose(shift, rows.mean(0), atol=0.2)
