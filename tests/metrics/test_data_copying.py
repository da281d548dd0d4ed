from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kstest, mannwhitneyu, norm

from kfpbench.errors import ParameterError
from kfpbench.metrics import data_copying, nearest_rows
from kfpbench.metrics.data_copying import DataCopying


@pytest.fixture(autouse=True)
def _cold_caches():
    nearest_rows._found.clear()
    data_copying._centres.clear()


def evaluate(data, **parameters):
    (found,) = DataCopying(**parameters).evaluate(data)
    return found


def z_score(x, y):
    """SciPy's test, whose U counts pairs x > y; its p-value gives z back."""
    result = mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False)
    return float(norm.ppf(result.pvalue))


def test_one_cell_is_the_mann_whitney_test(make_input):
    rng = np.random.default_rng(0)
    train, reference, samples = (rng.standard_normal((m, 15)) for m in (300, 60, 60))
    samples[:20] = train[:20] + 0.1 * samples[:20]
    data = make_input(samples, reference, train)
    near, held_out = (cdist(rows, data.train).min(axis=1) for rows in (data.samples, data.reference))
    got = evaluate(data, cells=1)
    assert got.value == pytest.approx(z_score(near, held_out), rel=1e-6)
    assert got.details["null_sd"] == 1.0
    assert got.details["share_nearer"] == pytest.approx(np.mean(near[:, None] < held_out[None]))


def test_ties_are_counted_half(make_input):
    x, y = np.array([0.0, 0.0, 0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0, 3.0])
    assert data_copying._z_score(x, y) == pytest.approx(z_score(x, y), rel=1e-9)
    assert data_copying._z_score(np.ones(4), np.ones(4)) == 0.0


def test_cells_are_weighted_by_the_held_out_rows(make_input):
    """Two clusters far apart, so that the cells are known: copies in the one, fresh rows in the other."""
    rng = np.random.default_rng(1)

    def cluster(m, centre):
        return centre + rng.standard_normal((m, 10))

    train = np.concatenate([cluster(200, 0), cluster(100, 50)])
    reference = np.concatenate([cluster(60, 0), cluster(40, 50)])
    samples = np.concatenate([train[:30], cluster(70, 50)])
    data = make_input(samples, reference, train)
    got = evaluate(data, cells=2)
    near, held_out = (cdist(rows, data.train).min(axis=1) for rows in (data.samples, data.reference))
    first, second = z_score(near[:30], held_out[:60]), z_score(near[30:], held_out[60:])
    assert got.value == pytest.approx(0.6 * first + 0.4 * second, rel=1e-6)
    assert got.details["lowest_cell"] == pytest.approx(first, rel=1e-6)
    assert got.details["null_sd"] == pytest.approx(np.hypot(0.6, 0.4))
    assert got.details["cells"] == 2
    assert got.ci_high < -3


def test_cells_without_enough_rows_are_left_out(make_input):
    rng = np.random.default_rng(2)
    train = np.concatenate([rng.standard_normal((100, 10)), 50 + rng.standard_normal((100, 10))])
    reference = np.concatenate([rng.standard_normal((50, 10)), 50 + rng.standard_normal((50, 10))])
    samples = 50 + rng.standard_normal((100, 10))
    got = evaluate(make_input(samples, reference, train), cells=2)
    assert (got.details["cells"], got.details["cells_left_out"]) == (1, 1)
    assert abs(got.value) < 4
    # no cell holds five of both: the whole space is one cell
    reference[:47] = rng.standard_normal((47, 10))
    reference[47:] = rng.standard_normal((53, 10))
    alone = evaluate(make_input(samples, reference, train), cells=2)
    assert alone.details["cells"] == 1
    assert alone.details["null_sd"] == 1.0


def test_null_law(make_input):
    """C_T of fresh samples, in units of the stated standard deviation, is standard normal: 120 repeats."""
    rng = np.random.default_rng(3)
    train = rng.standard_normal((400, 6)).astype(np.float32)
    scores = []
    for _ in range(120):
        got = evaluate(make_input(rng.standard_normal((120, 6)), rng.standard_normal((120, 6)), train), cells=4)
        scores.append(got.value / got.details["null_sd"])
    # the Kolmogorov distance of 120 normal draws exceeds this with probability 0.001
    assert kstest(scores, "norm").pvalue > 0.001


def test_copies_and_noise(make_input):
    rng = np.random.default_rng(4)
    train, reference, fresh = (rng.standard_normal((m, 12)) for m in (400, 200, 200))
    copies = evaluate(make_input(train[:200], reference, train))
    assert copies.ci_high < -3
    assert copies.details["share_nearer"] == 1.0
    noise = evaluate(make_input(4 * fresh, reference, train))
    assert noise.ci_low > 3
    assert noise.details["share_nearer"] < 0.1
    control = evaluate(make_input(fresh, reference, train))
    assert abs(control.value) < 4.4 * control.details["null_sd"]


def test_few_rows_have_one_cell_and_bad_parameters_are_refused(make_input):
    rng = np.random.default_rng(5)
    got = evaluate(make_input(*(rng.standard_normal((m, 10)) for m in (12, 12, 30))))
    assert got.details["cells"] == 1
    with pytest.raises(ParameterError):
        DataCopying(cells=0)
