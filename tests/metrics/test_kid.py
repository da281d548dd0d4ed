from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.metrics.kid import KernelDistance


def brute_force(x, y, degree=3, gamma=None, coef0=1.0):
    """The definition, from the full matrices."""
    gamma = 1.0 / x.shape[1] if gamma is None else gamma
    n, off = len(x), ~np.eye(len(x), dtype=bool)
    xx, yy, xy = ((gamma * a @ b.T + coef0) ** degree for a, b in ((x, x), (y, y), (x, y)))
    return xx[off].sum() / (n * (n - 1)) + yy[off].sum() / (n * (n - 1)) - 2 * xy.mean()


@pytest.mark.parametrize("keywords", [{}, {"degree": 1, "coef0": 0.0}, {"degree": 2, "gamma": 0.3, "coef0": 2.0}])
def test_equals_the_definition(make_input, keywords):
    rng = np.random.default_rng(0)
    data = make_input(rng.standard_normal((31, 7)) + 0.3, rng.standard_normal((31, 7)))
    (result,) = KernelDistance(**keywords, features="identity").evaluate(data)
    expected = brute_force(data.samples.astype(float), data.reference.astype(float), **keywords)
    assert result.value == pytest.approx(expected, rel=1e-10)
    assert len(result.details["replicate_values"]) == 20


def test_is_unbiased_and_a_linear_kernel_gives_the_squared_gap_of_means(make_input):
    # degree 1, gamma 1, coef0 0: E x.x' + E y.y' - 2 E x.y = |E x - E y|^2 = 0.25 and 0, at n = 10
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.5):
        values = []
        for _ in range(300):
            x, y = rng.standard_normal((10, 2)), rng.standard_normal((10, 2))
            x[:, 0] += shift
            metric = KernelDistance(degree=1, gamma=1.0, coef0=0.0, features="identity")
            values.append(metric.evaluate(make_input(x, y))[0].value)
        assert abs(np.mean(values) - shift**2) < 4.4 * np.std(values) / math.sqrt(300)


def test_finds_a_dropped_mode_and_the_sign_between_equal_laws(make_input):
    rng = np.random.default_rng(2)
    modes = rng.standard_normal((10, 16))
    reference = modes[rng.integers(10, size=400)] + 0.2 * rng.standard_normal((400, 16))
    equal = modes[rng.integers(10, size=400)] + 0.2 * rng.standard_normal((400, 16))
    dropped = modes[rng.integers(7, size=400)] + 0.2 * rng.standard_normal((400, 16))
    metric = KernelDistance(features="identity")
    good, bad = (metric.evaluate(make_input(x, reference))[0] for x in (equal, dropped))
    assert good.ci_low <= 0.0 <= good.ci_high
    assert bad.ci_low > max(0.0, good.ci_high)


@pytest.mark.parametrize("keywords", [{"degree": 0}, {"gamma": 0.0}, {"coef0": -1.0}, {"gamma": math.nan}])
def test_refuses_what_is_no_kernel(keywords):
    with pytest.raises(ParameterError, match="positive definite"):
        KernelDistance(**keywords)
