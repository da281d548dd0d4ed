"""The trials of a study as stored: which count, what became of each, and mending what a dead worker left."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kfpbench.study.claims import Claims

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# names of what a trial keeps in Optuna's user attributes
WORKER, OUTCOME, RETRY_OF, ATTEMPT, INTERRUPTED = "worker", "outcome", "retry_of", "attempt", "interrupted"
STAGE = "stage:"  # with its number of images
ATTEMPTS = 3  # workers that may die in one configuration before it counts as what kills them

What = Literal["ok", "infeasible", "stopped", "failed", "timeout", "skipped", "lost", "running", "waiting"]


@dataclass(frozen=True)
class Tally:
    """The trials that count: all but those that were begun anew after their worker died."""

    counted: tuple[FrozenTrial, ...]
    finished: int
    waiting: int
    running: int
    seconds: float  # that all trials have taken together

    @property
    def total(self) -> int:
        """Finished, running and waiting."""
        return len(self.counted)


def tally(trials: Sequence[FrozenTrial]) -> Tally:
    """Count them, those that wait to be begun anew included."""
    from optuna.trial import TrialState

    replaced = _replaced(trials)
    counted = tuple(trial for trial in trials if trial.number not in replaced)
    waiting = sum(trial.state == TrialState.WAITING for trial in counted)
    running = sum(trial.state == TrialState.RUNNING for trial in counted)
    lost = sum(is_lost(trial) and not is_hopeless(trial) for trial in counted)  # to be enqueued by the next worker
    durations = [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
    finished = len(counted) - waiting - running - lost
    return Tally(counted, finished, waiting + lost, running, sum(durations))


def _replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    return {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}


def is_lost(trial: FrozenTrial) -> bool:
    """Whether its worker ended before it said what came of it."""
    from optuna.trial import TrialState

    outcome = trial.user_attrs.get(OUTCOME, {})
    return trial.state == TrialState.FAIL and outcome.get("status", "ok") in ("ok", "stopped")


def is_hopeless(trial: FrozenTrial) -> bool:
    """Whether so many workers died in this configuration that it is not begun anew."""
    return int(trial.user_attrs.get(ATTEMPT, 1)) >= ATTEMPTS


def what_of(trial: FrozenTrial) -> What:
    """What became of a trial."""
    from optuna.trial import TrialState

    if trial.state in (TrialState.RUNNING, TrialState.WAITING):
        return "running" if trial.state == TrialState.RUNNING else "waiting"
    if trial.state == TrialState.COMPLETE:
        return "ok" if all(value <= 0 for value in trial.constraints.values()) else "infeasible"
    if trial.state == TrialState.PRUNED:
        return "stopped"
    if is_lost(trial):
        return "lost"
    status: What = trial.user_attrs[OUTCOME]["status"]
    return status


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial has no result; '' for one that has."""
    if is_lost(trial):
        times = int(trial.user_attrs.get(ATTEMPT, 1))
        return f"its worker died {times} times" if times > 1 else "its worker died"
    return str(trial.user_attrs.get(OUTCOME, {}).get("reason", ""))


def mend(study: Study, claims: Claims) -> list[int]:
    """Fail the trials of dead workers and enqueue their configurations again; returns their numbers.

    Call it while holding the lock: a trial that runs without a worker's name is then one whose worker died while it
    took it. What it does may be interrupted anywhere and is completed by the next call.
    """
    from optuna.storages import fail_stale_trials
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        fail_stale_trials(study)  # those without a heartbeat, where the storage has any
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is None or claims.is_dead(worker):
            with suppress(ValueError, RuntimeError):  # finished in the meantime
                _conclude(study, trial)
    trials = study.get_trials(deepcopy=False)
    replaced = _replaced(trials)
    mended = []
    for trial in trials:
        if is_lost(trial) and trial.number not in replaced and not is_hopeless(trial):
            died = not trial.user_attrs.get(INTERRUPTED, False)  # a user may interrupt as often as he likes
            attempt = int(trial.user_attrs.get(ATTEMPT, 1)) + died
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number, ATTEMPT: attempt})
            mended.append(trial.number)
    return mended


def _conclude(study: Study, trial: FrozenTrial) -> None:
    """End a trial whose worker is dead: as what the worker had found, if it died after that, else as failed."""
    from optuna.trial import TrialState

    outcome: Mapping[str, Any] = trial.user_attrs.get(OUTCOME, {})
    status = outcome.get("status")
    if status == "ok":
        study.tell(trial.number, outcome["reading"]["values"])
    elif status == "stopped":
        study.tell(trial.number, state=TrialState.PRUNED)
    else:
        study.tell(trial.number, state=TrialState.FAIL)
