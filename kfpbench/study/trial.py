"""Run one trial: its cells through the project's runner, first with few images where the study has stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from kfpbench.errors import KfpbenchError, NumericalError
from kfpbench.executors.processes import ProcessExecutor
from kfpbench.executors.setting import describe_setting
from kfpbench.runner.materials import Materials
from kfpbench.runner.run_cell import run_cell
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.definition import Definition
from kfpbench.study.folder import stage_path
from kfpbench.study.objectives import Reading, clearly_dominated, read
from kfpbench.study.space import Values
from kfpbench.suite.cell import Cell

Status = Literal["ok", "stopped", "failed", "timeout", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: ``reading`` where it is ok; ``stage`` is the number of images at which it ended."""

    status: Status
    reason: str = ""
    stage: int | None = None
    reading: Reading | None = None
    cells: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)  # cells that an earlier trial had run
    seconds: float = 0.0

    def as_plain(self) -> dict[str, Any]:
        """For storing."""
        shown = {name: getattr(self, name) for name in ("status", "reason", "stage", "cells", "reused", "seconds")}
        return {**shown, "reading": None if self.reading is None else self.reading.as_plain()}


class Rivals(Protocol):
    """The other trials, as far as their stages are known."""

    def at(self, stage: int) -> Sequence[Reading]:
        """What the others said at that number of images."""

    def keep(self, stage: int, reading: Reading) -> None:
        """Keep what this trial says, for the others."""


# Runs the cells of a configuration: (number of the trial, cells, folder of their records).
Evaluate = Callable[[int, Sequence[Cell], RunFolder], list[CellRecord]]


class CellRunner:
    """Runs cells as `kfpbench run` does, and keeps data sets and scores for the next trial.

    A cell that has an ok record in the folder is not run again, as in a run that goes on: two trials with one
    configuration share it, and a trial that is begun anew goes on where its worker died. This is the one place where
    the cells of a study are run; the worker enters the cache around it. ``isolate``: each in a process of its own.
    """

    def __init__(self, isolate: bool = False) -> None:
        self._materials = Materials()
        self._isolate = isolate

    def __call__(self, number: int, cells: Sequence[Cell], folder: RunFolder) -> list[CellRecord]:
        """The records of the cells, in their order; it stops after one that is not ok."""
        known = {record.cell: record for record in folder.log.read().records if record.status == "ok"}
        records = []
        for cell in cells:
            record = known.get(cell.id)
            if record is None:
                placed = replace(cell, index=number)
                record = self._run(placed, folder)
                record = replace(record, details={**record.details, "trial": number})
                folder.append(record)
            records.append(record)
            if record.status != "ok":
                break
        return records

    def _run(self, cell: Cell, folder: RunFolder) -> CellRecord:
        if not self._isolate:
            return run_cell(cell, self._materials, folder)
        executor = ProcessExecutor(describe_setting(isolate=True, share_device=False), workers=1)
        with closing(executor.results([cell], lambda _: None)) as results:
            ((_, result),) = results
        folder.save_files(result.files)
        return result.record


def run_trial(
    definition: Definition, number: int, values: Values, folder: Path, rivals: Rivals, evaluate: Evaluate
) -> Outcome:
    """Evaluate one configuration at every stage and then in full. Never raises for what happens inside its cells.

    At a stage it ends where it is clearly dominated by another trial at the same number of images (see
    ``objectives.clearly_dominated``).
    """
    begin = time.perf_counter()
    cells: list[str] = []
    reused: list[str] = []

    def outcome(status: Status, reason: str = "", stage: int | None = None, reading: Reading | None = None) -> Outcome:
        return Outcome(status, reason, stage, reading, cells, reused, time.perf_counter() - begin)

    for stage in [*definition.stages, None]:
        run = RunFolder(folder if stage is None else stage_path(folder, stage))
        try:
            planned = definition.cells(values, stage)
            records = evaluate(number, planned, run)
        except KfpbenchError as error:  # values that do not fit together
            return outcome("failed", f"{type(error).__name__}: {error}", stage)
        cells += [record.cell for record in records]
        reused += [record.cell for record in records if record.details.get("trial") != number]
        bad = next((record for record in records if record.status != "ok"), None)
        if bad is not None:
            status: Status = "failed" if bad.status == "ok" else bad.status
            return outcome(status, bad.reason, stage)
        try:
            reading = read(records, definition.objectives, definition.constraints)
        except NumericalError as error:
            return outcome("failed", str(error), stage)
        if stage is None:
            return outcome("ok", reading=reading)
        rivals.keep(stage, reading)
        if clearly_dominated(reading, rivals.at(stage), definition.objectives):
            return outcome("stopped", f"clearly dominated at {stage} images", stage, reading)
    raise AssertionError("the last round is the full one")
