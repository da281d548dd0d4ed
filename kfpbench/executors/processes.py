"""Cells in processes beside this one: several at a time, or each in its own (``isolate``)."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from kfpbench.executors.devices import visible_gpus
from kfpbench.executors.isolated_cell import CellProcess, ProcessDied
from kfpbench.executors.setting import Setting
from kfpbench.runner.cell_result import CellResult
from kfpbench.suite.cell import Cell

_LOOK = 0.5  # seconds; a wait without end would not let Ctrl-C through everywhere


class ProcessExecutor:
    """Runs cells in ``workers`` processes; each takes the next cell of the plan when it has finished one.

    Where there are several GPUs and no cell names one by its number, each process sees one of them.
    """

    def __init__(self, setting: Setting, workers: int) -> None:
        self._setting = setting
        self._workers = workers

    def results(
        self, cells: Sequence[Cell], started: Callable[[Cell], None]
    ) -> Generator[tuple[Cell, CellResult], None, None]:
        """See `Executor`."""
        waiting = deque(cells)
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        processes = [CellProcess(setting) for setting in self._settings(cells)[: len(cells)]]
        threads = [
            threading.Thread(target=_work, args=(process, waiting, events), daemon=True) for process in processes
        ]
        for thread in threads:
            thread.start()
        left = len(cells)
        try:
            while left:
                try:
                    cell, outcome = events.get(timeout=_LOOK)
                except queue.Empty:
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is None:
                    started(cell)
                    continue
                left -= 1
                yield cell, outcome
        finally:
            waiting.clear()
            for process in processes:
                process.close()
            for thread in threads:
                thread.join()

    def _settings(self, cells: Sequence[Cell]) -> list[Setting]:
        """One for each process."""
        names = {cell.spec["device"] for cell in cells}
        gpus = visible_gpus() if names <= {"auto", "cuda"} else []
        setting = self._setting.with_cache()
        if len(gpus) < 2:
            return [setting] * self._workers
        return [replace(setting, gpu=gpus[index % len(gpus)]) for index in range(self._workers)]


def _work(process: CellProcess, waiting: deque[Cell], events: queue.SimpleQueue[Any]) -> None:
    """Take cells until there is none; everything is reported to the thread that keeps the records."""
    while True:
        try:
            cell = waiting.popleft()
        except IndexError:
            return
        told: list[bool] = []

        def began(cell: Cell = cell, told: list[bool] = told) -> None:
            if not told:  # once, also when its first process dies
                told.append(True)
                events.put((cell, None))

        try:
            events.put((cell, process.run(cell, began)))
        except ProcessDied:
            return  # the run has ended
        except BaseException as error:
            events.put((cell, error))
            return
