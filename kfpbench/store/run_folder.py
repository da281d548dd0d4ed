"""The folder of one run: manifest.json, cells.jsonl, results.parquet, samples/, eigenfunctions/, report.html.

cells.jsonl is the truth; results.parquet is made from it and can be made again at any time. A run that is put by
may have it compressed, as cells.jsonl.gz: it is read, and not gone on with.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfpbench.errors import StoreError
from kfpbench.store.atomic import is_leftover, remove_leftovers, write_bytes, write_remakeable
from kfpbench.store.cell_log import CellLog, latest
from kfpbench.store.json_values import dumps, loads
from kfpbench.store.records import SCHEMA_VERSION, CellRecord, check_schema_version
from kfpbench.store.results import read_parquet, results_frame, write_parquet
from kfpbench.store.run_lock import LOCK_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from kfpbench.data.dataset import Dataset
    from kfpbench.store.eigenfunctions import FunctionGrid

__all__ = ["RUNS", "RunFolder", "load_run", "results_frame"]

RUNS = Path("reports") / "runs"  # default parent of run folders


class RunFolder:
    """One run folder. Make one by `create`, or take an existing one by `open`.

    Attributes: ``path``, ``manifest_path``, ``log`` (the `CellLog`), ``results_path``, ``samples_path``,
    ``eigenfunctions_path`` and ``report_path``; the last four need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / "manifest.json"
        self.log = CellLog(path / "cells.jsonl")
        self.results_path = path / "results.parquet"
        self.samples_path = path / "samples"
        self.eigenfunctions_path = path / "eigenfunctions"
        self.report_path = path / "report.html"

    @classmethod
    def is_run(cls, path: str | os.PathLike[str]) -> bool:
        """Whether there is a run in that folder."""
        return cls(Path(path)).manifest_path.is_file()

    @classmethod
    def create(cls, path: str | os.PathLike[str], manifest: dict[str, Any]) -> RunFolder:
        """Make the folder and its manifest (``schema_version`` is added).

        Raises StoreError when there is anything in the folder already, or a value of the manifest cannot be
        stored.
        """
        run = cls(Path(path))
        if run.path.exists() and (not run.path.is_dir() or any(not _is_transient(one) for one in run.path.iterdir())):
            raise StoreError(
                "the folder already holds a run" if run.manifest_path.is_file() else "the path is not free",
                got=str(path),
                allowed="a folder that is new or empty",
                remedy="Continue that run, or name another folder."
                if run.manifest_path.is_file()
                else "Name another folder; nothing was changed.",
            )
        text = _manifest_text(manifest)  # before anything is made: a bad manifest leaves nothing behind
        run.path.mkdir(parents=True, exist_ok=True)
        write_bytes(run.manifest_path, text)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run in that folder. Raises StoreError when there is none, or it is of a newer schema."""
        run = cls(Path(path))
        if not run.manifest_path.is_file():
            raise StoreError(
                "this is not a run folder: it has no manifest.json",
                got=str(path),
                allowed="a folder that `kfpbench run` made",
                remedy="Check the path, or run a suite first.",
            )
        run.read_manifest()
        return run

    def read_manifest(self) -> dict[str, Any]:
        """The manifest. Raises StoreError when it is damaged or of a newer schema."""
        try:
            manifest = loads(self.manifest_path.read_bytes())
        except StoreError as error:
            raise StoreError(error.what, where=str(self.manifest_path)) from error
        if not isinstance(manifest, dict):
            raise StoreError("the manifest is not a mapping", where=str(self.manifest_path))
        check_schema_version(manifest.get("schema_version"), "manifest", str(self.manifest_path))
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest atomically."""
        write_bytes(self.manifest_path, _manifest_text(manifest))

    def remove_leftovers(self) -> None:
        """Remove what killed writers left half written. Only the holder of the folder's lock may."""
        for folder in (self.path, self.samples_path, self.eigenfunctions_path):
            remove_leftovers(folder)

    def append(self, record: CellRecord) -> None:
        """Add a finished cell to the log; it is on the disk when this returns."""
        self.log.append(record)

    def records(self) -> list[CellRecord]:
        """The last record of every finished cell, in the order of the plan; warns of a half-written last
        line.
        """
        content = self.log.read()
        _warn(self.log, content.note)
        return self._planned(content.records)

    def _planned(self, records: Sequence[CellRecord]) -> list[CellRecord]:
        """The last record of each cell of the manifest's ``plan``, in its order; of all cells where it has no plan.

        A suite that was edited between two runs leaves records behind that are not of its plan any more.
        """
        plan = self.read_manifest().get("plan")
        found = latest(records)
        if plan is None:
            return found
        place = {cell: index for index, cell in enumerate(plan)}
        kept = [
            record if record.index == place[record.cell] else replace(record, index=place[record.cell])
            for record in found
            if record.cell in place
        ]
        return sorted(kept, key=lambda record: record.index)

    def write_results(self) -> DataFrame:
        """Make results.parquet from the log, atomically, and return its table."""
        content = self.log.read()
        _warn(self.log, content.note)
        frame = results_frame(self._planned(content.records))
        write_parquet(frame, self.results_path, content.digest)
        return frame

    def save_files(self, files: Mapping[str, bytes]) -> None:
        """Write files that were made elsewhere, by path relative to the folder. Raises StoreError for one outside."""
        for name, content in files.items():
            target = self.path / name
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StoreError("a file of a cell is not in its run folder", got=name, where=str(self.path))
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, content)

    def save_samples(
        self,
        cell_id: str,
        samples: NDArray[np.float32],
        dataset: Dataset,
        *,
        title: str = "",
        grid: bool = True,
        max_images: int = 64,
    ) -> dict[str, str]:
        """Write ``samples`` (n, d) as npz and a picture of them as png; returns their paths relative to the
        folder.

        The keys are ``samples`` and ``grid``; data that cannot be pictured (one coordinate) have no grid. See
        `samples.write_samples` for what is kept, and `sample_grid.sample_picture`. Raises ShapeError when the rows are
        not those of the data set.
        """
        from kfpbench.store.sample_grid import sample_picture
        from kfpbench.store.samples import file_stem, write_samples

        self.samples_path.mkdir(exist_ok=True)
        target = self.samples_path / f"{file_stem(cell_id)}.npz"
        write_samples(target, samples, dataset)
        files = {"samples": target.relative_to(self.path).as_posix()}
        picture = sample_picture(samples, dataset, title=title, max_images=max_images) if grid else None
        if picture is not None:
            target = target.with_suffix(".png")
            write_remakeable(target, picture)
            files["grid"] = target.relative_to(self.path).as_posix()
        return files

    def save_nearest(self, cell_id: str, picture: bytes) -> dict[str, str]:
        """Write the PNG of samples beside their nearest training images; returns its relative path, key ``nearest``."""
        from kfpbench.store.samples import file_stem

        self.samples_path.mkdir(exist_ok=True)
        target = self.samples_path / f"{file_stem(cell_id)}.nearest.png"
        write_remakeable(target, picture)
        return {"nearest": target.relative_to(self.path).as_posix()}

    def save_eigenfunctions(self, cell_id: str, grid: FunctionGrid) -> dict[str, str]:
        """Write eigenfunctions on a grid as npz; returns the path relative to the folder, key ``eigenfunctions``."""
        from kfpbench.store.eigenfunctions import write_function_grid
        from kfpbench.store.samples import file_stem

        self.eigenfunctions_path.mkdir(exist_ok=True)
        target = self.eigenfunctions_path / f"{file_stem(cell_id)}.npz"
        write_function_grid(target, grid)
        return {"eigenfunctions": target.relative_to(self.path).as_posix()}


def load_run(folder: str | os.PathLike[str]) -> DataFrame:
    """The tidy table of a run: one row per cell and metric (see `results.results_frame` for the columns).

    Reads results.parquet when it was made from the present cells.jsonl (or there is no log beside it), else
    makes the table from cells.jsonl; writes nothing. Raises StoreError for a folder without a run, a damaged
    file or a newer schema.
    """
    run = RunFolder.open(folder)
    if run.results_path.is_file():
        frame = read_parquet(run.results_path, run.log.digest() if run.log.exists() else None)
        if frame is not None:
            return frame
    content = run.log.read()
    _warn(run.log, content.note)
    return results_frame(run._planned(content.records))


def _is_transient(path: Path) -> bool:
    """A lock, or a file that was being written when its writer was killed: neither makes a folder taken."""
    return path.name == LOCK_NAME or is_leftover(path.name)


def _manifest_text(manifest: dict[str, Any]) -> bytes:
    return (dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=2) + "\n").encode("ascii")


def _warn(log: CellLog, note: str) -> None:
    if note:
        warnings.warn(f"{log.path}: {note}", UserWarning, stacklevel=3)
