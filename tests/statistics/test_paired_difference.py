"""Paired differences: they cover, they are narrower than unpaired ones, and they refuse what does not match."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kfpbench.errors import ParameterError
from kfpbench.metrics.intervals import HalfSamples, half_samples, jackknife_interval
from kfpbench.statistics.observation import observe
from kfpbench.statistics.paired_difference import mean_difference, paired_difference
from kfpbench.statistics.pairwise_bounds import pairwise_bounds

DATA = {"name": "digits", "reference": "test"}


def entry(value, replicates=(), *, n=100, metric="m", **more):
    made = jackknife_interval(value, np.asarray(replicates, dtype=float), n)
    details = {"reference": "digits/test", "features": "Identity", "features_version": "1", **made.details}
    return {"metric": metric, "value": value, "ci_low": made.low, "ci_high": made.high, "n": n,
            "better": "lower", "details": details, **more}  # fmt: skip


def record(label, *entries, seed=0, data=DATA, **more):
    return {"cell": f"{label}-{seed}", "label": label, "kind": "sample", "status": "ok", "seed": seed, "axes": {},
            "spec": {"data": data, "seed": seed, "sampler": {"name": label}},
            "measurements": list(entries), **more}  # fmt: skip


def frechet_1d(x, y, halves):
    """Squared difference of means plus that of standard deviations of every half: (S,)."""

    def moments(rows, masks):
        counts = masks.sum(axis=1)
        mean = masks @ rows / counts
        return mean, np.sqrt((masks @ rows**2 / counts - mean**2) * counts / (counts - 1))

    (mx, sx), (my, sy) = moments(x, halves.samples), moments(y, halves.reference)
    return (mx - my) ** 2 + (sx - sy) ** 2


def correlated_cells(rng, n):
    """Two samplers on the same noise, and the reference that they share."""
    noise = rng.normal(size=n)
    return 0.5 + 1.2 * noise, 0.35 + 1.1 * noise + 0.2 * rng.normal(size=n), rng.normal(size=n)


def test_paired_interval_covers_the_difference_of_expectations_and_is_narrower_than_the_unpaired_one() -> None:
    n, repeats = 200, 400
    rng = np.random.default_rng(0)
    whole = HalfSamples(np.ones((1, n), bool), np.ones((1, n), bool))
    truth = np.mean(
        [
            frechet_1d(a, ref, whole) - frechet_1d(b, ref, whole)
            for a, b, ref in (correlated_cells(rng, n) for _ in range(20_000))
        ]
    )
    hits, shorter, power = [], [], []
    for seed in range(repeats):
        a, b, reference = correlated_cells(rng, n)
        halves = half_samples(n, seed).with_whole()
        values_a, values_b = frechet_1d(a, reference, halves), frechet_1d(b, reference, halves)
        first = record("a", entry(values_a[0], values_a[1:], n=n), seed=seed)
        second = record("b", entry(values_b[0], values_b[1:], n=n), seed=seed)
        made = paired_difference(first, second, "m")
        one, other = first["measurements"][0], second["measurements"][0]
        overlap = one["ci_high"] - one["ci_low"] + other["ci_high"] - other["ci_low"]
        independent = math.hypot(one["ci_high"] - one["ci_low"], other["ci_high"] - other["ci_low"])
        hits.append(made.low <= truth <= made.high)
        shorter.append((made.high - made.low) / independent)
        power.append((made.told_apart, one["ci_low"] > other["ci_high"], overlap))
    # 0.95 -+ 3.5 standard errors of 400 repeats is 0.912 to 0.988.
    assert 0.90 <= np.mean(hits) <= 0.99
    assert np.median(shorter) < 0.75
    assert np.mean([paired for paired, _, _ in power]) > np.mean([unpaired for _, unpaired, _ in power]) + 0.3


def test_pairs_cover_where_there_is_no_difference_and_claim_it_seldom() -> None:
    n = 120
    rng = np.random.default_rng(1)
    claims = 0
    for seed in range(400):
        noise, reference = rng.normal(size=(2, n))
        halves = half_samples(n, seed).with_whole()
        cells = []
        for label in "ab":
            values = frechet_1d(noise + 0.3 * rng.normal(size=n), reference, halves)
            cells.append(record(label, entry(values[0], values[1:], n=n), seed=seed))
        claims += paired_difference(*cells, "m").told_apart
    assert claims <= 400 * 0.10  # 5 % nominal; 0.10 is 4.6 standard errors of the nominal level away


def test_the_formula_is_the_one_of_the_metrics() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 20))
    made = paired_difference(record("a", entry(3.3, a, n=101)), record("b", entry(1.1, b, n=101)), "m")
    expected = jackknife_interval(3.3 - 1.1, a - b, 101)
    assert (made.value, made.low, made.high) == pytest.approx((2.2, expected.low, expected.high), rel=1e-12)
    assert made.error == pytest.approx(expected.details["sd"])
    assert made.p_value == pytest.approx(2 * stats.t.sf(2.2 / made.error, 19))
    assert made.paired
    assert made.how == "paired delete-half jackknife, R = 20"


def test_what_both_cells_share_cancels() -> None:
    shared = np.random.default_rng(3).normal(size=20)
    made = paired_difference(record("a", entry(1.0, shared + 1)), record("b", entry(0.2, shared)), "m")
    assert (made.low, made.high) == pytest.approx((0.8, 0.8))
    assert made.told_apart
    assert made.p_value < 1e-12


def test_a_metrics_other_variance_counts_for_both_cells() -> None:
    replicates = np.random.default_rng(4).normal(size=20)
    cells = []
    for label, extra in (("a", 0.3), ("b", 0.4)):
        one = entry(1.0, replicates)
        one["details"]["sd"] = math.hypot(one["details"]["sd"], extra)
        cells.append(record(label, one))
    assert observe(cells[0], "m").extra_sd == pytest.approx(0.3)
    assert paired_difference(*cells, "m").error == pytest.approx(0.5)


@pytest.mark.parametrize(("rows", "apart"), [(1, False), (5, False), (6, True), (20, True)])
def test_a_difference_of_fewer_than_six_rows_is_none(rows, apart) -> None:
    n = 500
    halves = half_samples(n, 0).samples
    a, b = np.ones(n), np.ones(n)
    b[:rows] = 0  # the rows that one covers and the other does not
    cells = [record(label, entry(x.mean(), halves @ x / (n // 2), n=n)) for label, x in (("a", a), ("b", b))]
    made = paired_difference(*cells, "m")
    assert made.told_apart is apart
    assert (made.p_value < 0.05) is apart
    assert stats.binomtest(0, rows).pvalue < 0.05 or not made.told_apart  # the exact test agrees


def test_seeds_are_paired_by_students_t() -> None:
    a, b = [5.0, 7.5, 9.0], [4.0, 6.0, 8.5]
    left = [record("a", entry(v), seed=s) for s, v in enumerate(a)]
    right = [record("b", entry(v), seed=s) for s, v in enumerate(b)]
    made = paired_difference(left, right[::-1], "m")
    expected = stats.ttest_rel(a, b)
    assert made.p_value == pytest.approx(expected.pvalue)
    assert (made.low, made.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert made.how == "paired t over 3 seeds"
    assert paired_difference(left, right[:2], "m").repeats == 2  # the seeds in common


@pytest.mark.parametrize(("rows", "apart"), [(1, False), (2, False), (3, True)])
def test_two_seeds_that_differ_by_the_same_few_rows_prove_nothing(rows, apart) -> None:
    """Without spread between them Student's t is infinite: one row at n = 500 in both seeds would be a difference."""
    n = 500

    def shares(label, missing):
        x = np.ones(n)
        x[:missing] = 0
        return [record(label, entry(x.mean(), half_samples(n, s).samples @ x / (n // 2), n=n), seed=s) for s in (0, 1)]

    a, b = shares("a", 0), shares("b", rows)
    made = paired_difference(a, b, "m")
    assert made.error == pytest.approx(0, abs=1e-12)
    assert made.told_apart is apart
    assert (made.p_value < 0.05) is apart
    cells = [[observe(one, "m") for one in repeats] for repeats in (a, b)]
    assert bool(pairwise_bounds(cells, 0.025)[0][0, 1] > 0) is apart


def test_a_share_is_told_by_its_half_samples_too() -> None:
    """A distance of exactly 0, or a density that happens to be a multiple of 1 / n, counts no rows."""
    n, halves = 100, half_samples(100, 0).samples
    share = halves @ (np.arange(n) < 97) / (n // 2)
    assert observe(record("a", entry(0.97, share, n=n)), "m").fraction
    assert observe(record("a", entry(-0.03, share - 1, n=n)), "m").fraction  # a loss: the difference of two shares
    distance = record("a", entry(0.0, np.random.default_rng(0).uniform(0.01, 0.02, 20), n=n))
    assert not observe(distance, "m").fraction
    shifted = record("b", entry(0.03, distance["measurements"][0]["details"]["replicate_values"], n=n))
    assert paired_difference(shifted, distance, "m").told_apart
    time = {"metric": "t", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 10, "details": {"interval": "t"}}
    assert not observe(record("a", time), "t").fraction


def test_pairs_of_unequal_n_are_not_averaged_by_their_halves() -> None:
    """The rows of n = 100 are among those of n = 200, but their halves are drawn apart: what they share is not seen."""
    rng = np.random.default_rng(7)
    a, b = ([observe(record("c", entry(v, rng.normal(v, 0.1, 20), n=n)), "m") for v in (0.0, 1.0)] for n in (100, 200))
    made = mean_difference([([one], [other]) for one, other in (a, b)])
    assert not made.paired
    ends = [mean_difference([([one], [other])]) for one, other in (a, b)]
    assert made.high - made.low > np.mean([one.high - one.low for one in ends])


def test_times_without_half_samples_are_told_apart_when_their_intervals_do_not_overlap() -> None:
    def timed(label, value, half):
        one = {"metric": "t", "value": value, "ci_low": value - half, "ci_high": value + half, "n": 9, "details": {}}
        return record(label, one)

    apart = paired_difference(timed("a", 1.0, 0.1), timed("b", 0.75, 0.1), "t")
    overlapping = paired_difference(timed("a", 1.0, 0.1), timed("b", 0.85, 0.1), "t")
    assert (apart.told_apart, overlapping.told_apart) == (True, False)
    assert (apart.low, apart.high) == pytest.approx((0.05, 0.45))
    assert not apart.paired
    assert apart.p_value < 0.05 < overlapping.p_value


def test_without_an_interval_there_is_no_interval_of_the_difference() -> None:
    plain = {"metric": "nfe", "value": 9.0, "details": {}}
    made = paired_difference(record("a", plain), record("b", {**plain, "value": 4.0}), "nfe")
    assert made.value == 5.0
    assert math.isnan(made.low)
    assert not made.told_apart
    assert made.bounds() == (5.0, 5.0)


def change(one, **details):
    return {**one, "details": {**one["details"], **details}}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (record("b", entry(1.0, range(20), n=99)), "n"),
        (record("b", entry(1.0, range(20)), data={**DATA, "reference": "validation"}), "data"),
        (record("b", change(entry(1.0, range(20)), reference="digits/validation")), "reference"),
        (record("b", change(entry(1.0, range(20)), features="Pca")), "features"),
        (record("b", change(entry(1.0, range(20)), features_version="2")), "features_version"),
        (record("b", entry(1.0, range(20)), seed=1), "seed"),
        (record("b", entry(1.0, range(20), metric="other")), "measurement"),
    ],
)
def test_pairs_that_do_not_match_are_refused(other, named) -> None:
    with pytest.raises(ParameterError, match=named):
        paired_difference(record("a", entry(2.0, range(20))), other, "m")


def test_times_may_have_been_repeated_differently_often() -> None:
    one = {"metric": "t", "value": 1.0, "ci_low": 0.9, "ci_high": 1.1, "n": 9, "details": {}}
    assert paired_difference(record("a", one), record("b", {**one, "n": 7}), "t").value == 0.0


def test_one_seed_twice_is_no_repeat() -> None:
    cell = record("a", entry(2.0, range(20)))
    with pytest.raises(ParameterError, match="twice"):
        paired_difference([cell, cell], cell, "m")


def test_mean_of_pairs_keeps_the_correlation_between_them() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(4, 20))
    observed = [observe(record(f"c{i}", entry(float(i), row)), "m") for i, row in enumerate(values)]
    pairs = [([observed[0]], [observed[1]]), ([observed[2]], [observed[3]])]
    made = mean_difference(pairs)
    expected = jackknife_interval(-1.0, (values[0] - values[1] + values[2] - values[3]) / 2, 100)
    assert (made.value, made.low, made.high) == pytest.approx((-1.0, expected.low, expected.high))
    assert made.pairs == 2
    with pytest.raises(ParameterError, match="no pair"):
        mean_difference([])


def test_stricter_bounds_hold_the_usual_ones() -> None:
    rng = np.random.default_rng(6)
    paired = paired_difference(
        record("a", entry(1.0, rng.normal(size=20))), record("b", entry(0.0, rng.normal(size=20))), "m"
    )
    unpaired = replace(paired, paired=False, df=math.inf)
    for made in (paired, unpaired):
        assert made.bounds(0.025) == pytest.approx((made.low, made.high))
        low, high = made.bounds(0.001)
        assert low < made.low
        assert made.high < high
