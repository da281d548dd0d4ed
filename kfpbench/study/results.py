"""What came of a study's trials: a row for each, the front, the hypervolume over trials, and importances."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.statistics.hypervolume import Frame, frame_of
from kfpbench.study.definition import Definition
from kfpbench.study.objectives import Objective
from kfpbench.study.trials import OUTCOME, STAGE, What, reason_of, tally, what_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


LEAST_RESULTS = 20  # for importances: of fewer, the five best that PED-ANOVA needs are more than a quarter
_BEST = 5  # trials, as Optuna advises


@dataclass(frozen=True)
class Row:
    """One trial that counts. ``values`` are its objectives in their order, with intervals ``low`` and ``high``; those
    of the stage for a trial that was stopped there; None where there are none.
    """

    number: int
    what: What
    reason: str
    params: dict[str, Any]  # what they stand for, by dotted path
    settings: dict[str, Any]  # the same as people read them
    values: list[float] | None
    low: list[float] | None
    high: list[float] | None
    stage: int | None
    excess: dict[str, float]
    seconds: float
    worker: str
    under_load: list[str]  # objectives that are times, taken while other programs had much of the machine

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if name != "settings"}


def rows_of(study: Study, definition: Definition) -> list[Row]:
    """The finished trials in their order. A trial that was begun anew is there once, as its last attempt."""
    from optuna.trial import TrialState

    rows = []
    for trial in tally(study.get_trials(deepcopy=False)).counted:
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            continue
        outcome = trial.user_attrs.get(OUTCOME, {})
        reading = outcome.get("reading") or {}
        values = trial.values if trial.state == TrialState.COMPLETE else reading.get("values")
        params = definition.space.values_of(trial.params)
        rows.append(
            Row(
                trial.number,
                what_of(trial),
                reason_of(trial),
                params,
                definition.space.shown(params),
                None if values is None else list(values),
                reading.get("low"),
                reading.get("high"),
                outcome.get("stage"),
                dict(trial.constraints),
                trial.duration.total_seconds() if trial.duration is not None else math.nan,
                trial.user_attrs.get("worker", ""),
                list(reading.get("under_load", [])),
            )
        )
    return rows


def front_of(study: Study, definition: Definition) -> list[Row]:
    """The trials that no other one beats in every objective, among those that keep the constraints; by the first
    objective, the best first.
    """
    counted = {row.number: row for row in rows_of(study, definition)}
    members = [counted[trial.number] for trial in study.best_trials if trial.number in counted]
    sign = definition.objectives[0].sign
    return sorted(members, key=lambda row: (sign * _values(row)[0], row.number))


def best_rows(study: Study, definition: Definition) -> dict[str, Row]:
    """The best trial in each objective, and with several objectives a compromise: the trial on the front that is
    nearest to the best values, each objective scaled to the range of the front (times by their logarithm).
    """
    members = front_of(study, definition)
    if not members:
        return {}
    named = {
        one.metric: min(members, key=lambda row: one.sign * _values(row)[k])
        for k, one in enumerate(definition.objectives)
    }
    if len(definition.objectives) > 1:
        frame = frame_of_rows(members, definition.objectives)
        scaled = frame.costs(np.array([_values(row) for row in members]))
        named["compromise"] = members[int(np.argmin((scaled**2).sum(axis=1)))]
    return named


def frame_of_rows(rows: Sequence[Row], objectives: Sequence[Objective]) -> Frame:
    """The box in which the volume of these trials is taken: see `frame_of`; times are logarithms."""
    points = [_values(row) for row in rows]
    log = [one.is_time and all(point[k] > 0 for point in points) for k, one in enumerate(objectives)]
    return frame_of(points, [one.better for one in objectives], log)


def volume_history(rows: Sequence[Row], frame: Frame) -> list[float]:
    """The share of the box that the feasible trials dominate after each trial, in their order; with one objective the
    share of its range that is gained. Trials without a full result change nothing.

    By Optuna's `plot_hypervolume_history`, in the units of the box, for any number of objectives.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    counted = [(k, frame.costs(np.array([_values(row)]))[0]) for k, row in enumerate(rows) if row.what == "ok"]
    if len(frame.better) == 1:
        steps = list(np.maximum.accumulate([max(0.0, 1.0 - float(cost[0])) for _, cost in counted]))
    elif counted:
        quiet = optuna.create_study(directions=["minimize"] * len(frame.better))
        quiet.add_trials([optuna.create_trial(values=[float(one) for one in cost]) for _, cost in counted])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            drawn = optuna.visualization.plot_hypervolume_history(quiet, [1.0] * len(frame.better))
        steps = [float(value) for value in drawn.data[0].y]
    else:
        steps = []
    history: list[float] = []
    known = {k: value for (k, _), value in zip(counted, steps, strict=True)}
    for k in range(len(rows)):
        history.append(float(known.get(k, history[-1] if history else 0.0)))
    return history


def importances(study: Study, definition: Definition) -> dict[str, dict[str, float]]:
    """By objective, the share of each parameter in what the good trials have in common (PED-ANOVA; its form for
    conditional parameters). Good is the best tenth of the trials, and at least five of them.

    Empty where fewer than 20 trials have a full result: nothing can be told. Source: Watanabe, Bansal and Hutter, IJCAI
    2023; as in Optuna.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST_RESULTS:
        return {}
    best = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _BEST / len(complete)))
    found = {}
    level = logging.getLogger("optuna").level
    try:
        for k, one in enumerate(definition.objectives):
            target = _cost_of(k, one.sign)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental
                shares = optuna.importance.get_param_importances(study, evaluator=best, target=target)
            found[one.metric] = {path: float(shares.get(path, 0.0)) for path in definition.space.parameters}
    finally:
        logging.getLogger("optuna").setLevel(level)
    return found


def stage_counts(study: Study, definition: Definition) -> dict[int, int]:
    """How many trials came to each stage."""
    counted = tally(study.get_trials(deepcopy=False)).counted
    return {stage: sum(f"{STAGE}{stage}" in trial.user_attrs for trial in counted) for stage in definition.stages}


def _cost_of(index: int, sign: float) -> Any:
    def cost(trial: FrozenTrial) -> float:
        return sign * float(trial.values[index])

    return cost


def _values(row: Row) -> list[float]:
    assert row.values is not None  # of a complete trial
    return row.values
