"""Execute a suite: every cell in plan order, each recorded as it finishes; one failed cell never stops the others."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfpbench.errors import BudgetError, CapabilityError, CellTimeout, ParameterError, StoreError
from kfpbench.runner.budget import check_memory, time_budget
from kfpbench.runner.open_run import open_run
from kfpbench.store.records import CellRecord, Status, utc_now
from kfpbench.store.run_folder import RunFolder, load_run
from kfpbench.suite.cell import Cell
from kfpbench.suite.load import Suite, load_suite, suite_from_mapping
from kfpbench.suite.select import select_cells

if TYPE_CHECKING:
    from pandas import DataFrame

    from kfpbench.claim.card import Card
    from kfpbench.runner.materials import Materials
    from kfpbench.runner.sample_cell import Outcome

RUNS = Path("reports") / "runs"  # default parent of run folders
_GIB = 2**30
_log = logging.getLogger(__name__)

# Entered around the work of a cell, where its failures have not been caught yet: for a debugger, or a profiler. Takes
# the cell and its Outcome, to whose details it may add.
CellHook = Callable[[Cell, Any], AbstractContextManager[None]]


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
    """A finished run: its folder, the report, the records of the planned cells, and the claim card, where the suite has
    a `claim`.
    """

    folder: Path
    report: Path
    records: list[CellRecord]
    claim: Card | None = None

    @property
    def frame(self) -> DataFrame:
        """The tidy table, one row per cell and metric."""
        return load_run(self.folder)

    @property
    def exit_code(self) -> int:
        """0 when every cell is ok or skipped, else 1."""
        return 0 if all(record.status in ("ok", "skipped") for record in self.records) else 1


def run(
    suite: str | Path | Mapping[str, Any] | Suite,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    select: Sequence[str] = (),
    allow_plugins: bool = False,
    retry_failed: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    around: Sequence[CellHook] = (),
    notes: Sequence[str] = (),
) -> RunResult:
    """Run a suite and write its folder: manifest, cells.jsonl, results.parquet, samples, report.html.

    A folder that holds an earlier run is continued: its finished cells are not run again, failed and timed-out ones
    only with ``retry_failed``, all with ``force``. ``select`` runs a part of the plan. ``around`` are hooks that every
    cell runs inside, outermost first; ``notes`` are kept in the manifest. Raises SuiteError before
    anything runs when the suite is not valid, StoreError for a folder that holds something else, ParameterError for
    overrides of a suite that is loaded already. Lets a KeyboardInterrupt through, after writing results and report.
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
    folder = open_run(path, suite, command, started, force, notes)
    finished = {} if force else {record.cell: record for record in folder.records()}
    _rename(suite.cells, finished, folder)
    todo = [cell for cell in cells if _is_due(finished.get(cell.id), retry_failed)]
    _log.info("run %s into %s: %d cells, %d to do", suite.model.name, folder.path, len(cells), len(todo))
    if progress:
        progress.begin(len(cells), len(cells) - len(todo))
    interrupted = True
    try:
        _run_cells(todo, folder, progress, around)
        if suite.model.claim is not None:
            from kfpbench.claim.take_turns import take_turns

            take_turns(
                folder.read_manifest(), suite.cells, folder.records(), folder.path, force=force, say=_teller(progress)
            )
        if suite.model.timing is not None:
            from kfpbench.runner.time_suite import time_suite

            time_suite(suite, folder.path, select=select, force=force, say=_teller(progress))
        interrupted = False
    finally:
        folder.write_manifest({**folder.read_manifest(), "finished": utc_now(), "interrupted": interrupted})
        records = folder.records()
        folder.write_results()
        claim = _write_claim(folder, records)
        report = _write_report(folder, records)
        _log.info("%s: %d records, report %s", "interrupted" if interrupted else "finished", len(records), report)
    chosen = {cell.id for cell in cells}
    return RunResult(folder.path, report, [record for record in records if record.cell in chosen], claim)


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


def _run_cells(cells: list[Cell], folder: RunFolder, progress: Progress | None, around: Sequence[CellHook]) -> None:
    from kfpbench.runner.materials import Materials

    materials = Materials()
    for cell in cells:
        if progress:
            progress.started(cell)
        _log.info("cell %s (%s, repeat %d) begins", cell.id, cell.label, cell.repeat)
        record = run_cell(cell, materials, folder, around)
        folder.append(record)
        _log_record(record)
        if progress:
            progress.finished(cell, record)


def _log_record(record: CellRecord) -> None:
    phases = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in record.phases.items())
    level = logging.INFO if record.status in ("ok", "skipped") else logging.WARNING
    reason = f": {record.reason}" if record.reason else ""
    _log.log(level, "cell %s %s in %.3f s (%s)%s", record.cell, record.status, record.seconds, phases, reason)
    if record.traceback:
        _log.debug("cell %s: %s", record.cell, record.traceback)


def run_cell(cell: Cell, materials: Materials, folder: RunFolder, around: Sequence[CellHook] = ()) -> CellRecord:
    """Run one cell within its budget and return its record; its samples are on the disk.

    Never raises for what happens inside the cell: that becomes its status and reason.
    """
    from kfpbench.runner.sample_cell import Outcome

    outcome = Outcome()
    status: Status = "ok"
    reason = trace = ""
    files: dict[str, str] = {}
    started, begin = utc_now(), time.perf_counter()
    try:
        with ExitStack() as hooks:
            for hook in around:
                hooks.enter_context(hook(cell, outcome))
            files = _work(cell, materials, folder, outcome)
    except (CapabilityError, BudgetError) as error:
        status, reason = "skipped", str(error)
    except CellTimeout as error:
        status, reason = "timeout", str(error)
    except (Exception, SystemExit) as error:  # a cell may fail in any way, plugins above all; the others go on
        status, reason = "failed", f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    record = CellRecord(
        cell=cell.id,
        index=cell.index,
        label=cell.label,
        kind=cell.kind,
        status=status,
        reason=reason or ("" if status == "ok" else "no reason was given"),
        started=started,
        finished=utc_now(),
        seconds=time.perf_counter() - begin,
        axes=cell.axes,
        spec=cell.spec,
        seed=cell.seed,
        repeat=cell.repeat,
        phases=outcome.phases,
        files=files,
        device=outcome.device,
        backend=_backend(cell),
        traceback=trace,
    )
    measured = outcome.measurements if status == "ok" else []
    try:
        return replace(record, measurements=measured, details=outcome.details)
    except StoreError as error:  # a component measured or described what cannot be stored, or one metric twice
        if status != "ok":
            return record
        reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        return replace(record, status="failed", reason=reason, files={}, traceback=trace)


def _work(cell: Cell, materials: Materials, folder: RunFolder, outcome: Outcome) -> dict[str, str]:
    """Check the budget, run the cell within it, and save what it drew. Returns its files by kind."""
    from kfpbench.runner.materials import predict_memory
    from kfpbench.runner.sample_cell import run_sample_cell
    from kfpbench.runner.spectrum_cell import run_spectrum_cell

    budget = cell.spec["budget"]
    files: dict[str, str] = {}
    limit = budget["memory_gib"]
    if limit is not None:
        check_memory(predict_memory(cell), int(limit * _GIB), f"cell {cell.label}")
    with time_budget(budget["seconds"], f"cell {cell.label}") as deadline:
        if cell.kind == "sample":
            run_sample_cell(cell, materials, deadline, outcome)
        else:
            run_spectrum_cell(cell, materials, outcome)
    if outcome.samples is not None:
        files = folder.save_samples(
            cell.id, outcome.samples, materials.dataset(cell.spec), reference=outcome.reference, title=cell.label
        )
    if outcome.nearest is not None:
        files |= folder.save_nearest(cell.id, outcome.nearest)
    if outcome.functions is not None:
        files |= folder.save_eigenfunctions(cell.id, outcome.functions)
    return files


def _backend(cell: Cell) -> str:
    block = cell.spec.get("sampler") or cell.spec.get("spectrum") or {}
    backend = block.get("backend")  # a plugin's own parameter may have that name
    return str(backend.get("name", "")) if isinstance(backend, dict) else ""
