"""Execute a suite: every cell in plan order, each recorded as it finishes; one failed cell never stops the others."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfpbench.errors import BudgetError, CapabilityError, CellTimeout, DataError, ParameterError, StoreError
from kfpbench.runner.budget import check_memory, time_budget
from kfpbench.runner.environment import describe_environment, machine_is_loaded
from kfpbench.store.records import CellRecord, Status, utc_now
from kfpbench.store.run_folder import RunFolder, load_run
from kfpbench.suite.cell import Cell
from kfpbench.suite.load import Suite, load_suite, suite_from_mapping
from kfpbench.suite.select import select_cells

if TYPE_CHECKING:
    from pandas import DataFrame

    from kfpbench.runner.materials import Materials

RUNS = Path("reports") / "runs"  # default parent of run folders
_GIB = 2**30


class Progress(Protocol):
    """Is told what happens; the command line shows it."""

    def begin(self, total: int, done: int) -> None:
        """Before the first cell: cells in the plan, and those that an earlier run has finished."""

    def started(self, cell: Cell) -> None:
        """A cell starts."""

    def finished(self, cell: Cell, record: CellRecord) -> None:
        """A cell has been recorded."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, the report, and the records of the planned cells."""

    folder: Path
    report: Path
    records: list[CellRecord]

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
) -> RunResult:
    """Run a suite and write its folder: manifest, cells.jsonl, results.parquet, samples, report.html.

    A folder that holds an earlier run is continued: its finished cells are not run again, failed and timed-out ones
    only with ``retry_failed``, all with ``force``. ``select`` runs a part of the plan. Raises SuiteError before
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
    folder = _open_folder(Path(out) if out is not None else RUNS / suite.model.name, suite, command, started, force)
    finished = {} if force else {record.cell: record for record in folder.records()}
    _rename(suite.cells, finished, folder)
    todo = [cell for cell in cells if _is_due(finished.get(cell.id), retry_failed)]
    if progress:
        progress.begin(len(cells), len(cells) - len(todo))
    interrupted = True
    try:
        _run_cells(todo, folder, progress)
        interrupted = False
    finally:
        folder.write_manifest({**folder.read_manifest(), "finished": utc_now(), "interrupted": interrupted})
        records = folder.records()
        folder.write_results()
        report = _write_report(folder, records)
    chosen = {cell.id for cell in cells}
    return RunResult(folder.path, report, [record for record in records if record.cell in chosen])


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


def _open_folder(path: Path, suite: Suite, command: Sequence[str], started: str, force: bool) -> RunFolder:
    from kfpbench.runner.materials import choose_device

    devices = {cell.spec["device"] for cell in suite.cells}
    try:
        device = str(choose_device(devices.pop())) if len(devices) == 1 else "cpu"
    except CapabilityError:
        device = "cpu"  # the cells will be skipped with that reason; the environment is described all the same
    loaded = machine_is_loaded()
    manifest: dict[str, Any] = {
        "suite": {
            "name": suite.model.name,
            "description": suite.model.description,
            "text": suite.text,
            "included": suite.included,
            "overrides": list(suite.overrides),
        },
        "plan": [cell.id for cell in suite.cells],
        "seeds": sorted({cell.seed for cell in suite.cells}),
        "dtypes": sorted({cell.spec["dtype"] for cell in suite.cells}),
        "command": list(command),
        "environment": describe_environment(device),
        "plugins": suite.plugins,
        "score_files": _score_files(suite.cells),
        "started": started,
        "notes": [loaded] if loaded else [],
    }
    if RunFolder.is_run(path):
        folder = RunFolder.open(path)
        old = folder.read_manifest()
        name = old.get("suite", {}).get("name")
        if name != suite.model.name:
            raise StoreError(
                "the folder holds a run of another suite",
                got=name,
                allowed=suite.model.name,
                remedy="Name another folder with --out; nothing was changed.",
                where=str(path),
            )
        changed = [
            name for name, digest in manifest["plugins"].items() if old.get("plugins", {}).get(name, digest) != digest
        ]
        if changed and not force:
            raise StoreError(
                f"the plugin {', '.join(changed)} has changed since this run began: its finished cells are out of date",
                remedy="Run all cells again with --force, or name another folder with --out; nothing was changed.",
                where=str(path),
            )
        others = [
            block
            for block, now in manifest["score_files"].items()
            if (then := old.get("score_files", {}).get(block)) is not None and now is not None and then != now
        ]
        if others and not force:
            raise StoreError(
                "a score's file has changed since this run began: its finished cells are out of date",
                got=others[0],
                remedy="Run all cells again with --force, or name another folder with --out; nothing was changed.",
                where=str(path),
            )
        earlier = [*old.get("earlier", []), {key: old.get(key) for key in ("started", "finished", "environment")}]
        folder.write_manifest({**manifest, "earlier": earlier})
        return folder
    return RunFolder.create(path, manifest)


def _score_files(cells: Sequence[Cell]) -> dict[str, str | None]:
    """What each score of the plan reads from files: the ``fingerprint`` of those that have one, by canonical block."""
    from kfpbench.suite.components import create

    found = {}
    for block in {json.dumps(cell.spec["score"], sort_keys=True) for cell in cells if cell.spec["score"]}:
        try:
            fingerprint = getattr(create("scores", json.loads(block)), "fingerprint", None)
        except (CapabilityError, DataError):
            continue  # its cells will say so
        if fingerprint is not None:
            found[block] = fingerprint()
    return found


def _run_cells(cells: list[Cell], folder: RunFolder, progress: Progress | None) -> None:
    from kfpbench.runner.materials import Materials

    materials = Materials()
    for cell in cells:
        if progress:
            progress.started(cell)
        record = run_cell(cell, materials, folder)
        folder.append(record)
        if progress:
            progress.finished(cell, record)


def run_cell(cell: Cell, materials: Materials, folder: RunFolder) -> CellRecord:
    """Run one cell within its budget and return its record; its samples are on the disk.

    Never raises for what happens inside the cell: that becomes its status and reason.
    """
    from kfpbench.runner.materials import predict_memory
    from kfpbench.runner.sample_cell import Outcome, run_sample_cell
    from kfpbench.runner.spectrum_cell import run_spectrum_cell

    outcome = Outcome()
    status: Status = "ok"
    reason = trace = ""
    files: dict[str, str] = {}
    started, begin = utc_now(), time.perf_counter()
    budget = cell.spec["budget"]
    try:
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
        if outcome.functions is not None:
            files |= folder.save_eigenfunctions(cell.id, outcome.functions)
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


def _backend(cell: Cell) -> str:
    block = cell.spec.get("sampler") or cell.spec.get("spectrum") or {}
    backend = block.get("backend")  # a plugin's own parameter may have that name
    return str(backend.get("name", "")) if isinstance(backend, dict) else ""
