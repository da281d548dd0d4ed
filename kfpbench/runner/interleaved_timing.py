"""Time several samplers in turns, so that what the machine does meanwhile falls on all of them; ratios with intervals.

A round visits all samplers in a random order and then in the reverse order, A B C C B A, and takes the geometric mean
of a sampler's two visits: a drift whose logarithm is linear in time then has no part in any ratio of the round. The
ratios of the rounds are paired values, nearly free of drift; their median has the interval of ``series_interval``.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from kfpbench.errors import ParameterError, PluginError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import FittedSampler, Problem
from kfpbench.runner.machine_load import LoadMeter
from kfpbench.runner.paired_times import BatchTimes
from kfpbench.runner.timing import Synchronise, synchroniser, warm_up

ROUNDS = 12
LEAST_ROUNDS = 3  # a limit in seconds leaves at least these
_VISIT_SECONDS = 0.02  # a visit repeats a shorter call, and takes the median: the first one finds the caches cold
_MOST_CALLS = 25


@dataclass(frozen=True)
class Call:
    """Something to time: ``run`` does the work once, ``synchronise`` waits until its device has done it."""

    run: Callable[[], object]
    synchronise: Synchronise


def interleave(
    calls: Mapping[str, Call],
    rounds: int,
    repeats: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    check: Callable[[], None] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Seconds of one call by name, a value for every round: the geometric mean of the medians of its two visits.

    ``repeats`` is the number of calls in a visit (default 1). ``check`` is called before every visit, and may raise.
    Warm up before. Raises ParameterError for no call or fewer than one round. A clock too coarse for a call
    gives its smallest step.
    """
    if not calls or rounds < 1:
        raise ParameterError("nothing to time", got=(list(calls), rounds), allowed="one call and one round, or more")
    repeats = repeats or {}
    generator = random.Random(seed)
    tick = time.get_clock_info("perf_counter").resolution
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        order = generator.sample(list(calls), len(calls))
        visits: dict[str, list[float]] = {name: [] for name in calls}
        for name in (*order, *reversed(order)):
            if check is not None:
                check()
            visits[name].append(max(_visit(calls[name], repeats.get(name, 1)), tick))
        for name, (there, back) in visits.items():
            taken[name].append(math.sqrt(there * back))
    return {name: tuple(values) for name, values in taken.items()}


def _visit(call: Call, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        call.synchronise()
        begin = time.perf_counter()
        call.run()
        call.synchronise()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def interleaved_times(
    fitted: Mapping[str, FittedSampler],
    problems: Problem | Mapping[str, Problem],
    batches: Sequence[int],
    rounds: int = ROUNDS,
    *,
    seconds: float | None = None,
    seed: int = 0,
    check: Callable[[], None] | None = None,
) -> list[BatchTimes]:
    """Time fitted samplers in turns at each batch size; all of them are in memory together.

    ``problems`` is what they were fitted to, one for all or one each. ``seconds`` limits the timed rounds of a batch
    size: as many rounds as are predicted to fit, at least 3; a sampler of which a single call takes longer is left out
    of that batch size. Each batch size begins with untimed calls, which take what compilation takes. Cost: rounds x 2 x
    the sum of the samplers' times, at least. Raises ParameterError, PluginError for a sampler that returns too many or
    too few rows, and what a sampler or ``check`` raises.
    """
    if isinstance(problems, Problem):
        problems = dict.fromkeys(fitted, problems)
    if not fitted or set(fitted) != set(problems):
        raise ParameterError("every sampler needs a problem", got=sorted(problems), allowed=sorted(fitted) or "some")
    if not batches or min(batches) < 1 or rounds < 1:
        raise ParameterError("not a plan of timings", got=(list(batches), rounds), allowed="positive sizes and rounds")
    timed = []
    for batch in dict.fromkeys(batches):
        calls, warm, left_out = {}, {}, {}
        for name in fitted:
            if check is not None:
                check()
            call = _sampling(fitted[name], problems[name], batch)
            first = warm_up(_checked(name, call, batch), call.synchronise, limit=seconds)
            if seconds is not None and first[-1] > seconds:
                left_out[name] = f"one call at batch {batch} takes {first[-1]:.3g} s, and the limit is {seconds:g} s"
            else:
                calls[name], warm[name] = call, first
        counts = {name: _calls(warm[name][-1]) for name in calls}
        planned, note = _plan(rounds, seconds, 2 * sum(counts[name] * warm[name][-1] for name in calls))
        with LoadMeter() as meter:
            taken = interleave(calls, planned, counts, seed=seed, check=check) if calls else {}
        timed.append(BatchTimes(batch, taken, counts, warm, meter.result, note, left_out))
    return timed


def try_sampler(name: str, fitted: FittedSampler, problem: Problem) -> None:
    """Draw one row: raises what the sampler raises, and PluginError when it does not return one."""
    _checked(name, _sampling(fitted, problem, 1), 1)()


def _plan(rounds: int, limit: float | None, a_round: float) -> tuple[int, str]:
    """The number of rounds of ``a_round`` seconds that fit into the limit, but at least 3; and a note for fewer."""
    if limit is None or a_round * rounds <= limit:
        return rounds, ""
    planned = max(min(rounds, LEAST_ROUNDS), int(limit / a_round))
    if planned == rounds:
        return rounds, ""
    return planned, f"{planned} of {rounds} rounds: one takes {a_round:.3g} s, and the limit is {limit:g} s"


def _calls(seconds: float) -> int:
    """Calls of a visit: an odd number, so that their median is one of them; one for calls that are long."""
    return min(int(_VISIT_SECONDS / max(seconds, 1e-9)), _MOST_CALLS - 1) // 2 * 2 + 1


def _sampling(fitted: FittedSampler, problem: Problem, batch: int) -> Call:
    noise = NoiseStream.of_range(problem.seed, 0, batch, problem.dataset.dimension, problem.device, problem.dtype)
    return Call(lambda: fitted.sample(noise), synchroniser(problem.device))


def _checked(name: str, call: Call, batch: int) -> Callable[[], None]:
    """The call, looking at its rows: what returns none of them would be very fast."""

    def run() -> None:
        rows = call.run()
        if not isinstance(rows, torch.Tensor) or len(rows) != batch:
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            what = "the sampler returned rows of the wrong shape"
            raise PluginError(what, got=got, allowed=f"{batch} rows", where=name)

    return run
