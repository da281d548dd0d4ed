"""A worker: takes one trial at a time until the study has as many as were asked for, whoever finished them."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfpbench.cache.use import keeping
from kfpbench.errors import StoreError
from kfpbench.study.claims import Claims
from kfpbench.study.definition import Definition
from kfpbench.study.objectives import Reading
from kfpbench.study.samplers import sampler_of
from kfpbench.study.trial import CellRunner, Evaluate, Outcome, run_trial
from kfpbench.study.trials import INTERRUPTED, OUTCOME, STAGE, WORKER, Tally, mend, tally

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SIBLINGS = "KFPBENCH_STUDY_SIBLINGS"  # set by a command that starts several workers on one machine
DEFINITION, PARTS = "definition", "definition_parts"  # the study's own attributes: what makes its trials comparable
WAIT = 1.0  # seconds between two looks at the trials of others


@dataclass(frozen=True)
class Notice:
    """What a worker tells of: a finished trial, and how many there are now."""

    trial: FrozenTrial
    tally: Tally
    wanted: int | None


Listener = Callable[[Notice], None]


class _TrialFailed(Exception):
    """A trial without a result; what came of it is stored already."""


class _StoredRivals:
    """The stages of the other trials, as the storage has them."""

    def __init__(self, study: Study, trial: Trial) -> None:
        self._study, self._trial = study, trial

    def at(self, stage: int) -> Sequence[Reading]:
        """Of all other trials, running ones included."""
        key = f"{STAGE}{stage}"
        return [
            Reading.from_plain(other.user_attrs[key])
            for other in self._study.get_trials(deepcopy=False)
            if key in other.user_attrs and other.number != self._trial.number
        ]

    def keep(self, stage: int, reading: Reading) -> None:
        """As an attribute of the trial."""
        self._trial.set_user_attr(f"{STAGE}{stage}", reading.as_plain())


def open_study(definition: Definition, storage: BaseStorage, claims: Claims, *, create: bool = True) -> Study:
    """The Optuna study of that name, made or joined; a grid is enqueued with it.

    Raises StoreError where a study of that name searches something else, or, without ``create``, where there is none.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    directions = [one.direction for one in definition.objectives]
    with claims.lock():
        try:
            study = optuna.load_study(study_name=definition.name, storage=storage)
        except KeyError as error:
            if not create:
                known = ", ".join(optuna.get_all_study_names(storage)) or "none"
                remedy = "Run `kfpbench study run SUITE` first."
                raise StoreError("no such study", got=definition.name, allowed=known, remedy=remedy) from error
            study = optuna.create_study(study_name=definition.name, storage=storage, directions=directions)
        digest = study.user_attrs.get(DEFINITION)
        if digest is None and create:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # the dashboard shows the names
                study.set_metric_names([one.metric for one in definition.objectives])
            study.set_user_attr(PARTS, definition.digests())
            study.set_user_attr(DEFINITION, digest := definition.digest())
        if digest is not None and digest != definition.digest():
            parts = _changed(study.user_attrs.get(PARTS, {}), definition.digests())
            raise StoreError(
                f"the study of that name searches something else: changed is {parts or 'its suite or space'}",
                got=definition.name,
                remedy="Give this one another name (`study.name`, --name), or go back to the suite as it was.",
            )
        if definition.block.sampler.name == "grid" and create:
            _enqueue_grid(study, definition)
    return study


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The parts of two definitions that are not the same; '' where the study was made before they were kept."""
    return ", ".join(name for name in {**old, **new} if old.get(name) != new.get(name)) if old else ""


def _enqueue_grid(study: Study, definition: Definition) -> None:
    """The points that are not there yet: a worker may have died while it enqueued them."""
    known = {
        json.dumps(trial.system_attrs.get("fixed_params", trial.params), sort_keys=True)
        for trial in study.get_trials(deepcopy=False)
    }
    for params in definition.space.grid():
        if json.dumps(params, sort_keys=True) not in known:
            study.enqueue_trial(params)


def work(
    definition: Definition,
    study: Study,
    claims: Claims,
    folder: Path,
    *,
    evaluate: Evaluate | None = None,
    say: Listener | None = None,
) -> Tally:
    """Run trials until none is left to run, and wait for those of other workers: one of these may die.

    Returns what there is in the end. After an interrupt the trial that ran is enqueued again by whoever goes on.
    """
    runner = CellRunner(definition.document.get("isolate", False)) if evaluate is None else evaluate
    worker = claims.register()
    try:
        while True:
            with ExitStack() as lock:
                lock.enter_context(claims.lock())
                mend(study, claims)
                now = tally(study.get_trials(deepcopy=False))
                if not _may_begin(definition, now):
                    if now.running == 0 or _is_over(definition, now):
                        return now
                else:
                    beside = SIBLINGS in os.environ  # fits that were timed beside others' work are no later run's
                    with keeping(definition.document.get("cache", True), read_only=beside):
                        _run_one(definition, study, lock, worker, folder, runner, say)
                    continue
            time.sleep(WAIT)
    finally:
        claims.close()


def _may_begin(definition: Definition, now: Tally) -> bool:
    if _is_over(definition, now):
        return False
    wanted = definition.trials
    return now.waiting > 0 or wanted is None or now.total < wanted


def _is_over(definition: Definition, now: Tally) -> bool:
    """Whether the time of the study is used up."""
    seconds = definition.block.budget.seconds
    return seconds is not None and now.seconds >= seconds


def _run_one(
    definition: Definition,
    study: Study,
    lock: ExitStack,
    worker: str,
    folder: Path,
    evaluate: Evaluate,
    say: Listener | None,
) -> None:
    """Take a trial under the lock, which is released as soon as its configuration is known, and run it."""
    from optuna.trial import TrialState

    numbers = [trial.number for trial in study.get_trials(deepcopy=False)]
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    next_number = waiting[0].number if waiting else len(numbers)
    study.sampler = sampler_of(definition.block.sampler, definition.block.seed, next_number)
    taken: list[int] = []

    def objective(trial: Trial) -> list[float]:
        taken.append(trial.number)
        values = definition.space.suggest(trial)
        trial.set_user_attr(WORKER, worker)
        lock.close()
        try:
            outcome = run_trial(definition, trial.number, values, folder, _StoredRivals(study, trial), evaluate)
        except KeyboardInterrupt:
            trial.set_user_attr(INTERRUPTED, True)
            raise
        return _conclude(trial, outcome)

    try:
        study.optimize(objective, n_trials=1, catch=(_TrialFailed,))
    except (RuntimeError, ValueError) as error:
        # a database's heartbeat may have stopped for too long: the trial is another worker's by now
        if not taken or study.get_trials(deepcopy=False)[taken[0]].state != TrialState.FAIL:
            raise StoreError(f"the trial could not be stored: {error}") from error
    if say is not None and taken:
        trials = study.get_trials(deepcopy=False)
        say(Notice(trials[taken[0]], tally(trials), definition.trials))


def _conclude(trial: Trial, outcome: Outcome) -> list[float]:
    """Store what came of the trial, and tell the sampler in its terms."""
    from optuna.exceptions import TrialPruned

    if outcome.status == "ok":
        assert outcome.reading is not None  # an ok trial has one
        for name, excess in outcome.reading.excess.items():
            trial.set_constraint(name, excess)
    trial.set_user_attr(OUTCOME, outcome.as_plain())
    if outcome.status == "stopped":
        raise TrialPruned(outcome.reason)
    if outcome.status != "ok":
        raise _TrialFailed(outcome.reason)
    assert outcome.reading is not None
    return outcome.reading.values
