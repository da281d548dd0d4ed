"""The smoothed score: its limits, its perturbations, and that it is the average that it claims to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.noise import NoiseStream
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores.empirical import EmpiricalScore
from kfpbench.scores.smoothed import SmoothedScore

CPU = torch.device("cpu")
LEVELS = [(1.0, 0.05), (1.0, 2.0), (0.3, 0.954), (2.0, 0.5)]


def dataset(count: int, dimension: int, seed: int = 0) -> Dataset:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return Dataset("toy", rows, rows[:1], rows[:1])


def bind(data: Dataset, dtype: torch.dtype = torch.float64, **parameters):
    return SmoothedScore(**parameters).bind(data, CPU, dtype)


def points(count: int, dimension: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, dimension), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_it_is_the_average_of_the_definition(alpha, sigma):
    """Softmaxes by explicit differences, at arguments moved by the stream of noise that is stated."""
    data, x = dataset(30, 3), points(12, 3)
    rows = torch.as_tensor(data.train, dtype=torch.float64)
    noise = NoiseStream.of_range(4, 0, 5, 3, CPU, torch.float64, stream=2).normal(0)
    expected = torch.zeros_like(x)
    for draw in noise:
        moved = x + 0.3 * (alpha + sigma) * draw
        squared = (moved[:, None] - alpha * rows).square().sum(-1)
        expected += torch.softmax(-squared / (2 * sigma**2), dim=1) @ rows / 5
    actual = bind(data, smoothing=0.3, draws=5, seed=4).denoise(x, alpha, sigma)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_it_tends_to_the_empirical_score():
    """D_h - D = h D'(x) mean(e) + O(h^2): ten times less smoothing, ten times less difference."""
    data, x = dataset(40, 3), points(20, 3)
    exact = EmpiricalScore().bind(data, CPU, torch.float64).denoise(x, 1.0, 0.7)
    gaps = [
        float((bind(data, smoothing=h, draws=4).denoise(x, 1.0, 0.7) - exact).norm()) for h in (1e-3, 1e-4, 1e-5, 0.0)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(10.0, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(10.0, rel=0.05)
    assert gaps[3] <= 1e-12


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_one_training_row_is_the_answer(alpha, sigma):
    data = dataset(1, 4)
    found = bind(data, smoothing=3.0, draws=3).denoise(points(9, 4), alpha, sigma)
    torch.testing.assert_close(found, torch.as_tensor(data.train, dtype=torch.float64).expand(9, 4))


def test_two_rows_on_a_line_have_a_closed_form():
    """For rows -a and a: D(y) = a tanh(alpha a y / sigma^2), so the average is one of known functions; with many draws
    it comes to its expectation, by Gauss-Hermite quadrature, within five standard errors."""
    rows = np.array([[-1.0], [1.0]], dtype=np.float32)
    data, draws = Dataset("two", rows, rows, rows), 4000
    alpha, sigma, smoothing = 0.8, 0.6, 0.4
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    found = bind(data, smoothing=smoothing, draws=draws).denoise(x, alpha, sigma)[:, 0].numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    values = np.tanh(alpha * (x.numpy() + smoothing * (alpha + sigma) * nodes) / sigma**2)
    weights = weights / weights.sum()
    mean = values @ weights
    error = np.sqrt(((values - mean[:, None]) ** 2) @ weights / draws)
    assert (np.abs(found - mean) < 5 * error).all()


def test_processes_agree():
    """D(x; alpha, sigma) = D(x / alpha; 1, sigma / alpha): the same flow in every parametrisation."""
    score, x = bind(dataset(30, 3), smoothing=0.5), points(10, 3)
    torch.testing.assert_close(score.denoise(x, 0.25, 0.5), score.denoise(x / 0.25, 1.0, 2.0), rtol=1e-9, atol=1e-9)


def test_rows_do_not_depend_on_their_batch():
    score, x = bind(dataset(50, 3), smoothing=0.5, tile=7), points(23, 3)
    whole = score.denoise(x, 1.0, 0.5)
    for order in ([[i] for i in range(23)], [list(range(22, -1, -1))]):
        for batch in order:
            torch.testing.assert_close(score.denoise(x[batch], 1.0, 0.5), whole[batch], rtol=1e-12, atol=1e-12)


def test_seeds():
    data, x = dataset(50, 3), points(5, 3)
    first = bind(data, smoothing=0.5, seed=1).denoise(x, 1.0, 0.5)
    assert torch.equal(first, bind(data, smoothing=0.5, seed=1).denoise(x, 1.0, 0.5))
    assert float((first - bind(data, smoothing=0.5, seed=2).denoise(x, 1.0, 0.5)).abs().min()) > 0
    # the first draws are the same whatever their number
    three = SmoothedScore(draws=3).bind(data, CPU, torch.float64).perturbations
    assert torch.equal(SmoothedScore(draws=6).bind(data, CPU, torch.float64).perturbations[:3], three)


def test_it_answers_with_barycentres_where_the_empirical_score_answers_with_rows():
    """At little noise: the share of the largest weight is 1 for one and clearly less for the other."""
    data = dataset(400, 2)
    x = torch.as_tensor(data.train[:50], dtype=torch.float64) + 0.02 * points(50, 2)
    rows = torch.as_tensor(data.train, dtype=torch.float64)
    copies = EmpiricalScore().bind(data, CPU, torch.float64).denoise(x, 1.0, 0.002)
    mixed = bind(data, smoothing=0.2, draws=16).denoise(x, 1.0, 0.002)
    assert float(torch.cdist(copies, rows).amin(1).median()) < 1e-6
    assert float(torch.cdist(mixed, rows).amin(1).median()) > 1e-2


def test_contract():
    plugin, data = SmoothedScore(), dataset(20, 3)
    assert isinstance(plugin, ScorePlugin)
    bound = plugin.bind(data, CPU, torch.float32)
    assert isinstance(bound, BoundScore)
    for rows in (5, 0, 33):
        assert bound.score(torch.zeros((rows, 3)), 1.0, 0.5).shape == (rows, 3)
    assert bound.evaluations == 38  # one a row, whatever the number of draws
    assert bound.denoise(torch.zeros((1, 3)), 1.0, 0.5).dtype == torch.float32


def test_it_stays_within_its_stated_memory(live_bytes):
    count, dimension, batch = 1000, 96, 100
    data, x = dataset(count, dimension), points(batch, dimension).float()
    plugin = SmoothedScore(draws=6, tile=64)
    with live_bytes:
        plugin.bind(data, CPU, torch.float32).denoise(x, 1.0, 2.0)
    stated = plugin.working_memory(ProblemSize(count, dimension, batch, 4))
    assert 0.5 * stated <= live_bytes.peak <= stated
