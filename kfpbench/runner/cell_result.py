"""What an executor is, and what it hands back for a cell."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kfpbench.store.records import CellRecord
from kfpbench.suite.cell import Cell


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its record, and the files that its owner has still to write, by path in the run folder."""

    record: CellRecord
    files: dict[str, bytes] = field(default_factory=dict)


class Executor(Protocol):
    """Computes cells."""

    def results(
        self, cells: Sequence[Cell], started: Callable[[Cell], None]
    ) -> Generator[tuple[Cell, CellResult], None, None]:
        """Every cell once with its result, as they finish; ``started`` is told when one begins.

        All of it happens in the thread that iterates. Closing the iterator ends what runs: those cells count as not
        run.
        """
