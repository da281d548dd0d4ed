"""Run one cell within its budget and turn what becomes of it into a record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from kfpbench.cache.use import journal
from kfpbench.errors import BudgetError, CapabilityError, CellTimeout, DiskFullError, StoreError
from kfpbench.runner.budget import time_budget
from kfpbench.store.records import CellRecord, Status, utc_now
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell

if TYPE_CHECKING:
    from kfpbench.runner.materials import Materials
    from kfpbench.runner.sample_cell import Outcome

# Entered around the work of a cell, where its failures have not been caught yet: for a debugger, or a profiler. Takes
# the cell and its Outcome, to whose details it may add.
CellHook = Callable[[Cell, Any], AbstractContextManager[None]]


def run_cell(cell: Cell, materials: Materials, folder: RunFolder, around: Sequence[CellHook] = ()) -> CellRecord:
    """Run one cell within its budget and return its record; its samples are on the disk.

    Never raises for what happens inside the cell: that becomes its status and reason. Raises DiskFullError where its
    files have no room: no other cell's would.
    """
    from kfpbench.runner.sample_cell import Outcome

    outcome = Outcome()
    status: Status = "ok"
    reason = trace = ""
    files: dict[str, str] = {}
    started, begin = utc_now(), time.perf_counter()
    try:
        with ExitStack() as hooks:
            kept = hooks.enter_context(journal())
            hooks.callback(lambda: outcome.details.update({"cache": kept.as_plain()} if kept.as_plain() else {}))
            for hook in around:
                hooks.enter_context(hook(cell, outcome))
            files = _work(cell, materials, folder, outcome)
    except (CapabilityError, BudgetError) as error:
        status, reason = "skipped", str(error)
    except DiskFullError:
        raise
    except CellTimeout as error:
        status, reason = "timeout", str(error)
    except (Exception, SystemExit) as error:  # a cell may fail in any way, plugins above all; the others go on
        status, reason = "failed", f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    seconds = time.perf_counter() - begin
    known: dict[str, Any] = dict(
        cell=cell.id,
        index=cell.index,
        label=cell.label,
        kind=cell.kind,
        status=status,
        reason=reason or ("" if status == "ok" else "no reason was given"),
        started=started,
        finished=utc_now(),
        seconds=seconds,
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
        return CellRecord(**known, measurements=measured, details=outcome.details)
    except StoreError as error:  # a component measured or described what cannot be stored, or one metric twice
        if status != "ok":
            return CellRecord(**known)
        reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        return CellRecord(**{**known, "status": "failed", "reason": reason, "files": {}, "traceback": trace})


def _work(cell: Cell, materials: Materials, folder: RunFolder, outcome: Outcome) -> dict[str, str]:
    """Check the budget, run the cell within it, and save what it drew. Returns its files by kind."""
    from kfpbench.runner.memory_check import check_prediction
    from kfpbench.runner.sample_cell import run_sample_cell
    from kfpbench.runner.spectrum_cell import run_spectrum_cell

    files: dict[str, str] = {}
    if note := check_prediction(cell):
        outcome.details.setdefault("notes", []).append(note)
    with time_budget(cell.spec["budget"]["seconds"], f"cell {cell.label}") as deadline:
        if cell.kind == "sample":
            run_sample_cell(cell, materials, deadline, outcome)
        else:
            run_spectrum_cell(cell, materials, outcome)
    if outcome.samples is not None:
        files = folder.save_samples(cell.id, outcome.samples, materials.dataset(cell.spec), title=cell.label)
    if outcome.nearest is not None:
        files |= folder.save_nearest(cell.id, outcome.nearest)
    if outcome.functions is not None:
        files |= folder.save_eigenfunctions(cell.id, outcome.functions)
    return files


def _backend(cell: Cell) -> str:
    block = cell.spec.get("sampler") or cell.spec.get("spectrum") or {}
    backend = block.get("backend")  # a plugin's own parameter may have that name
    return str(backend.get("name", "")) if isinstance(backend, dict) else ""


def lost_record(cell: Cell, status: Status, reason: str, started: str, seconds: float, trace: str = "") -> CellRecord:
    """The record of a cell whose process did not live to make one."""
    return CellRecord(
        cell=cell.id,
        index=cell.index,
        label=cell.label,
        kind=cell.kind,
        status=status,
        reason=reason,
        started=started,
        finished=utc_now(),
        seconds=seconds,
        axes=cell.axes,
        spec=cell.spec,
        seed=cell.seed,
        repeat=cell.repeat,
        backend=_backend(cell),
        traceback=trace,
    )
