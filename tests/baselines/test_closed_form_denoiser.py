"""The definition, written with numpy, and its two limits: the mean, and copies of training rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kfpbench.data.mixtures import PlanarMixture
from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.span import split
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.scores.mixture import MixtureScore
from kfpbench_baselines.closed_form_denoiser import ClosedFormDenoiser
from kfpbench_baselines.gaussian import ClosedFormGaussian

CPU = torch.device("cpu")
DATA = PlanarMixture(train=500, validation=10, test=10).load()


def make(process):
    score = MixtureScore().bind(DATA, CPU, torch.float64)
    return Problem(DATA, process, score, CPU, torch.float64, 0)


def noise(count=40):
    return NoiseStream.of_range(2, 0, count, 2, CPU, torch.float64)


@pytest.mark.parametrize("process", [VarianceExploding(0.01, 20.0), VariancePreserving()], ids=["ve", "vp"])
def test_it_is_the_average_of_training_rows_around_the_gaussian_start(process):
    problem, ratio = make(process), 2.0
    before, _ = split(process, ratio)
    start = ClosedFormGaussian().fit(replace(problem, process=before)).sample(noise()).numpy()
    alpha, sigma = process.alpha(before.t_min), process.sigma(before.t_min)
    assert sigma / alpha == pytest.approx(ratio)
    rows = DATA.train.astype(np.float64)
    squared = ((start[:, None] - alpha * rows) ** 2).sum(2)
    average = softmax(-squared / (2 * sigma**2), axis=1) @ rows
    expected = process.alpha(process.t_min) * average + process.sigma(process.t_min) * noise().normal(1).numpy()
    found = ClosedFormDenoiser(ratio, tile=16).fit(problem).sample(noise()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    assert problem.score.evaluations == 0


def test_a_large_level_gives_the_mean_and_a_small_one_copies():
    problem = make(VarianceExploding(1e-4, 1000.0))
    rows = torch.tensor(DATA.train, dtype=torch.float64)
    # D(x) = mean + Cov (x - mean) / sigma^2 + ..., |x| of the order of sigma: a spread of Cov / sigma
    high = ClosedFormDenoiser(900.0).fit(problem).sample(noise())
    assert float((high - rows.mean(0)).abs().max()) < 6 * float(rows.var(0).sum()) / 900.0
    low = ClosedFormDenoiser(2e-4).fit(problem).sample(noise())
    nearest = torch.cdist(low, rows).amin(1)
    assert float(nearest.median()) < 6e-4  # t_min's noise, of scale 1e-4


@pytest.mark.parametrize("ratio", [0.005, 30.0])
def test_a_level_outside_the_process_is_refused(ratio):
    with pytest.raises(ParameterError, match="noise level"):
        ClosedFormDenoiser(ratio).fit(make(VarianceExploding(0.01, 20.0)))


@pytest.mark.parametrize("parameters", [{"sigma_star": 0.0}, {"tile": 0}])
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        ClosedFormDenoiser(**parameters)
