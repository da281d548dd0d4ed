from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from kfpbench.errors import ParameterError
from kfpbench.metrics.sliced_wasserstein import SlicedWasserstein, _projected_costs, unit_directions


def one(data, **parameters):
    (result,) = SlicedWasserstein(**parameters).evaluate(data)
    return result


@pytest.mark.parametrize("d", [2, 10])
def test_translation(make_input, d):
    # u.t is the same for every point, so W_2^2 = (u.t)^2 and its mean over directions |t|^2 / d
    rng = np.random.default_rng(d)
    x, t = rng.standard_normal((100, d)), np.full(d, 2.0)
    projections = 4000
    result = one(make_input(x + t, x), projections=projections)
    variance = 2 * (d - 1) / (d**2 * (d + 2)) * (t @ t) ** 2  # of (u.t)^2
    assert abs(result.value**2 - t @ t / d) < 4.4 * math.sqrt(variance / projections) + 1e-5
    assert result.ci_low <= math.sqrt(t @ t / d) <= result.ci_high


def test_one_dimension_is_exact(make_input):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 1)), rng.standard_normal((50, 1)) * 2 + 1
    data = make_input(x, y)
    gap = np.sort(data.samples[:, 0].astype(float)) - np.sort(data.reference[:, 0].astype(float))
    assert one(data, projections=2).value == pytest.approx(math.sqrt(np.mean(gap**2)), rel=1e-12)
    assert one(data).value >= wasserstein_distance(x[:, 0], y[:, 0])  # W_1 <= W_2


def test_subsets_equal_the_rows_themselves():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 4))
    part_x, part_y = (rng.permutation(np.arange(30) < 15)[None] for _ in range(2))
    got = _projected_costs(x, y, part_x, part_y)[0]
    expected = ((np.sort(x[part_x[0]], axis=0) - np.sort(y[part_y[0]], axis=0)) ** 2).mean(axis=0)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_directions_are_seeded_and_unit():
    first = unit_directions(64, 7, seed=3)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0)
    np.testing.assert_array_equal(first, unit_directions(64, 7, seed=3))
    assert not np.array_equal(first, unit_directions(64, 7, seed=4))


def test_permutation_and_degenerate_clouds(make_input):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((60, 5)), rng.standard_normal((60, 5)) + 1
    value = one(make_input(x, y)).value
    assert one(make_input(rng.permutation(x), rng.permutation(y))).value == pytest.approx(value, rel=1e-9)
    assert one(make_input(x, x)).value == 0.0
    same = np.ones((20, 5))
    assert one(make_input(same, same)).value == 0.0
    assert one(make_input(same * 2, same)).value > 0.0


def test_refuses_one_projection():
    with pytest.raises(ParameterError):
        SlicedWasserstein(projections=1)
