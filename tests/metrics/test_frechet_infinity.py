from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.metrics.frechet import FrechetDistance, frechet_gaussian
from kfpbench.metrics.frechet_infinity import FrechetInfinity, _disjoint_parts


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.3)])
def test_removes_the_bias_of_first_order(make_input, shift, scale):
    rng = np.random.default_rng(0)
    n, d, runs = 120, 8, 30
    truth = frechet_gaussian(np.eye(d)[0] * shift, scale**2 * np.eye(d), np.zeros(d), np.eye(d))
    biased, found = [], []
    for run in range(runs):
        x = scale * rng.standard_normal((n, d)) + np.eye(d)[0] * shift
        data = make_input(x, rng.standard_normal((n, d)), seed=run)
        (result,) = FrechetInfinity(partitions=2, features="identity").evaluate(data)
        biased.append(result.details["frechet_at_n"])
        found.append(result.value)
    bias, left = np.mean(biased) - truth, np.mean(found) - truth
    error = np.std(found) / math.sqrt(runs)
    assert bias > 10 * error  # there is something to remove
    assert abs(left) < 0.07 * bias + 4.4 * error


def test_records_what_it_extrapolates_from(make_input):
    rng = np.random.default_rng(1)
    data = make_input(rng.standard_normal((100, 20)) + 0.1, rng.standard_normal((100, 20)))
    (result,) = FrechetInfinity(features="identity").evaluate(data)
    (plain,) = FrechetDistance("identity").evaluate(data)
    assert result.details["sizes"] == [100, 50, 33, 25]
    assert result.details["frechet_at_n"] == plain.value
    assert result.details["finite_n_bias"] == pytest.approx(plain.value - result.value)
    assert np.mean(result.details["replicate_values"]) == pytest.approx(result.value)
    assert np.ptp(result.details["replicate_values"]) == pytest.approx(np.ptp(plain.details["replicate_values"]))


def test_low_rank_is_left_out(make_input):
    rng = np.random.default_rng(2)
    metric = FrechetInfinity(features="identity")
    # 50 // 3 <= 15 + 1: two sizes are left
    few = metric.evaluate(make_input(rng.standard_normal((50, 15)), rng.standard_normal((50, 15))))[0]
    assert few.details["sizes"] == [50, 25]
    with pytest.raises(CapabilityError, match="singular"):
        metric.evaluate(make_input(rng.standard_normal((50, 24)), rng.standard_normal((50, 24))))
    with pytest.raises(ParameterError):
        FrechetInfinity(partitions=1)


def test_parts_are_disjoint_and_hold_every_row_that_fits():
    parts = _disjoint_parts(14, 4, np.random.default_rng(0))
    assert parts.shape == (4, 14)
    assert (parts.sum(axis=1) == 3).all()
    assert parts.sum(axis=0).max() == 1
