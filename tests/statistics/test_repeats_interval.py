"""Intervals over repeats: they cover, they stay within a metric's range, and agreement is no proof of exactness."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.metrics.intervals import clopper_pearson, half_samples, jackknife_interval
from kfpbench.report.aggregate import combine
from kfpbench.report.cells import Measured
from kfpbench.statistics.mean_interval import mean_interval
from kfpbench.statistics.observation import observation
from kfpbench.statistics.repeats_interval import range_of, repeats_interval


def share(rows: np.ndarray, seed: int, metric: str = "recall", least: float = 0.0) -> Measured:
    """The mean of n rows as a metric measures it, with its half-samples."""
    n = len(rows)
    halves = half_samples(n, seed).samples @ rows / (n // 2)
    made = jackknife_interval(float(rows.mean()), halves, n, least=least, most=1.0)
    details = {"reference": "digits/test", **made.details}
    return Measured(metric, float(rows.mean()), made.low, made.high, n, better="higher", details=details)


def shares(p: float, n: int, seeds: int, rng: np.random.Generator) -> list[Measured]:
    return [share((rng.random(n) < p).astype(float), seed) for seed in range(seeds)]


def test_shares_that_agree_have_the_exact_binomial_interval_of_all_their_rows() -> None:
    none = [share(np.zeros(200), seed) for seed in range(3)]
    made = combine(none)
    assert (made.value, made.low) == (0.0, 0.0)
    assert made.high == pytest.approx(1 - 0.025 ** (1 / 600))  # 0 of 600 rows
    every = combine([share(np.ones(200), seed) for seed in range(3)])
    assert (every.value, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(0.025 ** (1 / 600))


def test_no_interval_leaves_the_range_of_its_metric() -> None:
    low = combine([share(np.arange(200) < k, seed) for seed, k in enumerate((0, 12))])
    assert mean_interval([0.0, 0.06])[1] < -0.3  # what Student's interval alone would say
    assert (low.low, low.value) == (0.0, 0.03)
    high = combine([share(np.arange(200) < k, seed) for seed, k in enumerate((188, 200))])
    assert high.high == 1.0
    distances = [Measured("frechet", v, n=200, details={"reference": "d", "range": [0.0, None]}) for v in (1.0, 5.0)]
    assert combine(distances).low == 0.0
    assert combine(distances).high == pytest.approx(mean_interval([1.0, 5.0])[2])
    assert combine([Measured("seconds_per_image", v, unit="s") for v in (0.1, 0.5)]).low == 0.0
    unbiased = [Measured("kid", v, n=200, details={"reference": "d"}) for v in (-0.1, 0.4)]
    assert combine(unbiased).low < -0.1  # an unbiased estimate of 0 is negative half the time


def test_differences_of_shares_that_agree_are_known_no_better_than_one_of_them() -> None:
    def loss(seed: int) -> Measured:
        own = share((np.arange(200) < 20) * 1.0 - (np.arange(200) >= 190), seed, "authenticity_loss", least=-1.0)
        assert own.value == 0.05
        return own

    repeats = [loss(seed) for seed in range(2)]
    made = combine(repeats)
    assert made.value == 0.05
    assert (made.low, made.high) == (min(one.low for one in repeats), max(one.high for one in repeats))
    assert made.low < 0.05 < made.high


def test_counts_that_agree_are_exact() -> None:
    made = combine([Measured("nfe", 39.0), Measured("nfe", 39.0)])
    assert (made.value, made.low, made.high) == (39.0, 39.0, 39.0)


def test_what_is_no_share_keeps_students_interval() -> None:
    made = combine([Measured("m", v) for v in (1.0, 2.0, 4.0)])
    assert (made.value, made.low, made.high) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))


@pytest.mark.parametrize("p", [0.002, 0.01, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_over_seeds_cover_a_share(p: float, seeds: int) -> None:
    """At least 95 % less 3.5 standard errors of 400 trials: the union of two 95 % intervals covers more, not less."""
    rng = np.random.default_rng(int(1000 * p) + seeds)
    n, trials = 100, 400
    counts = rng.binomial(n, p, size=(trials, seeds))
    hits = 0
    for row in counts:
        repeats = [share(np.arange(n) < k, seed) for seed, k in enumerate(row)]
        made = combine(repeats)
        hits += made.low <= p <= made.high
        assert 0.0 <= made.low <= made.value <= made.high <= 1.0
    assert hits / trials >= 0.95 - 3.5 * math.sqrt(0.05 * 0.95 / trials)


def test_students_interval_alone_would_not_cover_a_rare_share() -> None:
    """The fault that the exact interval mends: most pairs of seeds agree on 0 of 100 rows, and say nothing of 0.002."""
    counts = np.random.default_rng(4).binomial(100, 0.002, size=(400, 2)) / 100
    assert np.mean([low <= 0.002 <= high for _, low, high in map(mean_interval, counts.tolist())]) < 0.5


def test_rows_of_unequal_probability_are_covered_too() -> None:
    rng = np.random.default_rng(1)
    p = np.concatenate([np.full(80, 0.001), np.full(20, 0.2)])
    hits = 0
    for _ in range(300):
        made = combine([share((rng.random(100) < p).astype(float), seed) for seed in range(2)])
        hits += made.low <= p.mean() <= made.high
    assert hits / 300 >= 0.95 - 3.5 * math.sqrt(0.05 * 0.95 / 300)


def test_the_range_is_the_metrics_own() -> None:
    def seen(metric: str = "m", value: float = 0.5, **details):
        return observation("a", {}, 0, metric=metric, value=value, low=0.4, high=0.6, n=100, better="higher",
                           details={"reference": "d", **details})  # fmt: skip

    assert range_of(seen(range=[0.0, 20.0])) == (0.0, 20.0)
    assert range_of(seen(range=[0.0, None])) == (0.0, math.inf)
    assert not seen(range=[0.0, 20.0]).fraction  # a density of 0.5 is no share
    assert range_of(seen("setup_seconds", 0.123)) == (0.0, math.inf)
    assert range_of(seen()) == (0.0, 1.0)  # a record of before ranges were kept: 50 of 100 rows
    assert range_of(seen(value=0.1234)) == (-math.inf, math.inf)


def test_two_finite_repeats_are_needed() -> None:
    one = observation("a", {}, 0, metric="m", value=0.5, low=0.4, high=0.6, n=9, better="higher", details={})
    with pytest.raises(ParameterError):
        repeats_interval([one])


def test_the_pooled_interval_is_that_of_the_mean() -> None:
    repeats = [share(np.arange(50) < k, seed) for seed, k in enumerate((3, 3))]
    made = combine(repeats)
    assert (made.low, made.high) == pytest.approx(clopper_pearson(0.06, 100))
