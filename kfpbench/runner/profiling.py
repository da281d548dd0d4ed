"""``--profile``: where a cell's Python time goes, one pair of files a cell in the run folder."""

from __future__ import annotations

import cProfile
import io
import pstats
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from kfpbench.runner.sample_cell import Outcome
from kfpbench.store.atomic import atomic_path, write_bytes
from kfpbench.store.samples import file_stem
from kfpbench.suite.cell import Cell

NOTE = "made under cProfile (--profile), which slows Python code: its times are not to be compared"
_FOLDER = "profiles"
_LINES = 40  # functions listed by own time, and as many by cumulative time


def profile_into(run: Path) -> Callable[[Cell, Outcome], AbstractContextManager[None]]:
    """A hook for `execute.run`: profiles each cell, the failed ones too, into ``run/profiles``.

    ``<cell>.pstats`` is for `python -m pstats`, snakeviz and the like; ``<cell>.txt`` lists the functions that took
    longest. Only the main thread's Python functions are seen; a call into C counts as one.
    """

    @contextmanager
    def profiled(cell: Cell, outcome: Outcome) -> Iterator[None]:
        profiler = cProfile.Profile()
        profiler.enable()
        try:
            yield
        finally:
            profiler.disable()
            outcome.details.setdefault("notes", []).append(NOTE)
            write_profile(profiler, run / _FOLDER, cell)

    return profiled


def write_profile(profiler: cProfile.Profile, folder: Path, cell: Cell) -> None:
    """Write both files atomically."""
    folder.mkdir(exist_ok=True)
    stem = file_stem(cell.id)
    with atomic_path(folder / f"{stem}.pstats") as temporary:
        profiler.dump_stats(temporary)
    stream = io.StringIO()
    stats = pstats.Stats(profiler, stream=stream).strip_dirs()
    stream.write(f"cell {cell.id}, {cell.label}\n")
    for order in ("tottime", "cumulative"):
        stats.sort_stats(order).print_stats(_LINES)
    write_bytes(folder / f"{stem}.txt", stream.getvalue().encode("utf-8", "replace"))
