"""Progress of a training run on a terminal (one live bar) and elsewhere (a plain line every ten seconds)."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from kfpbench.training.loop import Progress

_LINE_SECONDS = 10.0


def describe(progress: Progress, total: int) -> str:
    """Images seen, loss, images a second, and the time that is left at that speed."""
    left = duration(max(total - progress.images, 0) / progress.speed)
    return f"{progress.images:,} of {total:,} images  loss {progress.loss:.4f}  {progress.speed:.0f}/s  {left} left"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class LiveTraining:
    """A bar with images, loss, speed and the time left."""

    def __init__(self, console: Console) -> None:
        self._total = 0
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        self._bar = RichProgress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> LiveTraining:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, images: int, total: int) -> None:
        """Show how far earlier parts have come."""
        self._total = total
        self._task = self._bar.add_task(f"{images:,} of {self._total:,} images", total=self._total, completed=images)

    def report(self, progress: Progress) -> None:
        """Advance the bar."""
        if self._task is not None:
            self._bar.update(self._task, completed=progress.images, description=describe(progress, self._total))


class PlainTraining:
    """Lines for logs and pipes, one every ten seconds and one at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._last: float | None = None
        self._waiting: Progress | None = None

    def __enter__(self) -> PlainTraining:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._waiting is not None:
            self._line(describe(self._waiting, self._total))

    def begin(self, images: int, total: int) -> None:
        """Say how far earlier parts have come."""
        self._total = total
        self._line(f"{images:,} of {self._total:,} images")

    def report(self, progress: Progress) -> None:
        """A line, unless there was one just now."""
        self._waiting = progress
        if self._last is None or time.monotonic() - self._last >= _LINE_SECONDS:
            self._line(describe(progress, self._total))
            self._last, self._waiting = time.monotonic(), None

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
