import itertools
import time

import numpy as np
import pytest
from scipy.stats import binom

from kfpbench.errors import ParameterError
from kfpbench.runner.timing import (
    Stopwatch,
    measure_latency,
    measure_throughput,
    median_interval,
    summarise_times,
    synchroniser,
    throughput,
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


@pytest.mark.parametrize("n", [4, 6, 15, 40])
def test_the_interval_covers_the_median_as_often_as_it_says(n):
    repeats = 4000
    coverage = median_interval(n)[2]
    draws = np.random.default_rng(n).lognormal(size=(repeats, n))  # median 1, long tail
    summaries = [summarise_times(row) for row in draws.tolist()]
    hits = sum(s.ci_low <= 1 <= s.ci_high for s in summaries)
    # The number of hits is Binomial(repeats, coverage): fails by chance once in 10^6 runs of another seed.
    low, high = binom.ppf([5e-7, 1 - 5e-7], repeats, coverage)
    assert low <= hits <= high


def test_few_values_give_minimum_to_maximum_and_say_so():
    for n in range(1, 6):
        summary = summarise_times([float(i) for i in range(n)])
        assert (summary.ci_low, summary.ci_high) == (0, n - 1)
        assert f"n = {n} is too small" in summary.note
    assert summarise_times(range(6)).note == ""
    assert (summarise_times(range(6)).ci_low, summarise_times(range(6)).ci_high) == (0, 5)


@pytest.mark.parametrize(("values", "median"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5), ([7.0], 7.0)])
def test_summary_of_known_values(values, median):
    summary = summarise_times(values)
    assert (summary.median, summary.minimum, summary.n) == (median, min(values), len(values))
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
    assert (mixed.median, mixed.ci_high, mixed.n) == (0.04, 0.06, 3)
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
