"""Run one sampler cell: fit, warm up, time, sample, measure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kfpbench.data.shared_cost import billed
from kfpbench.errors import CapabilityError, NumericalError, PluginError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import BoundScore, FittedSampler, Measurement, MetricInput, Problem
from kfpbench.runner.budget import Deadline
from kfpbench.runner.materials import Materials, reference_rows, wake
from kfpbench.runner.memory import MemoryPeak, PeakMemory
from kfpbench.runner.timing import Stopwatch, TimingSummary, summarise_times, synchroniser, throughput
from kfpbench.store.eigenfunctions import FunctionGrid
from kfpbench.store.records import measurement_entry
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create

_MIB = 2**20
_LATENCY_SECONDS = 10.0  # repeats at batch 1 stop here, after the least number that gives a spread
_LEAST_REPEATS = 3
_WARM_BATCH_SECONDS = 5.0  # a batch predicted to take longer on a CPU hides its one-off costs by itself


@dataclass
class Outcome:
    """What a cell has produced so far; a failed cell keeps the phases that it got through."""

    phases: dict[str, float] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    samples: NDArray[np.float32] | None = None
    reference: NDArray[np.float32] | None = None
    functions: FunctionGrid | None = None


def run_sample_cell(cell: Cell, materials: Materials, deadline: Deadline, outcome: Outcome) -> None:
    """Fill ``outcome`` with timings, samples and metrics.

    Raises CapabilityError, NumericalError, CellTimeout, and whatever a plugin raises. The phases are disjoint: setup
    (fit), warm_up, latency (batch 1), sampling (all samples, timed by batch), metrics.
    """
    spec = cell.spec
    sampler = create("samplers", spec["sampler"])
    metrics = [create("metrics", block) for block in spec["metrics"]]
    problem = materials.problem(cell)
    outcome.device = str(problem.device)
    wake(problem.device)
    watch = Stopwatch(problem.device)
    outcome.phases = watch.seconds
    before = problem.score.evaluations
    with PeakMemory(problem.device) as memory:
        with watch.phase("setup"), billed() as reused:
            fitted = sampler.fit(problem)
        setup_evaluations = problem.score.evaluations - before
        with watch.phase("warm_up"):
            _warm_up(fitted, problem, min(spec["batch_size"], spec["n_samples"]))
        with watch.phase("latency"):
            latency = _latency(fitted, problem, spec["latency_repeats"], deadline)
        with watch.phase("sampling"):
            before = problem.score.evaluations
            samples, speed = _draw(fitted, problem, spec["n_samples"], spec["batch_size"], deadline)
            sampling_evaluations = problem.score.evaluations - before
    outcome.samples = samples
    outcome.details["sampler"] = fitted.describe()
    outcome.details["score"] = describe_score(problem.score)
    outcome.details["data"] = {"fingerprint": problem.dataset.fingerprint, "notes": list(problem.dataset.notes)}
    outcome.measurements += _costs(
        speed,
        latency,
        sampling_evaluations / len(samples),
        (outcome.phases["setup"], sum(reused.values())),
        setup_evaluations,
        memory.result,
        spec["batch_size"],
    )
    deadline.check()
    with watch.phase("metrics"):
        _check_finite(samples)
        outcome.reference = reference_rows(problem.dataset, spec["data"]["reference"], spec["n_samples"], cell.seed)
        n = min(len(samples), len(outcome.reference))
        if n < len(samples):
            outcome.details["notes"] = [f"metrics at n = {n} of {len(samples)}: the reference set has no more rows"]
        outcome.measurements += _quality(metrics, cell, problem, fitted, samples[:n], outcome, deadline)


def describe_score(score: BoundScore) -> dict[str, Any]:
    """The score's class, and what it says of itself where it has ``describe``: the file that it was read from."""
    describe = getattr(score, "describe", dict)
    return {"class": type(score).__name__, **describe()}


def _stream(problem: Problem, start: int, stop: int) -> NoiseStream:
    return NoiseStream.of_range(problem.seed, start, stop, problem.dataset.dimension, problem.device, problem.dtype)


def _warm_up(fitted: FittedSampler, problem: Problem, batch: int) -> None:
    synchronise = synchroniser(problem.device)
    seconds = 0.0
    for _ in range(2):  # the first call may compile; the second one's time is the prediction
        begin = time.perf_counter()
        fitted.sample(_stream(problem, 0, 1))
        synchronise()
        seconds = time.perf_counter() - begin
    if problem.device.type != "cpu" or seconds * batch < _WARM_BATCH_SECONDS:
        fitted.sample(_stream(problem, 0, batch))


def _latency(fitted: FittedSampler, problem: Problem, repeats: int, deadline: Deadline) -> TimingSummary:
    """Seconds of one image at batch 1, over at most ``repeats`` repeats."""
    synchronise = synchroniser(problem.device)
    stream = _stream(problem, 0, 1)
    times: list[float] = []
    while len(times) < repeats and (sum(times) < _LATENCY_SECONDS or len(times) < _LEAST_REPEATS):
        deadline.check()
        synchronise()
        begin = time.perf_counter()
        fitted.sample(stream)
        synchronise()
        times.append(time.perf_counter() - begin)
    return summarise_times(times)


def _draw(
    fitted: FittedSampler, problem: Problem, n: int, batch: int, deadline: Deadline
) -> tuple[NDArray[np.float32], TimingSummary]:
    """All n samples (n, d), and seconds per image over the batches."""
    synchronise = synchroniser(problem.device)
    parts, seconds, sizes = [], [], []
    for start in range(0, n, batch):
        deadline.check()
        stop = min(start + batch, n)
        stream = _stream(problem, start, stop)
        synchronise()
        begin = time.perf_counter()
        rows = fitted.sample(stream)
        synchronise()
        seconds.append(time.perf_counter() - begin)
        sizes.append(stop - start)
        _check_rows(rows, stop - start, problem.dataset.dimension)
        parts.append(rows.detach().to("cpu", torch.float32).numpy())
    return np.concatenate(parts), throughput(seconds, sizes)


def _check_rows(rows: object, n: int, dimension: int) -> None:
    """One row of the data set's dimension for every sample index: n is the same in every comparison."""
    if not isinstance(rows, torch.Tensor):
        raise PluginError("the sampler returned no tensor", got=type(rows).__name__, allowed="torch.Tensor")
    if tuple(rows.shape) != (n, dimension):
        raise PluginError(
            "the sampler returned rows of the wrong shape", got=tuple(rows.shape), allowed=f"({n}, {dimension})"
        )


def _check_finite(samples: NDArray[np.float32]) -> None:
    bad = int((~np.isfinite(samples).all(axis=1)).sum())
    if bad:
        raise NumericalError(
            "samples hold NaN or infinity",
            got=f"{bad} of {len(samples)} rows",
            remedy="Use more steps or segments, a larger ridge, or float64.",
        )


def _costs(
    speed: TimingSummary,
    latency: TimingSummary,
    nfe: float,
    setup: tuple[float, float],
    setup_evaluations: int,
    memory: MemoryPeak,
    batch: int,
) -> list[dict[str, Any]]:
    """The measurements that every sampler cell has, whatever its metrics.

    ``setup`` holds the seconds measured, and those spared by reusing what other cells share: both are its cost.
    """
    measured = [
        _timing("seconds_per_image", speed, {"batch": batch}),
        _timing("seconds_per_image_batch1", latency, {"batch": 1}),
        Measurement("nfe", nfe, details={"what": "rows evaluated by the score, per image"}),
        Measurement("setup_seconds", sum(setup), unit="s", details={"measured": setup[0], "shared": setup[1]}),
        Measurement("setup_nfe", float(setup_evaluations), details={"what": "rows evaluated by the score in the fit"}),
    ]
    if memory.peak is not None and memory.increase is not None:
        details = {"source": memory.source, "process_peak_mib": memory.peak / _MIB, "note": memory.note}
        measured.append(Measurement("peak_memory_mib", memory.increase / _MIB, unit="MiB", details=details))
    return [measurement_entry(one, "lower") for one in measured]


def _timing(name: str, summary: TimingSummary, details: dict[str, Any]) -> Measurement:
    more = {"interval": f"order statistics of {summary.n} repeats", "coverage": summary.coverage, "note": summary.note}
    return Measurement(name, summary.median, summary.ci_low, summary.ci_high, summary.n, "s", {**details, **more})


def _quality(
    metrics: list[Any],
    cell: Cell,
    problem: Problem,
    fitted: FittedSampler,
    samples: NDArray[np.float32],
    outcome: Outcome,
    deadline: Deadline,
) -> list[dict[str, Any]]:
    """The measurements of all metrics. One that cannot be taken is named with its reason in the cell's details."""
    dataset = problem.dataset
    which = cell.spec["data"]["reference"]
    assert outcome.reference is not None
    reference = outcome.reference[: len(samples)]
    entries = []
    for metric, block in zip(metrics, cell.spec["metrics"], strict=True):
        deadline.check()
        # copies: what one metric does to its rows is not what the next one, or the disk, gets
        given = MetricInput(
            samples.copy(),
            reference.copy(),
            dataset.train,
            dataset,
            f"{dataset.name}/{which}",
            cell.seed,
            fitted,
            problem,
        )
        try:
            measured = metric.evaluate(given)
        except CapabilityError as error:
            outcome.details.setdefault("skipped_metrics", {})[block["name"]] = str(error)
            continue
        for measurement in measured:
            entries.append(measurement_entry(measurement, metric.outputs.get(measurement.metric, "neither")))
    return entries
