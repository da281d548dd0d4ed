"""Run one sampler cell: fit, warm up, time, sample, measure."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kfpbench.cache.use import Kept, forget, keep, look_up
from kfpbench.data.shared_cost import billed
from kfpbench.errors import CapabilityError, NumericalError, PluginError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import BoundScore, FittedSampler, Measurement, MetricInput, Problem
from kfpbench.runner.budget import Deadline
from kfpbench.runner.kept_work import KeptWork, agree
from kfpbench.runner.machine_load import LoadMeter, MachineLoad
from kfpbench.runner.materials import Materials, reference_rows, wake
from kfpbench.runner.memory import MemoryPeak, PeakMemory
from kfpbench.runner.nearest_pairs import nearest_pairs
from kfpbench.runner.timing import Stopwatch, TimingSummary, summarise_times, synchroniser, throughput, warm_up
from kfpbench.store.eigenfunctions import FunctionGrid
from kfpbench.store.records import measurement_entry
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create

_MIB = 2**20
_LATENCY_SECONDS = 10.0  # as many repeats at batch 1 as fit, but for the least number that gives a spread
_LEAST_REPEATS = 3
_BATCH_SECONDS = 5.0  # of batches that are drawn and timed where the samples are in the cache, and at least 3 batches
_WARM_BATCH_SECONDS = 5.0  # a batch predicted to take longer on a CPU is not drawn once more than needed,
_ONE_OFF = 0.02  # unless its one-off costs (those of one image) are predicted to be a larger share of it than this
_COLD_SECONDS = 0.1  # a shorter call is repeated untimed after a batch, which has emptied the caches


@dataclass
class Outcome:
    """What a cell has produced so far; a failed cell keeps the phases that it got through."""

    phases: dict[str, float] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    samples: NDArray[np.float32] | None = None
    reference: NDArray[np.float32] | None = None
    nearest: bytes | None = None  # PNG: samples beside their nearest training images
    functions: FunctionGrid | None = None


def run_sample_cell(cell: Cell, materials: Materials, deadline: Deadline, outcome: Outcome) -> None:
    """Fill ``outcome`` with timings, samples and metrics.

    Raises CapabilityError, NumericalError, CellTimeout, and whatever a plugin raises. The phases are disjoint: setup
    (fit), warm_up, latency (batch 1), sampling (all samples, timed by batch), metrics. The repeats at batch 1 are
    spread between the batches, so that both times see what the machine does in the same span.
    """
    spec = cell.spec
    sampler = create("samplers", spec["sampler"])
    metrics = [create("metrics", block) for block in spec["metrics"]]
    problem = materials.problem(cell)
    outcome.device = str(problem.device)
    wake(problem.device)
    watch = Stopwatch(problem.device)
    outcome.phases = watch.seconds
    work = KeptWork(cell, problem, sampler)
    with watch.phase("setup"):
        kept = look_up(work.fit) if work.fit is not None else None
    if kept is None:
        watch.seconds.clear()  # looking in vain is no part of a fit
    with PeakMemory(problem.device) as memory:
        fitted, setup = _fit(problem, sampler, watch) if kept is None else _as_kept(kept, watch)
        with watch.phase("warm_up"):
            single = _warm_up(fitted, problem, min(spec["batch_size"], spec["n_samples"]))
        with LoadMeter() as load:
            drawn = _draw_or_reuse(work, fitted, problem, spec, watch, single, deadline)
    if work.fit is not None and kept is None:
        told = {"evaluations": setup.evaluations, "memory": setup.memory}
        keep(work.fit, fitted, setup.measured + setup.spared, told)
    if drawn.reused:
        outcome.details["kept_samples"] = {
            "drawn_now": drawn.drawn,
            "seconds": watch.seconds["sampling"],
            "made": drawn.reused,
        }
    elif work.samples is not None and drawn.worth_keeping and np.isfinite(drawn.samples).all():
        keep(work.samples, drawn.samples, watch.seconds["sampling"])
    samples = drawn.samples
    outcome.samples = samples
    outcome.details["sampler"] = fitted.describe()
    outcome.details["score"] = describe_score(problem.score)
    outcome.details["data"] = {"fingerprint": problem.dataset.fingerprint, "notes": list(problem.dataset.notes)}
    outcome.measurements += _costs(
        drawn,
        setup,
        memory.result,
        spec["batch_size"],
        load.result,
    )
    outcome.details["timing"] = {"torch_threads": torch.get_num_threads(), "load": load.result.as_plain()}
    deadline.check()
    with watch.phase("metrics"):
        _check_finite(samples)
        outcome.reference = reference_rows(problem.dataset, spec["data"]["reference"], spec["n_samples"], cell.seed)
        n = min(len(samples), len(outcome.reference))
        if n < len(samples):
            outcome.details["notes"] = [f"metrics at n = {n} of {len(samples)}: the reference set has no more rows"]
        outcome.measurements += _quality(metrics, cell, problem, fitted, samples[:n], outcome, deadline)
        deadline.check()
        if pairs := nearest_pairs(metrics, problem.dataset, samples[:n], outcome.reference[:n]):
            outcome.details["nearest_training"], outcome.nearest = pairs


def describe_score(score: BoundScore) -> dict[str, Any]:
    """The score's class, and what it says of itself where it has ``describe``: the file that it was read from."""
    describe = getattr(score, "describe", dict)
    return {"class": type(score).__name__, **describe()}


@dataclass(frozen=True)
class _Setup:
    """The cost of a fit: seconds ``measured``, those ``spared`` by reusing what other cells or runs have computed, rows
    evaluated by the score, and bytes of memory. Where the fit itself was ``read`` from the cache, ``spared`` and what
    follows are those of its making, whose time this is, and ``held`` are its bytes.
    """

    measured: float
    spared: float
    evaluations: int
    memory: int | None
    read: str = ""
    held: int = 0


def _fit(problem: Problem, sampler: Any, watch: Stopwatch) -> tuple[FittedSampler, _Setup]:
    before = problem.score.evaluations
    with PeakMemory(problem.device) as memory, watch.phase("setup"), billed() as reused:
        fitted: FittedSampler = sampler.fit(problem)
    evaluations = problem.score.evaluations - before
    return fitted, _Setup(watch.seconds["setup"], sum(reused.values()), evaluations, memory.result.increase)


def _as_kept(kept: Kept[Any], watch: Stopwatch) -> tuple[FittedSampler, _Setup]:
    """A fit that an earlier run has left: it costs what it cost then."""
    measured = watch.seconds["setup"]
    evaluations, memory = kept.extra["evaluations"], kept.extra["memory"]
    spared = max(kept.seconds - measured, 0.0)
    return kept.value, _Setup(measured, spared, evaluations, memory, kept.made, kept.bytes)


def _stream(problem: Problem, start: int, stop: int) -> NoiseStream:
    return NoiseStream.of_range(problem.seed, start, stop, problem.dataset.dimension, problem.device, problem.dtype)


def _warm_up(fitted: FittedSampler, problem: Problem, batch: int) -> float:
    """Make everything that a first call makes, at batch 1 and at the stated one. Returns the seconds of one image."""
    one = _stream(problem, 0, 1)
    seconds = warm_up(lambda: fitted.sample(one), synchroniser(problem.device))
    predicted, one_off = seconds[-1] * batch, seconds[0] - seconds[-1]
    if problem.device.type != "cpu" or predicted < _WARM_BATCH_SECONDS or one_off > _ONE_OFF * predicted:
        fitted.sample(_stream(problem, 0, batch))
    return seconds[-1]


@dataclass(frozen=True)
class _Drawn:
    """The samples (n, d) of a cell, its times, and the score's evaluations per image.

    ``reused`` is when they were made where an earlier run has left them; then ``drawn`` rows were drawn for the times.
    """

    samples: NDArray[np.float32]
    speed: TimingSummary
    latency: TimingSummary
    nfe: float
    reused: str = ""
    drawn: int = 0
    worth_keeping: bool = False


def _draw_or_reuse(
    work: KeptWork,
    fitted: FittedSampler,
    problem: Problem,
    spec: dict[str, Any],
    watch: Stopwatch,
    single: float,
    deadline: Deadline,
) -> _Drawn:
    """The samples and their times. Where an earlier run has left the samples in the cache, only as many batches are
    drawn as the times need: these must be the kept ones' first rows, else all are drawn. Times are always taken here.
    """
    batches = -(-spec["n_samples"] // spec["batch_size"])
    needed = max(_LEAST_REPEATS, int(min(_BATCH_SECONDS / max(single * spec["batch_size"], 1e-9), 1e9)) + 1)
    kept = look_up(work.samples) if work.samples is not None and batches > needed else None
    if kept is None or work.samples is None:
        return replace(_draw(fitted, problem, spec, watch, single, deadline), worth_keeping=batches > needed)
    drawn = _draw(fitted, problem, spec, watch, single, deadline, needed)
    count = len(drawn.samples)
    if agree(drawn.samples, kept.value[:count]):
        return replace(drawn, samples=kept.value, reused=kept.made, drawn=count)
    forget(work.samples, "rows drawn anew are not those kept")
    return replace(_draw(fitted, problem, spec, watch, single, deadline), worth_keeping=True)


def _draw(
    fitted: FittedSampler,
    problem: Problem,
    spec: dict[str, Any],
    watch: Stopwatch,
    single: float,
    deadline: Deadline,
    most: int | None = None,
) -> _Drawn:
    """All samples in batches, or the first ``most`` batches, with the repeats at batch 1 before, between and after.

    ``single`` is the predicted time of one image; from it follow the number of repeats and whether caches matter.
    """
    n, batch = spec["n_samples"], spec["batch_size"]
    starts = range(0, n, batch)[:most]
    within = max(_LEAST_REPEATS, int(min(_LATENCY_SECONDS / max(single, 1e-9), 1e9)))
    shares = _spread(min(spec["latency_repeats"], within), len(starts) + 1)
    one = _stream(problem, 0, 1)
    latencies: list[float] = []
    parts, seconds, sizes = [], [], []
    evaluations = 0
    for slot, share in enumerate(shares):
        if share and slot and single < _COLD_SECONDS:
            with watch.phase("warm_up"):
                fitted.sample(one)
        with watch.phase("latency"):
            for _ in range(share):
                deadline.check()
                latencies.append(_timed(fitted, problem, one)[1])
        if slot == len(starts):
            break
        deadline.check()
        start, stop = starts[slot], min(starts[slot] + batch, n)
        before = problem.score.evaluations
        with watch.phase("sampling"):
            rows, taken = _timed(fitted, problem, _stream(problem, start, stop))
            _check_rows(rows, stop - start, problem.dataset.dimension)
            parts.append(rows.detach().to("cpu", torch.float32).numpy())
        evaluations += problem.score.evaluations - before
        seconds.append(taken)
        sizes.append(stop - start)
    return _Drawn(
        np.concatenate(parts), throughput(seconds, sizes), summarise_times(latencies), evaluations / sum(sizes)
    )


def _spread(repeats: int, slots: int) -> list[int]:
    """How many of the repeats come in each slot: in the first and the last, and evenly between them."""
    shares = [0] * slots
    for number in range(repeats):
        shares[round(number * (slots - 1) / max(repeats - 1, 1))] += 1
    return shares


def _timed(fitted: FittedSampler, problem: Problem, stream: NoiseStream) -> tuple[Any, float]:
    synchronise = synchroniser(problem.device)
    synchronise()
    begin = time.perf_counter()
    rows = fitted.sample(stream)
    synchronise()
    return rows, time.perf_counter() - begin


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
    drawn: _Drawn,
    setup: _Setup,
    memory: MemoryPeak,
    batch: int,
    load: MachineLoad,
) -> list[dict[str, Any]]:
    """The measurements that every sampler cell has, whatever its metrics.

    The seconds measured in the setup, and those spared by reusing what is there already, are both its cost.
    """
    shared: dict[str, Any] = {"measured": setup.measured, "shared": setup.spared}
    if setup.read:
        shared["note"] = f"the fit was read from the cache; it is charged as measured on {setup.read}"
    measured = [
        _timing("seconds_per_image", drawn.speed, {"batch": batch}, load),
        _timing("seconds_per_image_batch1", drawn.latency, {"batch": 1}, load),
        Measurement("nfe", drawn.nfe, details={"what": "rows evaluated by the score, per image"}),
        Measurement("setup_seconds", setup.measured + setup.spared, unit="s", details=shared),
        Measurement("setup_nfe", float(setup.evaluations), details={"what": "rows evaluated by the score in the fit"}),
    ]
    if memory.peak is not None and memory.increase is not None:
        details = {"source": memory.source, "process_peak_mib": memory.peak / _MIB, "note": memory.note}
        increase = memory.increase
        if setup.read:  # what was read was there before the phase began
            increase = max(increase + setup.held, setup.memory or 0)
            details["note"] = f"{memory.note}; with that of the fit, as measured on {setup.read}".lstrip("; ")
        measured.append(Measurement("peak_memory_mib", increase / _MIB, unit="MiB", details=details))
    return [measurement_entry(one, "lower") for one in measured]


def _timing(name: str, summary: TimingSummary, details: dict[str, Any], load: MachineLoad) -> Measurement:
    more = {"interval": summary.method, "coverage": summary.coverage, "note": summary.note}
    if load.note:
        more["load"] = load.note
    low, high = (None if math.isnan(end) else end for end in (summary.ci_low, summary.ci_high))
    return Measurement(name, summary.median, low, high, summary.n, "s", {**details, **more})


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
