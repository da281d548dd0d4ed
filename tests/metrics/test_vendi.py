from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.metrics.vendi import Vendi, effective_number


def measure(metric, data):
    return {m.metric: m for m in metric.evaluate(data)}


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_effective_number_of_equal_shares(order):
    assert effective_number(np.array([0.25] * 4 + [0.0, 1e-19]), order) == pytest.approx(4.0)
    assert effective_number(np.array([1.0, 0.0]), order) == pytest.approx(1.0)


def test_orders_of_unequal_shares():
    shares = np.array([0.5, 0.25, 0.25])
    expected = {1.0: 2**1.5, 2.0: 1 / 0.375, math.inf: 2.0, 0.5: (math.sqrt(0.5) + 1.0) ** 2}
    for order, value in expected.items():
        assert effective_number(shares, order) == pytest.approx(value, rel=1e-12)
    numbers = [effective_number(shares, order) for order in (0.5, 0.999, 1.0, 1.001, 2.0, 50.0, math.inf)]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_counts_orthogonal_modes_at_equal_n(make_input, kernel):
    # ten orthogonal directions far apart: both kernels are 1 within and 0 between them
    modes = 100.0 * np.eye(10)
    reference, dropped = np.repeat(modes, 20, axis=0), np.resize(np.repeat(modes[:7], 28, axis=0), (200, 10))
    data = make_input(np.vstack([np.repeat(modes[:5], 40, axis=0)]), reference)
    metric = Vendi(kernel=kernel, bandwidth=1.0 if kernel == "rbf" else None, features="identity")
    found = measure(metric, data)
    assert found["vendi"].value == pytest.approx(5.0, rel=1e-9)
    assert found["vendi_ratio"].value == pytest.approx(0.5, rel=1e-9)
    missing = measure(metric, make_input(dropped, reference))["vendi_ratio"]
    assert missing.value == pytest.approx(0.7, rel=0.01)
    assert missing.ci_high < 1.0


def test_dual_and_primal_agree(make_input):
    # the same rows with zero columns added: d > n takes the n x n matrix
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 6)) + 1.0, rng.standard_normal((30, 6))
    pad = np.zeros((30, 40))
    narrow = Vendi(features="identity").evaluate(make_input(x, y))
    wide = Vendi(features="identity").evaluate(make_input(np.hstack([x, pad]), np.hstack([y, pad])))
    for one, other in zip(narrow, wide, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-10)
        assert one.ci_low == pytest.approx(other.ci_low, rel=1e-8)


def test_bandwidth_is_the_median_distance_of_training_rows(make_input):
    rng = np.random.default_rng(1)
    train = rng.standard_normal((50, 3))
    data = make_input(rng.standard_normal((40, 3)) * 5, rng.standard_normal((40, 3)), train)
    train = data.train.astype(float)
    gaps = np.linalg.norm(train[:, None] - train[None], axis=2)[np.triu_indices(50, 1)]
    (result, _) = Vendi(kernel="rbf", features="identity").evaluate(data)
    assert result.details["bandwidth"] == pytest.approx(np.median(gaps), rel=1e-9)
    given = Vendi(kernel="rbf", bandwidth=float(np.median(gaps)), features="identity").evaluate(data)[0]
    assert given.value == pytest.approx(result.value, rel=1e-9)


def test_collapse_and_noise_are_on_either_side_of_one(make_input):
    rng = np.random.default_rng(2)
    reference = np.repeat(rng.standard_normal((10, 16)), 20, axis=0) + 0.1 * rng.standard_normal((200, 16))
    metric = Vendi(features="identity")
    collapsed = measure(metric, make_input(reference[:1] + 0.01 * rng.standard_normal((200, 16)), reference))
    noise = measure(metric, make_input(rng.standard_normal((200, 16)), reference))
    assert collapsed["vendi"].value < 1.05
    assert noise["vendi_ratio"].ci_low > 1.0


def test_refusals(make_input):
    rng = np.random.default_rng(3)
    y = rng.standard_normal((20, 3))
    zero = y.copy()
    zero[4] = 0.0
    with pytest.raises(CapabilityError, match="1 of 20 rows"):
        Vendi(features="identity").evaluate(make_input(zero, y))
    with pytest.raises(CapabilityError, match="side 3001"):
        Vendi(kernel="rbf", features="identity").evaluate(make_input(np.ones((3001, 1)), np.ones((3001, 1))))
    with pytest.raises(CapabilityError, match="no bandwidth"):
        Vendi(kernel="rbf", features="identity").evaluate(make_input(y, y, np.ones((9, 3))))
    for keywords in ({"kernel": "linear"}, {"order": 0.0}, {"bandwidth": -1.0}):
        with pytest.raises(ParameterError):
            Vendi(**keywords)
