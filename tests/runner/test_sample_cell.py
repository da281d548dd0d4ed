"""One cell in this process, with samplers that write down what they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from kfpbench import registry
from kfpbench.errors import CellTimeout, NumericalError, PluginError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Measurement, MetricInput, Problem, ProblemSize
from kfpbench.runner.budget import Deadline
from kfpbench.runner.machine_load import LoadMeter, MachineLoad
from kfpbench.runner.materials import Materials
from kfpbench.runner.sample_cell import Outcome, _spread, run_sample_cell
from kfpbench.runner.spectrum_cell import run_spectrum_cell
from kfpbench.suite.load import suite_from_mapping

PHASES = ["setup", "warm_up", "latency", "sampling", "metrics"]
COSTS = ["seconds_per_image", "seconds_per_image_batch1", "nfe", "setup_seconds", "setup_nfe"]


@dataclass
class Log:
    """What the components of a test were asked for, and how the sampler answers."""

    asked: list[list[int]] = field(default_factory=list)
    seen: list[MetricInput] = field(default_factory=list)
    answer: Callable[[torch.Tensor], Any] = lambda rows: rows
    evaluations: int = 2
    metric_error: Exception | None = None


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    log = Log()

    class Fitted:
        def __init__(self, problem: Problem) -> None:
            self.problem = problem

        def sample(self, noise: NoiseStream) -> torch.Tensor:
            log.asked.append(noise.indices.tolist())
            rows = noise.normal(0)
            for _ in range(log.evaluations):
                self.problem.score.denoise(rows, 1.0, 1.0)
            return log.answer(rows)

        def describe(self) -> dict[str, Any]:
            return {"kind": "logged"}

    @registry.register("samplers", "logged")
    class Logged:
        def fit(self, problem: Problem) -> Fitted:
            problem.score.denoise(torch.zeros(7, 2, dtype=problem.dtype), 1.0, 1.0)
            return Fitted(problem)

        def working_memory(self, size: ProblemSize) -> int:
            return 1

    @registry.register("metrics", "logged")
    class Metric:
        outputs = {"up": "higher"}  # noqa: RUF012

        def evaluate(self, data: MetricInput) -> list[Measurement]:
            log.seen.append(data)
            if log.metric_error is not None:
                raise log.metric_error
            return [Measurement("up", 1.0, n=len(data.samples)), Measurement("other", 2.0)]

    return log


def execute(deadline: Deadline | None = None, outcome: Outcome | None = None, **changes: Any) -> Outcome:
    """Run the only cell of a small suite."""
    suite = suite_from_mapping(
        {
            "name": "one",
            "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
            "score": "mixture",
            "process": "ve",
            "samplers": ["logged"],
            "metrics": ["logged"],
            "n_samples": 25,
            "batch_size": 10,
            "latency_repeats": 4,
            "device": "cpu",
            **changes,
        }
    )
    (cell,) = suite.cells
    outcome = Outcome() if outcome is None else outcome
    run_sample_cell(cell, Materials(), deadline or Deadline(None), outcome)
    return outcome


def values(outcome: Outcome) -> dict[str, float]:
    return {entry["metric"]: entry["value"] for entry in outcome.measurements}


def entry(outcome: Outcome, metric: str) -> dict[str, Any]:
    (found,) = [each for each in outcome.measurements if each["metric"] == metric]
    return found


def test_the_latency_repeats_are_spread_between_the_batches(log: Log) -> None:
    execute()
    sizes = [len(asked) for asked in log.asked]
    warm = sizes.index(10) + 1
    assert sizes[:warm] in ([1, 1, 10], [1, 1, 1, 10], [1, 1, 1, 1, 10], [1, 1, 1, 1, 1, 10])  # until calls are alike
    # one repeat, a batch, then an untimed call, for the caches, and a repeat; and so on to the end
    assert sizes[warm:] == [1, 10, 1, 1, 10, 1, 1, 5, 1, 1]
    batches = [asked for asked in log.asked[warm:] if len(asked) > 1]
    assert batches == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


@pytest.mark.parametrize(
    ("repeats", "slots", "shares"),
    [(4, 4, [1, 1, 1, 1]), (10, 5, [2, 2, 2, 2, 2]), (3, 5, [1, 0, 1, 0, 1]), (1, 5, [1, 0, 0, 0, 0]), (6, 2, [3, 3])],
)
def test_repeats_are_spread_from_the_first_slot_to_the_last(repeats: int, slots: int, shares: list[int]) -> None:
    assert _spread(repeats, slots) == shares


@pytest.mark.parametrize("single", [0.01, 2.0])
def test_compilation_is_in_no_timed_phase(log: Log, monkeypatch: pytest.MonkeyPatch, single: float) -> None:
    """A sampler that compiles for every new batch size, 30 s each; time passes only where it says so."""
    now = 100.0
    compiled: set[int] = set()
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def answer(rows: torch.Tensor) -> torch.Tensor:
        nonlocal now
        now += single * len(rows) + (0 if len(rows) in compiled else 30)
        compiled.add(len(rows))
        return rows

    log.answer = answer
    outcome = execute(n_samples=30, latency_repeats=4)
    assert outcome.phases["warm_up"] >= 60
    for metric in ("seconds_per_image", "seconds_per_image_batch1"):
        found = entry(outcome, metric)
        assert (found["value"], found["ci_high"]) == (pytest.approx(single), pytest.approx(single))
        assert found["details"]["note"] == ""
    assert outcome.phases["sampling"] == pytest.approx(30 * single)
    assert outcome.phases["latency"] == pytest.approx(4 * single)


def test_a_single_batch_has_no_interval(log: Log) -> None:
    outcome = execute(batch_size=25)
    speed = entry(outcome, "seconds_per_image")
    assert (speed["ci_low"], speed["ci_high"], speed["n"]) == (None, None, 1)


def test_the_load_of_the_machine_is_recorded_with_the_times(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = execute().details["timing"]
    assert timing["torch_threads"] == torch.get_num_threads()
    assert set(timing["load"]) >= {"others_share", "own_share", "seconds", "cores", "threads"}
    monkeypatch.setattr(LoadMeter, "__exit__", busy)
    outcome = execute()
    assert "other programs had 70%" in outcome.details["timing"]["load"]["note"]
    for metric in ("seconds_per_image", "seconds_per_image_batch1"):
        assert "taken under load" in entry(outcome, metric)["details"]["load"]


def busy(meter: LoadMeter, *error: object) -> None:
    meter.result = MachineLoad(0.7, 0.2, 5.0, 2, 1)


def test_the_phases_and_costs_of_a_cell(log: Log) -> None:
    outcome = execute()
    assert list(outcome.phases) == PHASES
    assert all(seconds >= 0 for seconds in outcome.phases.values())
    measured = values(outcome)
    assert set(COSTS) <= set(measured)
    assert (measured["nfe"], measured["setup_nfe"]) == (2.0, 7.0)  # neither counts warm-up or latency
    assert measured["setup_seconds"] == outcome.phases["setup"]
    assert measured["peak_memory_mib"] >= 0  # the increase
    assert entry(outcome, "peak_memory_mib")["details"]["process_peak_mib"] > 1
    assert entry(outcome, "seconds_per_image")["details"]["batch"] == 10
    assert entry(outcome, "seconds_per_image")["n"] == 2  # the partial batch is not timed
    assert entry(outcome, "seconds_per_image_batch1")["n"] == 4
    assert all(entry(outcome, metric)["better"] == "lower" for metric in COSTS)
    assert outcome.details["sampler"] == {"kind": "logged"}
    assert outcome.device == "cpu"


def test_the_direction_of_a_metric_is_the_one_it_declares(log: Log) -> None:
    outcome = execute()
    assert entry(outcome, "up")["better"] == "higher"
    assert entry(outcome, "other")["better"] == "neither"


def test_samples_and_reference_are_equally_many(log: Log) -> None:
    outcome = execute()
    assert outcome.samples is not None
    assert outcome.samples.shape == (25, 2)
    assert outcome.samples.dtype == np.float32
    (given,) = log.seen
    assert (len(given.samples), len(given.reference), len(given.train)) == (25, 25, 400)
    assert given.reference_name == "gmm_ring/test"
    assert {tuple(row) for row in given.reference.tolist()} <= {tuple(row) for row in given.dataset.test.tolist()}


def test_a_reference_with_fewer_rows_gives_the_n(log: Log) -> None:
    outcome = execute(data={"name": "gmm_ring", "train": 300, "validation": 100, "test": 12})
    (given,) = log.seen
    assert (len(given.samples), len(given.reference)) == (12, 12)
    assert outcome.details["notes"] == ["metrics at n = 12 of 25: the reference set has no more rows"]
    assert outcome.samples is not None
    np.testing.assert_array_equal(given.samples, outcome.samples[:12])


def test_the_validation_split_is_named(log: Log) -> None:
    execute(data={"name": "gmm_ring", "train": 300, "validation": 100, "test": 200, "reference": "validation"})
    assert log.seen[0].reference_name == "gmm_ring/validation"
    assert len(log.seen[0].train) == 300


@pytest.mark.parametrize("batch", [1, 7, 25, 1000])
def test_the_batch_does_not_change_the_noise(log: Log, batch: int) -> None:
    expected = NoiseStream.of_range(0, 0, 25, 2, torch.device("cpu"), torch.float32).normal(0).numpy()
    outcome = execute(batch_size=batch)
    assert outcome.samples is not None
    np.testing.assert_array_equal(outcome.samples, expected)


def test_float64_reaches_the_sampler(log: Log) -> None:
    kinds = set()
    log.answer = lambda rows: (kinds.add(rows.dtype), rows)[1]
    outcome = execute(dtype="float64")
    assert kinds == {torch.float64}
    assert outcome.samples is not None
    assert outcome.samples.dtype == np.float32


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda rows: rows[:, :1], "(10, 1)"),
        (lambda rows: rows.repeat(1, 2), "(10, 4)"),
        (lambda rows: rows[:1], "(1, 2)"),
        (lambda rows: rows.repeat(2, 1), "(20, 2)"),
        (lambda rows: rows[None], "(1, 10, 2)"),
    ],
)
def test_wrong_shapes_are_refused(log: Log, answer: Callable[[torch.Tensor], Any], got: str) -> None:
    log.answer = answer
    with pytest.raises(PluginError, match="wrong shape") as caught:
        execute()
    assert str(caught.value.got) == got
    assert caught.value.allowed == "(10, 2)"


def test_what_is_no_tensor_is_refused(log: Log) -> None:
    log.answer = lambda rows: rows.tolist()
    with pytest.raises(PluginError, match="no tensor"):
        execute()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_counted(log: Log, bad: float) -> None:
    log.answer = lambda rows: torch.where(rows[:, :1] > rows[:, :1].median(), torch.full_like(rows, bad), rows)
    outcome = Outcome()
    with pytest.raises(NumericalError, match="NaN or infinity") as caught:
        execute(outcome=outcome)
    assert caught.value.got == "12 of 25 rows"  # 5 + 5 + 2 above their batch's lower median
    assert log.seen == []
    assert list(outcome.phases) == PHASES


def test_a_gradient_does_not_hinder(log: Log) -> None:
    log.answer = lambda rows: rows.clone().requires_grad_()
    assert execute().samples is not None


def test_the_deadline_is_looked_at_between_batches(log: Log) -> None:
    deadline = Deadline(1e-9)
    with pytest.raises(CellTimeout):
        execute(deadline)
    assert log.asked[-1] == list(range(10))  # no further than the warm-up
    assert all(asked == [0] for asked in log.asked[:-1])


def test_an_error_of_a_metric_is_let_through_with_the_samples_kept(log: Log) -> None:
    log.metric_error = ZeroDivisionError("in a metric")
    outcome = Outcome()
    with pytest.raises(ZeroDivisionError):
        execute(outcome=outcome)
    assert outcome.samples is not None


def test_what_a_metric_does_to_its_rows_stays_with_it(log: Log) -> None:
    class Vandal:
        outputs = {"none": "lower"}  # noqa: RUF012

        def evaluate(self, data: MetricInput) -> list[Measurement]:
            data.samples[:] = 0.0
            data.reference[:] = 0.0
            return []

    registry.register("metrics", "vandal")(Vandal)
    outcome = execute(metrics=["vandal", "logged"])
    assert outcome.samples is not None
    assert outcome.reference is not None
    for rows in (outcome.samples, outcome.reference, log.seen[0].samples, log.seen[0].reference):
        assert np.abs(rows).min(axis=0).max() > 0


def test_nfe_is_counted_and_not_declared(log: Log) -> None:
    log.evaluations = 5
    assert values(execute())["nfe"] == 5.0


def spectrum(**changes: Any) -> Outcome:
    block = {"label": "modes", "n_eigs": 4, "at": 1.0, "operator": {"points": 60, "eta": 1.0}, **changes}
    suite = suite_from_mapping(
        {
            "name": "one",
            "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
            "score": "mixture",
            "process": "ve",
            "spectrum": [block],
            "device": "cpu",
        }
    )
    outcome = Outcome()
    run_spectrum_cell(suite.cells[0], Materials(), outcome)
    return outcome


def test_a_spectrum_cell_reports_modes_with_residuals() -> None:
    outcome = spectrum()
    measured = values(outcome)
    flags = outcome.details["flags"]
    count = len(flags)
    assert 4 <= count <= 8  # flagged modes are listed beside the four, and do not count; no more than as many again
    assert flags.count("") <= 4
    assert flags.count("") == 4 or count == 8
    for flag, value, residual in zip(flags, outcome.details["eigenvalues"], outcome.details["residuals"], strict=True):
        assert bool(flag) == (residual > 0.5 * abs(complex(*value)))
    for number in range(1, count + 1):
        assert {f"eigenvalue_{number}_re", f"eigenvalue_{number}_im", f"residual_{number}"} <= set(measured)
        assert measured[f"residual_{number}"] >= 0
    assert f"eigenvalue_{count + 1}_re" not in measured
    real = [measured[f"eigenvalue_{number}_re"] for number in range(1, count + 1)]
    assert real == sorted(real, reverse=True)
    assert measured["setup_nfe"] == 120.0  # fitted and held-out points
    assert {"setup_seconds", "peak_memory_mib"} <= set(measured)
    assert entry(outcome, "residual_1")["better"] == "lower"


def test_a_spectrum_outside_the_process_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the process"):
        spectrum(at=1e6)
