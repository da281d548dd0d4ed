"""Coverage by simulation: fewer than LEAST covering intervals of 200 have probability 1e-5 at 95 %."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from kfpbench.metrics.energy_distance import EnergyDistance
from kfpbench.metrics.frechet import FrechetDistance, frechet_gaussian
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.precision_recall import PrecisionRecall

RUNS = 200
LEAST = int(binom.ppf(1e-5, RUNS, 0.95))  # 176


def test_halves_are_seeded_and_without_replacement():
    halves = half_samples(21, seed=4, replicates=6)
    assert halves.samples.shape == halves.reference.shape == (6, 21)
    assert (halves.samples.sum(axis=1) == 10).all()
    assert (halves.reference.sum(axis=1) == 10).all()
    again, other = half_samples(21, seed=4, replicates=6), half_samples(21, seed=5, replicates=6)
    np.testing.assert_array_equal(halves.samples, again.samples)
    assert not np.array_equal(halves.samples, other.samples)
    assert not np.array_equal(halves.samples, halves.reference)
    assert half_samples(7, seed=0).samples.shape == (0, 7)


@pytest.mark.parametrize("n", [40, 41])
def test_variance_of_a_mean_is_the_textbook_one(n):
    # over all halves the delete-half variance of a mean is exactly s^2 / n: many replicates come near it
    rng = np.random.default_rng(0)
    x, replicates = rng.standard_normal(n), 20_000
    values = np.array([x[half].mean() for half in half_samples(n, 1, replicates).samples])
    sd = jackknife_interval(float(x.mean()), values, n).details["sd"]
    assert sd == pytest.approx(x.std(ddof=1) / math.sqrt(n), rel=4.4 / math.sqrt(2 * replicates))


def test_interval_of_a_mean_covers():
    rng = np.random.default_rng(1)
    covered = 0
    for run in range(RUNS):
        x, y = rng.exponential(size=100), rng.standard_normal(100)
        halves = half_samples(100, run).with_whole()
        values = np.array([x[a].mean() - y[b].mean() for a, b in zip(halves.samples, halves.reference, strict=True)])
        interval = jackknife_interval(float(values[0]), values[1:], 100)
        covered += interval.low <= 1.0 <= interval.high
    assert covered >= LEAST


def test_frechet_interval_covers_the_population_value(make_input):
    # two dimensions, far apart: the bias of order 1/n is small against the interval
    rng = np.random.default_rng(2)
    cov = np.diag([4.0, 0.25])
    truth = frechet_gaussian(np.array([2.0, 0.0]), cov, np.zeros(2), np.eye(2))
    covered = 0
    for run in range(RUNS):
        x = rng.standard_normal((200, 2)) @ np.sqrt(cov) + [2.0, 0.0]
        (result,) = FrechetDistance("identity").evaluate(make_input(x, rng.standard_normal((200, 2)), seed=run))
        covered += result.ci_low <= truth <= result.ci_high
    assert covered >= LEAST


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_energy_distance_interval_covers_the_population_value(make_input, shift):
    rng = np.random.default_rng(3)
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    truth = 2 * folded - 4 / math.sqrt(math.pi)
    covered, sds, values = 0, [], []
    for run in range(RUNS):
        data = make_input(rng.standard_normal((100, 1)) + shift, rng.standard_normal((100, 1)), seed=run)
        (result,) = EnergyDistance().evaluate(data)
        covered += result.ci_low <= truth <= result.ci_high
        sds.append(result.details["sd"])
        values.append(result.value)
    assert covered >= LEAST
    # between equal laws too, where half-samples would give a standard deviation 1.7 times too large; the typical one
    assert 0.75 < np.median(sds) / np.std(values) < 1.35


@pytest.mark.slow
def test_recall_interval_covers_its_expectation(make_input):
    rng = np.random.default_rng(4)
    results = []
    for run in range(RUNS):
        x, y = np.abs(rng.standard_normal((200, 2))), rng.standard_normal((200, 2))
        results.append(PrecisionRecall(3, "identity").evaluate(make_input(x, y, seed=run))[1])
    truth = np.mean([r.value for r in results])  # known to a fourteenth of one interval's standard deviation
    assert sum(r.ci_low <= truth <= r.ci_high for r in results) >= LEAST


def test_undefined_replicates_give_no_interval():
    interval = jackknife_interval(1.0, np.array([1.0, np.nan, 2.0]), 20)
    assert interval.low is None
    assert "not defined on every half-sample" in interval.details["interval"]
    assert jackknife_interval(1.0, np.array([]), 5).high is None


def test_limits_and_extra_variance():
    values = np.array([0.5, 1.5])
    plain = jackknife_interval(0.9, values, 10)
    cut = jackknife_interval(0.9, values, 10, least=0.0, most=1.0)
    assert plain.low < 0.0
    assert (cut.low, cut.high) == (0.0, 1.0)
    wider = jackknife_interval(0.9, values, 10, extra_variance=1.0)
    assert wider.details["sd"] == pytest.approx(math.sqrt(1.5))
    assert plain.details["finite_n_bias"] == pytest.approx(0.1)
