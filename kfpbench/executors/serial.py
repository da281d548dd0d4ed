"""The default executor: one cell after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from kfpbench.runner.cell_result import CellResult
from kfpbench.runner.run_cell import CellHook, run_cell
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell


class SerialExecutor:
    """Runs cells in plan order; their files go into the run folder at once. ``around``: hooks of every cell."""

    def __init__(self, folder: RunFolder, around: Sequence[CellHook] = ()) -> None:
        self._folder = folder
        self._around = around

    def results(
        self, cells: Sequence[Cell], started: Callable[[Cell], None]
    ) -> Generator[tuple[Cell, CellResult], None, None]:
        """See `Executor`."""
        from kfpbench.runner.materials import Materials

        materials = Materials()
        for cell in cells:
            started(cell)
            yield cell, CellResult(run_cell(cell, materials, self._folder, self._around))
