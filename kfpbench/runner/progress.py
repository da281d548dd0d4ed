"""Progress on a terminal (one live bar with the time left) and elsewhere (one plain line a cell)."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from kfpbench.store.records import CellRecord
from kfpbench.suite.cell import Cell
from kfpbench.suite.cell_name import cell_name

_STYLES = {"ok": "green", "skipped": "yellow", "failed": "bold red", "timeout": "bold red"}


def describe(cell: Cell) -> str:
    """Label, data set and the axes that apply."""
    repeat = f" #{cell.repeat}" if cell.repeat else ""
    return f"{cell.spec['data']['name']}: {cell_name(cell.label + repeat, cell.axes)}"


def _one_line(text: str) -> str:
    """A stranger's error message on one line, without control characters, which must not reach a terminal or a log."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


class LiveProgress:
    """A bar with cells done, the present cell, elapsed and remaining time; a line for each finished cell above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = RichProgress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, total: int, done: int) -> None:
        """Show the bar."""
        if done:
            self._console.print(f"{done} of {total} cells are finished already and are not run again")
        self._task = self._bar.add_task("", total=total - done)

    def started(self, cell: Cell) -> None:
        """Name the present cell on the bar."""
        if self._task is not None:
            self._bar.update(self._task, description=describe(cell))

    def finished(self, cell: Cell, record: CellRecord) -> None:
        """Advance, and leave a line."""
        from rich.text import Text

        line = Text.assemble(
            (f"{record.status:<8}", _STYLES[record.status]), f"{record.seconds:7.1f} s  {describe(cell)}"
        )
        if record.reason:
            line.append(f"  {_one_line(record.reason)}", style="dim")
        self._console.print(line)
        if self._task is not None:
            self._bar.advance(self._task)

    def note(self, text: str) -> None:
        """Leave a line, and name what goes on beside the bar."""
        line = _one_line(text)
        self._console.print(line, style="dim", markup=False, highlight=False, emoji=False)
        if self._task is not None:
            self._bar.update(self._task, description=line.partition(":")[0])


class PlainProgress:
    """One line when a cell has finished, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._done = 0

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Nothing to close."""

    def begin(self, total: int, done: int) -> None:
        """Say what is to be done."""
        self._total, self._done = total, done
        already = f", {done} finished already" if done else ""
        self._line(f"{total} cells{already}")

    def started(self, cell: Cell) -> None:
        """Nothing: a line a cell is enough for a log."""

    def finished(self, cell: Cell, record: CellRecord) -> None:
        """Number, status, seconds, cell, reason."""
        self._done += 1
        reason = f"  {_one_line(record.reason)}" if record.reason else ""
        self._line(f"[{self._done}/{self._total}] {record.status} {record.seconds:.1f} s  {describe(cell)}{reason}")

    def note(self, text: str) -> None:
        """One line."""
        self._line(_one_line(text))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
