"""A study from the manifest and the records of its folder alone, for pages that are published without its storage."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kfpbench.errors import NumericalError, StoreError
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.definition import Definition
from kfpbench.study.objectives import Reading, read
from kfpbench.study.space import distribution_of
from kfpbench.study.trials import OUTCOME
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.yaml_source import parse_yaml

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def rebuilt(folder: RunFolder) -> tuple[Definition, Study]:
    """The study whose trials are the cells of ``folder``, in memory: parameters, values, constraints, numbers.

    A configuration is there once, with the number of the trial that recorded it last, where all its repeats are ok and
    have every objective. Numbers between stand for whatever else became of a trial: stopped at a stage, failed, begun
    anew, or of a configuration that was run before. What came after the last full result is not known.

    Raises StoreError for a folder that holds no study, or one whose suite includes files; SuiteError where the suite is
    not valid here, as with local plugins.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every study in memory
    manifest = folder.read_manifest()
    suite = manifest["suite"]
    if "study" not in manifest:
        raise StoreError("the folder holds a run, not a study", where=str(folder.path))
    if suite.get("included"):
        remedy = "Write what it includes into the suite, and run the study from that."
        raise StoreError("the study's suite includes files, which are not beside its records", remedy=remedy)
    content = parse_yaml(suite["text"], str(folder.path)).data
    definition = Definition.of(suite_from_mapping(content, overrides=suite["overrides"]), manifest["study"]["name"])
    found = dict(_complete(definition, folder.records()))
    study = optuna.create_study(directions=[one.direction for one in definition.objectives])
    for number in range(max(found, default=-1) + 1):
        study.add_trial(found[number] if number in found else optuna.create_trial(state=TrialState.PRUNED))
    return definition, study


def _complete(definition: Definition, records: list[CellRecord]) -> list[tuple[int, FrozenTrial]]:
    """The trials with a full result, with their numbers."""
    by_configuration: dict[str, list[CellRecord]] = defaultdict(list)
    for record in records:
        if record.status == "ok":
            by_configuration[json.dumps(record.axes, sort_keys=True)].append(record)
    found = []
    for own in by_configuration.values():
        if len(own) < int(definition.document.get("repeats", 1)):
            continue
        try:
            reading = read(own, definition.objectives, definition.constraints)
        except NumericalError:  # a cell without an objective is a failed trial in the storage too
            continue
        found.append((max(int(record.details["trial"]) for record in own), _trial(definition, own[0].axes, reading)))
    return found


def _trial(definition: Definition, axes: dict[str, Any], reading: Reading) -> FrozenTrial:
    import optuna

    space = definition.space.parameters
    return optuna.create_trial(
        values=reading.values,
        params=definition.space.stored(axes),
        distributions={path: distribution_of(space[path]) for path in space if path in axes},
        user_attrs={OUTCOME: {"status": "ok", "reading": reading.as_plain()}},
        constraints=reading.excess,
    )
