"""Times in turns: on a simulated machine that drifts, spikes and slows down, and once on this one."""

from __future__ import annotations

import itertools
import math
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError, PluginError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench.runner.interleaved_timing import Call, interleave, interleaved_times
from kfpbench.runner.machine_load import LoadMeter, MachineLoad
from kfpbench.runner.paired_times import BatchTimes, Ratio, through
from kfpbench.runner.timing import series_interval

QUIET = MachineLoad(0.0, 0.5, 1.0, 2, 1)


class Machine:
    """A clock on which work takes its time, times what the machine does at that moment: ``slowness(now)``."""

    def __init__(self, monkeypatch, slowness=lambda now: 1.0):
        self.now = 0.0
        self.slowness = slowness
        self.log: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def call(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += seconds * self.slowness(self.now)

        return Call(run, lambda: None)


def batch_times(seconds: dict[str, tuple[float, ...]], batch: int = 1) -> BatchTimes:
    return BatchTimes(batch, seconds, dict.fromkeys(seconds, 1), dict.fromkeys(seconds, (1.0, 1.0)), QUIET)


def test_a_round_goes_there_and_back_in_an_order_that_changes(monkeypatch):
    machine = Machine(monkeypatch)
    taken = interleave({name: machine.call(name, 1.0) for name in "abc"}, 20, {"b": 3})
    rounds = [machine.log[start : start + 10] for start in range(0, 200, 10)]
    assert {name: len(values) for name, values in taken.items()} == dict.fromkeys("abc", 20)
    for visits in rounds:
        assert visits == visits[::-1]
        assert sorted(visits) == sorted("aabbbbbbcc")
    assert len({"".join(visits) for visits in rounds}) == 6  # every order has its turn
    machine.log.clear()
    interleave({name: machine.call(name, 1.0) for name in "abc"}, 20, {"b": 3})
    assert [machine.log[start : start + 10] for start in range(0, 200, 10)] == rounds  # seeded


def test_a_steady_drift_has_no_part_in_a_ratio(monkeypatch):
    """Every second the machine is 1 % slower than the second before: twice as slow in the end."""
    machine = Machine(monkeypatch, lambda now: math.exp(0.01 * now))
    calls = {
        "long": machine.call("long", 0.9),
        "short": machine.call("short", 0.3),
        "third": machine.call("third", 0.1),
    }
    times = batch_times(interleave(calls, 20))
    assert machine.now > 60
    found = times.ratio("long", "short")
    # the machine has for a whole call the speed of its start: 1 % a second x half of a long call's 1.8 s at the end
    assert (found.low, found.value, found.high) == (pytest.approx(3.0, rel=9e-3),) * 3
    one_after_the_other = {
        name: [_seconds(machine, calls[name]) for _ in range(40)] for name in ("long", "short")
    }  # the same number of calls
    wrong = np.median(one_after_the_other["long"]) / np.median(one_after_the_other["short"])
    assert abs(wrong / 3.0 - 1) > 0.2


def _seconds(machine, call):
    begin = machine.now
    call.run()
    return machine.now - begin


def wandering(generator):
    """Slowness that wanders (a random walk of 4 % a second in the logarithm), with noise of 5 %, and spikes of 3 to 10
    times in one call of 20.
    """
    state = {"time": 0.0, "log": 0.0}

    def slowness(now):
        state["log"] += 0.04 * math.sqrt(now - state["time"]) * generator.gauss(0, 1)
        state["time"] = now
        spike = generator.uniform(3, 10) if generator.random() < 0.05 else 1.0
        return math.exp(state["log"] + 0.05 * generator.gauss(0, 1)) * spike

    return slowness


def test_the_interval_of_a_ratio_covers_it_on_a_drifting_machine(monkeypatch):
    repeats, rounds = 200, 12
    pairs = list(itertools.combinations("abc", 2))
    truth = {"a": 1.0, "b": 0.25, "c": 0.05}
    hits = dict.fromkeys(pairs, 0)
    apart = 0
    for seed in range(repeats):
        machine = Machine(monkeypatch, wandering(random.Random(seed)))
        calls = {name: machine.call(name, seconds) for name, seconds in truth.items()}
        times = batch_times(interleave(calls, rounds, seed=seed))
        for top, bottom in pairs:
            found = times.ratio(top, bottom)
            hits[top, bottom] += found.low <= truth[top] / truth[bottom] <= found.high
        # planted: the same number of calls, one sampler after the other
        logs = [[math.log(_seconds(machine, calls[name])) for _ in range(2 * rounds)] for name in ("a", "b")]
        made = series_interval([a - b for a, b in zip(*logs, strict=True)])
        apart += made.low <= math.log(4.0) <= made.high
    for count in hits.values():  # a rate of 90 to 99 %: each side fails by chance once in 10^6
        assert binom.ppf(1e-6, repeats, 0.90) <= count <= binom.ppf(1 - 1e-6, repeats, 0.99)
    assert apart < binom.ppf(1e-6, repeats, 0.90)


def test_a_sampler_is_as_fast_as_itself(monkeypatch):
    repeats = 200
    hits = 0
    for seed in range(repeats):
        machine = Machine(monkeypatch, wandering(random.Random(1000 + seed)))
        calls = {name: machine.call(name, 0.2) for name in ("first", "second", "other")}
        found = batch_times(interleave(calls, 12, seed=seed)).ratio("first", "second")
        hits += found.low <= 1.0 <= found.high
    assert hits >= binom.ppf(1e-6, repeats, 0.95)


def test_another_program_that_comes_and_goes_leaves_the_ratio(monkeypatch):
    machine = Machine(monkeypatch, lambda now: 3.0 if 5.0 < now < 11.0 else 1.0)
    calls = {"a": machine.call("a", 0.4), "b": machine.call("b", 0.1)}
    times = batch_times(interleave(calls, 15))
    found = times.ratio("a", "b")
    assert found.value == pytest.approx(4.0, rel=1e-9)
    assert found.low <= 4.0 <= found.high
    assert times.per_image("a").ci_high > 1.0  # the times themselves were disturbed, and say so
    assert times.per_image("a").ci_low < 0.45


def test_ratios_and_savings_by_hand():
    times = batch_times({"a": (4.0, 8.0, 6.0), "b": (2.0, 4.0, 2.0)}, batch=2)
    ratio, inverse = times.ratio("a", "b"), times.ratio("b", "a")
    assert (ratio.value, ratio.rounds) == (pytest.approx(2.0), 3)
    expected = series_interval(np.log([2.0, 2.0, 3.0]).tolist())
    assert (ratio.low, ratio.high) == (pytest.approx(math.exp(expected.low)), pytest.approx(math.exp(expected.high)))
    assert (1 / inverse.value, 1 / inverse.high, 1 / inverse.low) == pytest.approx((ratio.value, ratio.low, ratio.high))
    assert times.saved_per_image("b", "a").centre == 2.0  # of (4 - 2, 8 - 4, 6 - 2) / 2 = 1, 2, 2
    assert times.saved_per_image("a", "b").centre == -2.0
    assert times.per_image("a").median == 3.0
    with pytest.raises(ParameterError, match="not timed"):
        times.ratio("a", "c")


def test_a_ratio_through_an_anchor_adds_the_doubts():
    first, second = Ratio(2.0, 1.0, 4.0, 12, "x"), Ratio(3.0, 1.5, 6.0, 9, "y", "few")
    found = through(first, second)
    factor = math.exp(math.hypot(math.log(2), math.log(2)))
    assert (found.value, found.low, found.high) == pytest.approx((6.0, 6.0 / factor, 6.0 * factor))
    assert (found.rounds, found.note) == (9, "few")


def test_times_come_back_from_plain_values():
    times = BatchTimes(16, {"a": (1.0, 2.0)}, {"a": 3}, {"a": (9.0, 1.0)}, QUIET, "2 of 9 rounds", {"b": "too slow"})
    assert BatchTimes.from_plain(times.as_plain()) == times


def test_nothing_to_time_is_refused():
    with pytest.raises(ParameterError, match="nothing to time"):
        interleave({}, 3)
    with pytest.raises(ParameterError, match="nothing to time"):
        interleave({"a": Call(lambda: None, lambda: None)}, 0)


class Sampler:
    """Draws noise, and takes ``seconds(batch)`` of the simulated time."""

    def __init__(self, machine, name, seconds, rows=lambda drawn: drawn):
        self.machine, self.name, self.seconds, self.rows = machine, name, seconds, rows
        self.indices: list[list[int]] = []

    def sample(self, noise: NoiseStream) -> Any:
        self.machine.log.append(self.name)
        self.indices.append(noise.indices.tolist())
        self.machine.now += self.seconds(len(noise.indices)) * self.machine.slowness(self.machine.now)
        return self.rows(noise.normal(0))

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def problem() -> Problem:
    rows = np.zeros((4, 2), dtype=np.float32)
    dataset = Dataset(name="points", train=rows, validation=rows, test=rows)
    return Problem(dataset, None, None, torch.device("cpu"), torch.float32, 7)  # type: ignore[arg-type]


def test_samplers_are_timed_at_every_batch_size_after_what_compiles(monkeypatch, problem):
    machine = Machine(monkeypatch)
    compiled: set[int] = set()

    def compiling(batch):
        new = batch not in compiled
        compiled.add(batch)
        return 60.0 if new else 0.5 + 0.01 * batch

    fitted = {"steps": Sampler(machine, "steps", lambda batch: 0.1 * batch), "jit": Sampler(machine, "jit", compiling)}
    single, several = interleaved_times(fitted, problem, [1, 16], rounds=6)
    assert (single.batch, several.batch) == (1, 16)
    assert single.warm_up["jit"][0] == 60.0
    assert len(single.warm_up["jit"]) == 3
    assert single.ratio("jit", "steps").high == pytest.approx(5.1)  # no round has the 60 seconds
    assert several.per_image("jit").median == pytest.approx(0.66 / 16)
    assert several.ratio("steps", "jit").value == pytest.approx(1.6 / 0.66)
    assert several.calls == {"steps": 1, "jit": 1}
    assert {tuple(asked) for asked in fitted["steps"].indices} == {(0,), tuple(range(16))}


def test_short_calls_are_repeated_within_a_visit(monkeypatch, problem):
    machine = Machine(monkeypatch)
    fitted = {"fast": Sampler(machine, "fast", lambda b: 1e-4), "slow": Sampler(machine, "slow", lambda b: 0.004)}
    (times,) = interleaved_times(fitted, problem, [1], rounds=4)
    assert times.calls == {"fast": 25, "slow": 5}
    assert times.ratio("slow", "fast").value == pytest.approx(40.0)


def test_a_limit_leaves_fewer_rounds_and_says_so(monkeypatch, problem):
    machine = Machine(monkeypatch)
    fitted = {name: Sampler(machine, name, lambda b: 1.0) for name in "ab"}
    (times,) = interleaved_times(fitted, problem, [1], rounds=12, seconds=30.0)
    assert len(times.seconds["a"]) == 7  # four seconds a round
    assert "7 of 12 rounds" in times.note
    (times,) = interleaved_times(fitted, problem, [1], rounds=12, seconds=5.0)
    assert len(times.seconds["a"]) == 3  # never fewer: two have no interval worth the name
    (times,) = interleaved_times(fitted, problem, [1], rounds=12, seconds=1e3)
    assert (len(times.seconds["a"]), times.note) == (12, "")


def test_a_sampler_that_takes_longer_than_the_limit_is_left_out_of_that_batch(monkeypatch, problem):
    machine = Machine(monkeypatch)
    fitted = {"quick": Sampler(machine, "quick", lambda b: 0.1), "slow": Sampler(machine, "slow", lambda b: 2.0 * b)}
    single, large = interleaved_times(fitted, problem, [1, 100], rounds=6, seconds=60.0)
    assert set(single.seconds) == {"quick", "slow"}
    assert set(large.seconds) == {"quick"}
    assert "takes 200 s" in large.left_out["slow"]
    assert machine.log.count("slow") == 2 + 12 + 1  # one call at batch 100 tells


@pytest.mark.parametrize("rows", [lambda drawn: drawn[:1], lambda drawn: None, lambda drawn: drawn.repeat(2, 1)])
def test_a_sampler_that_does_not_do_its_work_is_named(monkeypatch, problem, rows):
    machine = Machine(monkeypatch)
    fitted = {"lazy": Sampler(machine, "lazy", lambda b: 0.1, rows)}
    with pytest.raises(PluginError, match="lazy"):
        interleaved_times(fitted, problem, [3], rounds=2)


def test_a_plan_that_makes_no_sense_is_refused(monkeypatch, problem):
    fitted = {"a": Sampler(Machine(monkeypatch), "a", lambda b: 0.1)}
    for batches, rounds in [([], 3), ([0], 3), ([1], 0)]:
        with pytest.raises(ParameterError, match="plan"):
            interleaved_times(fitted, problem, batches, rounds)
    with pytest.raises(ParameterError, match="needs a problem"):
        interleaved_times(fitted, {"b": problem}, [1])


def test_the_caller_may_stop_between_two_visits(monkeypatch, problem):
    machine = Machine(monkeypatch)
    fitted = {name: Sampler(machine, name, lambda b: 1.0) for name in "ab"}

    def check():
        if machine.now > 20:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        interleaved_times(fitted, problem, [1], rounds=100, check=check)
    assert machine.now <= 22


@pytest.mark.slow
def test_two_timings_of_one_sampler_agree_in_nine_of_ten_tries(problem, capsys):
    """On this machine as it is: the same sampler timed twice in turns with another one, and twice one after the other.

    A rate of 0.9 agrees in fewer than 21 of 30 tries once in 2,000 runs, one of 0.5 in 21 or more once in 47: the
    figure printed is the finding, the assertion finds intervals that are too short.
    """
    weights = torch.linspace(-1, 1, 200 * 200).reshape(200, 200) / 20

    class Products:
        def __init__(self, steps):
            self.steps = steps

        def sample(self, noise):
            rows = noise.normal(0)
            x = rows.repeat(1, 100)
            for _ in range(self.steps):
                x = torch.tanh(x @ weights)
            return rows + 0 * x[:, :2]

        def describe(self):
            return {}

    tries, one, other = 30, Products(60), Products(200)
    turns, summaries, loads = 0, 0, []
    for seed in range(tries):
        with LoadMeter() as meter:
            (times,) = interleaved_times({"first": one, "other": other, "second": one}, problem, [1], seed=seed)
            (again,) = interleaved_times({"first": one, "other": other}, problem, [1], seed=seed)
        loads.append(meter.result)
        ratio = times.ratio("first", "second")
        turns += ratio.low <= 1.0 <= ratio.high
        a, b = times.per_image("first"), again.per_image("first")
        room = (
            math.hypot(a.median - a.ci_low, b.ci_high - b.median)
            if a.median > b.median
            else math.hypot(a.ci_high - a.median, b.median - b.ci_low)
        )
        summaries += abs(a.median - b.median) <= room
    known = [load.others for load in loads if load.others is not None]
    with capsys.disabled():
        share = f"{min(known):.0%} to {max(known):.0%}" if known else "an unknown share"
        print(
            f"\nother programs had {share} of the processors; {'LOADED' if any(x.loaded for x in loads) else 'quiet'}"
        )
        print(f"agreed within their intervals: in turns {turns} of {tries}, one after the other {summaries} of {tries}")
    least = int(binom.ppf(2e-3, tries, 0.9))
    assert turns >= least
    assert summaries >= least
