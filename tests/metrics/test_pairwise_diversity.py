from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from kfpbench.errors import NumericalError
from kfpbench.metrics.pairwise_diversity import PairwiseDiversity


@pytest.mark.parametrize("d", [1, 12, 40])
def test_is_the_mean_of_all_distances(make_input, d):
    rng = np.random.default_rng(d)
    data = make_input(7 + 2 * rng.standard_normal((41, d)), rng.standard_normal((41, d)))
    mean, ratio = PairwiseDiversity("identity").evaluate(data)
    expected = pdist(data.samples.astype(float)).mean()
    assert mean.value == pytest.approx(expected, rel=1e-10)
    assert ratio.value == pytest.approx(expected / pdist(data.reference.astype(float)).mean(), rel=1e-10)


def test_known_value_and_scale(make_input):
    # N(0, 1): E|X - X'| = 2 / sqrt(pi); samples of half the spread have half of it
    rng = np.random.default_rng(0)
    x, y = 0.5 * rng.standard_normal((500, 1)), rng.standard_normal((500, 1))
    mean, ratio = PairwiseDiversity("identity").evaluate(make_input(x, y))
    assert mean.ci_low <= 1 / math.sqrt(math.pi) <= mean.ci_high
    assert ratio.ci_low <= 0.5 <= ratio.ci_high
    assert ratio.ci_high < 0.6


def test_copies_of_one_row_have_no_diversity(make_input):
    rng = np.random.default_rng(1)
    y = rng.standard_normal((30, 20))
    mean, ratio = PairwiseDiversity("identity").evaluate(make_input(np.repeat(y[:1], 30, axis=0), y))
    # in 20 dimensions distances come from products, whose rounding is of the order eps^(1/2)
    assert mean.value == pytest.approx(0.0, abs=1e-6)
    assert ratio.ci_low == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(NumericalError, match="no spread"):
        PairwiseDiversity("identity").evaluate(make_input(y[:, :3], np.ones((30, 3))))
