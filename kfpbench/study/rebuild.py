"""A study from the manifest and the records of its folder alone, for pages that are published without its storage."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kfpbench.errors import StoreError
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.definition import Definition
from kfpbench.study.objectives import read
from kfpbench.study.space import distribution_of
from kfpbench.study.trials import OUTCOME
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.yaml_source import parse_yaml

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def rebuilt(folder: RunFolder) -> tuple[Definition, Study]:
    """The study whose trials are the cells of ``folder``, in memory: parameters, values, constraints, numbers.

    Trials without a full result (stopped at a stage, failed) are there as numbers alone; what comes after the last full
    result is not known. Raises StoreError for a folder that holds no study, or one of trials that shared records of
    earlier ones; SuiteError where its suite is not valid here, as with local plugins.
    """
    import optuna
    from optuna.trial import TrialState

    manifest = folder.read_manifest()
    suite = manifest["suite"]
    if "study" not in manifest:
        raise StoreError("the folder holds a run, not a study", where=str(folder.path))
    content = parse_yaml(suite["text"], str(folder.path)).data
    definition = Definition.of(suite_from_mapping(content, overrides=suite["overrides"]), manifest["study"]["name"])
    trials: dict[int, list[CellRecord]] = defaultdict(list)
    for record in folder.records():
        if record.status == "ok":
            trials[int(record.details["trial"])].append(record)
    study = optuna.create_study(directions=[one.direction for one in definition.objectives])
    for number in range(max(trials, default=-1) + 1):
        unknown = optuna.create_trial(state=TrialState.PRUNED)
        study.add_trial(_trial(definition, trials[number]) if number in trials else unknown)
    return definition, study


def _trial(definition: Definition, records: list[CellRecord]) -> FrozenTrial:
    import optuna

    reading = read(records, definition.objectives, definition.constraints)
    axes: dict[str, Any] = records[0].axes
    space = definition.space.parameters
    return optuna.create_trial(
        values=reading.values,
        params=definition.space.stored(axes),
        distributions={path: distribution_of(space[path]) for path in space if path in axes},
        user_attrs={OUTCOME: {"status": "ok", "reading": reading.as_plain()}},
        constraints=reading.excess,
    )
