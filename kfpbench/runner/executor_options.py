"""The choice of an executor, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfpbench.errors import ParameterError
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell

if TYPE_CHECKING:
    from kfpbench.runner.cell_result import Executor
    from kfpbench.runner.run_cell import CellHook

EXECUTORS = ("serial", "processes", "dask")
SHARED_NOTE = "cells shared a device (--share-device): all times were taken under load and are not to be compared"


@dataclass(frozen=True)
class ExecutorOptions:
    """Where the cells of a run are computed.

    ``workers``: processes, or workers of a local Dask cluster; by default one for each device that cells are timed on,
    with ``share_device`` one for each processor. ``scheduler``: the address of a Dask cluster. ``isolate``: every cell
    in a process of its own. ``share_device``: several cells at once on one device, their times marked as taken under
    load; otherwise a device runs one cell at a time, whatever the number of workers. Raises ParameterError for options
    that do not go together.
    """

    name: str = "serial"
    workers: int | None = None
    scheduler: str | None = None
    isolate: bool = False
    share_device: bool = False

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise ParameterError("no such executor", got=self.name, allowed=", ".join(EXECUTORS))
        if self.workers is not None and self.workers < 1:
            raise ParameterError("workers of an executor", got=self.workers, allowed="1 or more")
        if self.name == "serial" and (self.workers is not None or self.share_device):
            got = f"workers={self.workers}" if self.workers is not None else "share_device"
            raise ParameterError(
                "the serial executor runs one cell at a time",
                got=got,
                remedy="Choose --executor processes or dask as well.",
            )
        if self.scheduler is not None and self.name != "dask":
            raise ParameterError(
                f"the executor {self.name} has no scheduler",
                got=self.scheduler,
                remedy="Choose --executor dask as well.",
            )
        if self.scheduler is not None and self.workers is not None:
            raise ParameterError(
                "the scheduler's cluster has its own workers", got=f"workers={self.workers}", remedy="Leave one out."
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the manifest says of the run's times."""
        return (SHARED_NOTE,) if self.share_device else ()

    def choose(self, cells: Sequence[Cell], path: Path, around: Sequence[CellHook] = ()) -> Executor:
        """The executor for these cells and that run folder.

        Raises ParameterError for hooks (a debugger, a profiler) around cells that run in other processes, and
        CapabilityError where Dask is wanted and not installed.
        """
        if self.name == "serial" and not self.isolate:
            from kfpbench.executors.serial import SerialExecutor

            return SerialExecutor(RunFolder(path), around)
        if around:
            raise ParameterError(
                "a debugger or a profiler works in this process alone, where the cells do not run",
                got=f"executor {self.name}{', isolate' if self.isolate else ''}",
                allowed="executor serial without isolate",
                remedy="Leave out --pdb and --profile, or run serially (--set isolate=false).",
            )
        from kfpbench.executors.setting import describe_setting

        setting = describe_setting(isolate=self.isolate, share_device=self.share_device)
        if self.name == "dask":
            from kfpbench.executors.dask_cluster import DaskExecutor

            return DaskExecutor(setting, self.scheduler, self._number(cells))
        from kfpbench.executors.processes import ProcessExecutor

        return ProcessExecutor(setting, 1 if self.name == "serial" else self._number(cells))

    def _number(self, cells: Sequence[Cell]) -> int:
        """The number of workers where none is given."""
        from kfpbench.executors.devices import visible_gpus
        from kfpbench.runner.environment import usable_cores

        if self.workers is not None:
            return self.workers
        if self.share_device:
            return usable_cores()
        on_gpu = any(cell.spec["device"] != "cpu" for cell in cells)
        return max(1, len(visible_gpus())) if on_gpu else 1
