import itertools
import math
import time

import numpy as np
import pytest
from scipy.stats import binom, t

from kfpbench.errors import ParameterError
from kfpbench.runner.timing import (
    Stopwatch,
    measure_latency,
    measure_throughput,
    median_interval,
    series_interval,
    summarise_times,
    synchroniser,
    throughput,
    warm_up,
    warm_up_doubt,
)


class Clock:
    """Replaces the clock: time passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7, 10, 17, 50, 101, 1000, 3000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_interval_is_the_narrowest_that_covers(n, confidence):
    low, high, coverage = median_interval(n, confidence)
    assert low + high == n - 1
    assert coverage == pytest.approx(max(0, 1 - 2 * binom.cdf(low, n, 0.5)), abs=1e-12)
    if low > 0:
        assert coverage >= confidence
    if 2 * (low + 1) < n:  # one rank further in it would cover too little
        assert 1 - 2 * binom.cdf(low + 1, n, 0.5) < confidence


def coverage_of(draws, truth=0.0):
    """How often the intervals of the rows hold the truth."""
    made = [series_interval(row) for row in draws.tolist()]
    return sum(each.low <= truth <= each.high for each in made)


@pytest.mark.parametrize("n", [6, 10, 12, 30])
def test_independent_values_are_covered_as_often_as_is_said(n):
    repeats = 2000
    hits = coverage_of(np.random.default_rng(n).normal(size=(repeats, n)))
    least = median_interval(n)[2]
    assert series_interval([0.0] * n).coverage == least
    # At least Binomial(repeats, least) of them: fails by chance once in 10^6 runs of another seed.
    assert hits >= binom.ppf(1e-6, repeats, least)
    assert hits < repeats


@pytest.mark.parametrize("n", [6, 15, 40])
def test_a_long_tail_is_covered_too(n):
    repeats = 2000
    draws = np.random.default_rng(n).lognormal(size=(repeats, n))  # median 1
    made = [summarise_times(row) for row in draws.tolist()]
    hits = sum(each.ci_low <= 1 <= each.ci_high for each in made)
    assert hits >= binom.ppf(1e-6, repeats, median_interval(n)[2])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_few_values_get_students_interval_of_their_logarithms(n):
    repeats = 2000
    draws = np.exp(np.random.default_rng(n).normal(size=(repeats, n)))
    made = [summarise_times(row) for row in draws.tolist()]
    hits = sum(each.ci_low <= 1 <= each.ci_high for each in made)
    assert hits >= binom.ppf(1e-6, repeats, 0.95)
    assert hits <= binom.ppf(1 - 1e-6, repeats, 0.95) + 1
    logs = np.log(draws[0])
    low, high = t.interval(0.95, n - 1, logs.mean(), logs.std(ddof=1) / math.sqrt(n))
    assert (made[0].ci_low, made[0].ci_high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert made[0].coverage == 0.95


def test_one_time_has_no_interval_and_says_so():
    summary = summarise_times([3.0])
    assert (summary.median, summary.n, summary.coverage) == (3.0, 1, 0.0)
    assert math.isnan(summary.ci_low)
    assert math.isnan(summary.ci_high)
    assert "no interval" in summary.note


def test_the_interval_of_six_values_by_hand():
    values = [1.0, 3.0, 2.0, 6.0, 10.0, 8.0]  # block medians 2, 4, 9; order statistics: minimum to maximum
    made = series_interval(values)
    low, high = t.interval(0.95, 2, 5.0, np.std([2.0, 4.0, 9.0], ddof=1) / math.sqrt(3))
    assert (made.centre, made.low, made.high) == (4.5, pytest.approx(low), pytest.approx(high))
    assert series_interval(sorted(values)[::2] + sorted(values)[1::2]).low <= 1.0  # never inside the order statistics


def autoregressive(generator, rows, n, correlation):
    """Rows of a stationary Gaussian process with that correlation from one value to the next."""
    steps = generator.normal(size=(rows, n))
    made = np.empty_like(steps)
    made[:, 0] = steps[:, 0]
    for i in range(1, n):
        made[:, i] = correlation * made[:, i - 1] + math.sqrt(1 - correlation**2) * steps[:, i]
    return made


def order_statistics(values):
    first, last, _ = median_interval(len(values))
    ordered = sorted(values)
    return ordered[first], ordered[last]


def agreement(pairs, interval):
    """How many of the pairs of series have medians that differ by less than their intervals, put together, allow."""
    agreed = 0
    for first, second in pairs:
        (low, high), (other_low, other_high) = interval(first), interval(second)
        a, b = float(np.median(first)), float(np.median(second))
        room = math.hypot(a - low, other_high - b) if a > b else math.hypot(high - a, b - other_low)
        agreed += abs(a - b) <= room
    return agreed


def drifting(generator, count, n):
    """Pairs of adjacent windows of n times (logarithms) of a machine whose speed wanders: a random walk and noise."""
    walk = np.cumsum(0.3 * generator.normal(size=(count, 2 * n)), axis=1)
    series = walk + generator.normal(size=(count, 2 * n))
    return [(row[:n], row[n:]) for row in series]


def blocks(values):
    made = series_interval(list(values))
    return made.low, made.high


def test_two_timings_on_a_drifting_machine_agree_within_their_intervals():
    count = 600
    for n in (10, 20, 30):
        pairs = drifting(np.random.default_rng(n), count, n)
        # at least 9 of 10; a rate of 0.9 gives fewer than this once in 10^6
        assert agreement(pairs, blocks) >= binom.ppf(1e-6, count, 0.9)
    # what the test is for: order statistics alone call the drift of a machine a difference of its programs
    assert agreement(pairs, order_statistics) < 0.6 * count


def test_dependent_repeats_are_covered_where_order_statistics_fail():
    repeats, n = 1000, 30
    draws = autoregressive(np.random.default_rng(5), repeats, n, 0.5)
    assert coverage_of(draws) >= binom.ppf(1e-6, repeats, 0.95)
    narrow = [order_statistics(row) for row in draws.tolist()]
    assert sum(low <= 0 <= high for low, high in narrow) < binom.ppf(1e-6, repeats, 0.95)


def test_spikes_do_not_move_the_median_nor_blow_up_its_interval():
    generator = np.random.default_rng(0)
    quiet = np.exp(0.01 * generator.normal(size=(300, 30)))
    spiky = np.where(generator.random(quiet.shape) < 0.1, quiet * generator.uniform(5, 50, quiet.shape), quiet)
    made = [summarise_times(row) for row in spiky.tolist()]
    assert max(abs(each.median - 1) for each in made) < 0.03
    assert np.median([each.ci_high - each.ci_low for each in made]) < 0.05  # a mean's would be some 3


def test_a_slow_half_shows_in_the_interval():
    """Another program starts in the middle: the interval reaches over both speeds."""
    values = [1.0 + 0.001 * i for i in range(15)] + [2.0 + 0.001 * i for i in range(15)]
    summary = summarise_times(values)
    assert summary.ci_low < 1.1
    assert summary.ci_high > 1.9
    assert order_statistics(values)[0] > 1.005


def test_negative_times_are_refused_and_zeros_are_not():
    with pytest.raises(ParameterError, match="negative"):
        summarise_times([1.0, -1.0])
    summary = summarise_times([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert summary.ci_low == 0.0
    assert summary.median == 1.0


def compiling(clock, first, later, shapes=1):
    """A call that takes ``first`` seconds the first ``shapes`` times, and ``later`` seconds from then on."""
    calls = itertools.count()
    return lambda: clock.work(first if next(calls) < shapes else later)


def test_warm_up_goes_on_until_compilation_is_over(clock):
    assert warm_up(compiling(clock, 9.0, 1.0, shapes=3)) == (9, 9)  # not seen to end: two slow calls are alike
    assert warm_up(compiling(clock, 9.0, 1.0)) == (9, 1, 1)
    assert warm_up(lambda: clock.work(1.0)) == (1, 1)
    falling = iter([16.0, 4.0, 1.0, 0.9, 0.9])
    assert warm_up(lambda: clock.work(next(falling))) == (16, 4, 1, pytest.approx(0.9))
    endless = iter(2.0**-k for k in range(0, 100, 2))
    assert len(warm_up(lambda: clock.work(next(endless)))) == 5
    assert warm_up(lambda: clock.work(3.0), limit=2.0) == (3,)
    assert len(warm_up(compiling(clock, 1e-4, 1e-6))) == 2  # less than a millisecond: no compilation


def test_a_timing_that_includes_compilation_says_so(clock):
    fn = compiling(clock, 9.0, 1.0)
    cold = measure_latency(fn, 8)
    assert "may include compilation" in cold.note
    assert "9 times as long" in cold.note
    fn = compiling(clock, 9.0, 1.0)
    warm_up(fn)
    assert measure_latency(fn, 8).note == ""
    assert warm_up_doubt([9.0, 1.0]) == ""  # of two times nobody knows which is the odd one
    assert warm_up_doubt([9.0, 1.0, 10.0]) == ""  # a spike came later: the machine, not the program
    assert warm_up_doubt([2.0, 1.0, 1.0]) == ""


@pytest.mark.parametrize(("values", "median"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5), ([7.0], 7.0)])
def test_summary_of_known_values(values, median):
    summary = summarise_times(values)
    assert (summary.median, summary.minimum, summary.n) == (pytest.approx(median), min(values), len(values))
    assert summary.values == tuple(values)


def test_no_values_are_refused():
    with pytest.raises(ParameterError):
        summarise_times([])
    with pytest.raises(ParameterError):
        measure_latency(lambda: None, 0)


def test_latency_times_the_call_and_what_it_left_on_the_device(clock):
    queued = []
    durations = itertools.cycle([1.0, 2.0, 3.0])

    def synchronise():
        clock.work(sum(queued))
        queued.clear()

    queued.append(50.0)  # work from before: not part of any latency
    summary = measure_latency(lambda: queued.append(next(durations)), 6, synchronise)
    assert summary.values == (1, 2, 3, 1, 2, 3)
    assert (summary.median, summary.minimum, summary.n) == (2, 1, 6)


def test_throughput_is_per_image_over_whole_batches(clock):
    summary = measure_throughput(lambda: clock.work(5.0), batch_size=100, repeats=7)
    assert (summary.median, summary.n, summary.note) == (pytest.approx(0.05), 7, "")
    mixed = throughput([4.0, 6.0, 4.0, 3.0], [100, 100, 100, 1])
    assert (mixed.median, mixed.n) == (0.04, 3)
    assert mixed.ci_low < 0.04 < 0.06 < mixed.ci_high
    assert "1 batch(es) smaller than 100 left out" in mixed.note
    for seconds, sizes in [([], []), ([1.0], [1, 2]), ([1.0], [0])]:
        with pytest.raises(ParameterError):
            throughput(seconds, sizes)


def test_phases_add_up_and_keep_their_order(clock):
    watch = Stopwatch()
    for phase, seconds in [("setup", 2.0), ("sampling", 1.0), ("setup", 0.5)]:
        with watch.phase(phase):
            clock.work(seconds)
        clock.work(10)  # between phases
    assert watch.seconds == {"setup": 2.5, "sampling": 1.0}
    assert list(watch.seconds) == ["setup", "sampling"]


def test_a_failing_phase_is_timed_and_closed(clock):
    def fail():
        clock.work(2.0)
        raise ZeroDivisionError

    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.phase("setup"):
        fail()
    with watch.phase("metrics"):
        clock.work(1.0)
    assert watch.seconds == {"setup": 2.0, "metrics": 1.0}


def test_phases_do_not_nest():
    watch = Stopwatch()
    with (
        watch.phase("setup"),
        pytest.raises(ParameterError, match="inside phase 'setup'"),
        watch.phase("inner"),
    ):
        pass


def test_a_phase_waits_for_the_device(clock, monkeypatch):
    queued = [50.0]

    def synchronise():
        clock.work(sum(queued))
        queued.clear()

    monkeypatch.setattr("kfpbench.runner.timing.synchroniser", lambda device: synchronise)
    watch = Stopwatch("cuda")
    with watch.phase("sampling"):
        queued.append(3.0)
    assert watch.seconds == {"sampling": 3.0}


def test_cuda_is_synchronised_on_its_own_device(monkeypatch):
    import torch

    seen = []
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    synchroniser(torch.device("cuda", 1))()
    assert seen == [torch.device("cuda", 1)]
    synchroniser("cpu")()
    assert len(seen) == 1


def test_a_real_sleep_is_timed():
    watch = Stopwatch()
    with watch.phase("sleep"):
        time.sleep(0.05)
    assert 0.05 <= watch.seconds["sleep"] < 0.5
