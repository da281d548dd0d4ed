"""Execute a suite: every cell in plan order, each recorded as it finishes; one failed cell never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfpbench.cache.use import keeping
from kfpbench.errors import DiskFullError, ParameterError
from kfpbench.runner.executor_options import ExecutorOptions
from kfpbench.runner.finished_run import finished_records
from kfpbench.runner.open_run import open_run
from kfpbench.runner.run_cell import CellHook
from kfpbench.runner.settled_run import CODE, CONCLUDED, code_state
from kfpbench.store.records import CellRecord, exit_code_of, utc_now
from kfpbench.store.run_folder import RUNS, RunFolder, load_run
from kfpbench.store.run_lock import run_lock
from kfpbench.suite.cell import Cell
from kfpbench.suite.load import load_suite, suite_from_mapping
from kfpbench.suite.loaded import Suite
from kfpbench.suite.select import select_cells

if TYPE_CHECKING:
    from pandas import DataFrame

    from kfpbench.claim.card import Card
    from kfpbench.runner.cell_result import Executor

_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Is told what happens; the command line shows it."""

    def begin(self, total: int, done: int) -> None:
        """Before the first cell: cells in the plan, and those that an earlier run has finished."""

    def started(self, cell: Cell) -> None:
        """A cell starts."""

    def finished(self, cell: Cell, record: CellRecord) -> None:
        """A cell has been recorded."""

    def note(self, text: str) -> None:
        """Something else begins, such as the timing in turns after the last cell."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, the report, the records of the planned cells, the claim card, where the suite has a
    `claim`, and when this command ``started``: earlier records are those of earlier commands.
    """

    folder: Path
    report: Path
    records: list[CellRecord]
    claim: Card | None = None
    started: str = ""

    @property
    def frame(self) -> DataFrame:
        """The tidy table, one row per cell and metric."""
        return load_run(self.folder)

    @property
    def exit_code(self) -> int:
        """0 when every cell is ok or skipped, else 1."""
        return exit_code_of(self.records)


def run(
    suite: str | Path | Mapping[str, Any] | Suite,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    select: Sequence[str] = (),
    allow_plugins: bool = False,
    retry_failed: bool = False,
    force: bool = False,
    cache: bool | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    around: Sequence[CellHook] = (),
    notes: Sequence[str] = (),
    executor: str | ExecutorOptions = "serial",
) -> RunResult:
    """Run a suite and write its folder: manifest, cells.jsonl, results.parquet, samples, report.html.

    A folder that holds an earlier run is continued: its finished cells are not run again, failed and timed-out ones
    only with ``retry_failed``, all with ``force``, which reads nothing from the cache either. ``cache`` False keeps and
    reads nothing there; by default the suite's `cache` decides. ``select`` runs a part of the plan. ``around`` are
    hooks that every cell runs inside, outermost first (with the serial executor alone); ``notes`` are kept in the
    manifest. ``executor`` says where the cells run (see `kfpbench.executors`).

    Raises SuiteError before anything runs when the suite is not valid, StoreError for a folder that holds something
    else, BusyError where another process runs in it, DiskFullError with all finished cells kept, ParameterError for
    overrides of a suite that is loaded already, and for hooks elsewhere than in this process. Lets a KeyboardInterrupt
    through, after writing results and report.
    """
    if isinstance(suite, Suite) and overrides:
        raise ParameterError("overrides of a suite that is loaded already", got=list(overrides), remedy="Load it anew.")
    if isinstance(suite, Mapping):
        suite = suite_from_mapping(suite, overrides=overrides, allow_plugins=allow_plugins)
    elif not isinstance(suite, Suite):
        suite = load_suite(suite, overrides=overrides, allow_plugins=allow_plugins)
    cells = select_cells(suite.cells, select) if select else list(suite.cells)
    started = utc_now()
    path = Path(out) if out is not None else RUNS / suite.model.name
    options = ExecutorOptions(executor) if isinstance(executor, str) else executor
    options = replace(options, isolate=options.isolate or suite.model.isolate)
    where = options.choose(cells, path, around)
    with run_lock(path) if path.is_dir() or not path.exists() else nullcontext():
        done = None if force else finished_records(path, suite, cells, retry_failed)
        if done is not None:
            _plan_is_of_this_code(RunFolder(path))
            if progress:
                progress.begin(len(cells), len(cells))
            return _result(RunFolder(path).report_path, done, cells, None, started)
        folder = open_run(path, suite, command, started, force, [*notes, *options.notes])
        folder.remove_leftovers()
        finished = {} if force else {record.cell: record for record in folder.records()}
        _rename(suite.cells, finished, folder)
        todo = [cell for cell in cells if _is_due(finished.get(cell.id), retry_failed)]
        _log.info("run %s into %s: %d cells, %d to do", suite.model.name, folder.path, len(cells), len(todo))
        if progress:
            progress.begin(len(cells), len(cells) - len(todo))
        try:
            disturbed = options.share_device or bool(around)
            with keeping(suite.model.cache if cache is None else cache, refresh=force, read_only=disturbed):
                _run_cells(todo, folder, progress, where)
                _compare_in_turns(suite, folder, select, force, progress)
        except DiskFullError:
            raise  # there is no room for a report either
        except BaseException:
            _conclude(folder, interrupted=True)
            raise
        records, report, claim = _conclude(folder, interrupted=False)
    return _result(report, records, cells, claim, started)


def _plan_is_of_this_code(folder: RunFolder) -> None:
    """So that the next command need not load the suite to know that nothing is left to run."""
    manifest = folder.read_manifest()
    if manifest.get(CODE) != (state := code_state()):
        folder.write_manifest({**manifest, CODE: state})


def _result(
    report: Path, records: list[CellRecord], cells: Sequence[Cell], claim: Card | None, started: str
) -> RunResult:
    chosen = {cell.id for cell in cells}
    kept = [record for record in records if record.cell in chosen]
    return RunResult(report.parent, report, kept, claim, started)


def _compare_in_turns(
    suite: Suite, folder: RunFolder, select: Sequence[str], force: bool, progress: Progress | None
) -> None:
    """What the claim and `timing:` ask for after the cells, in this process."""
    if suite.model.claim is not None:
        from kfpbench.claim.take_turns import take_turns

        take_turns(
            folder.read_manifest(), suite.cells, folder.records(), folder.path, force=force, say=_teller(progress)
        )
    if suite.model.timing is not None:
        from kfpbench.runner.time_suite import time_suite

        time_suite(suite, folder.path, select=select, force=force, say=_teller(progress))


def _conclude(folder: RunFolder, *, interrupted: bool) -> tuple[list[CellRecord], Path, Card | None]:
    """Write what is made from the records: table, claim card, report."""
    folder.write_manifest({**folder.read_manifest(), "finished": utc_now(), "interrupted": interrupted})
    records = folder.records()
    folder.write_results()
    claim = _write_claim(folder, records)
    report = _write_report(folder, records)
    if not interrupted:
        folder.write_manifest({**folder.read_manifest(), CONCLUDED: folder.log.digest(), CODE: code_state()})
    _log.info("%s: %d records, report %s", "interrupted" if interrupted else "finished", len(records), report)
    return records, report, claim


def _teller(progress: Progress | None) -> Callable[[str], None]:
    """Writes a line to the log and shows it."""

    def say(line: str) -> None:
        _log.info(line)
        if progress:
            progress.note(line)

    return say


def _write_claim(folder: RunFolder, records: list[CellRecord]) -> Card | None:
    from kfpbench.claim.card import write_claim

    return write_claim(folder.read_manifest(), records, folder.path)


def _write_report(folder: RunFolder, records: list[CellRecord]) -> Path:
    from kfpbench.report.html import write_report

    return write_report(folder.read_manifest(), records, folder.path)


def _rename(cells: Sequence[Cell], finished: Mapping[str, CellRecord], folder: RunFolder) -> None:
    """Record finished cells again whose label or axes the suite has changed: figures and tables show these.

    Their identity has not changed, and so their work is not done again.
    """
    for cell in cells:
        record = finished.get(cell.id)
        if record is not None and (record.label, record.axes, record.repeat) != (cell.label, cell.axes, cell.repeat):
            folder.append(replace(record, label=cell.label, axes=cell.axes, repeat=cell.repeat, index=cell.index))


def _is_due(record: CellRecord | None, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record.status in ("failed", "timeout"))


def _run_cells(cells: list[Cell], folder: RunFolder, progress: Progress | None, executor: Executor) -> None:
    """Record each cell as it finishes: this process alone writes into the folder."""

    def started(cell: Cell) -> None:
        if progress:
            progress.started(cell)
        _log.info("cell %s (%s, repeat %d) begins", cell.id, cell.label, cell.repeat)

    if not cells:
        return
    with closing(executor.results(cells, started)) as results:
        for cell, result in results:
            folder.save_files(result.files)
            folder.append(result.record)
            _log_record(result.record)
            if progress:
                progress.finished(cell, result.record)


def _log_record(record: CellRecord) -> None:
    phases = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in record.phases.items())
    level = logging.INFO if record.status in ("ok", "skipped") else logging.WARNING
    reason = f": {record.reason}" if record.reason else ""
    _log.log(level, "cell %s %s in %.3f s (%s)%s", record.cell, record.status, record.seconds, phases, reason)
    if record.traceback:
        _log.debug("cell %s: %s", record.cell, record.traceback)
