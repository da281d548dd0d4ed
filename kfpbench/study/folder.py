"""The folder of a study: an ordinary run folder whose cells are the trials', and one more for each stage below it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfpbench.runner.open_run import open_run
from kfpbench.store.records import utc_now
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.definition import Definition
from kfpbench.suite.loaded import Suite

STUDIES = Path("reports") / "studies"  # default parent of study folders
REPORT = "study.html"


def open_folder(path: Path, suite: Suite, definition: Definition, command: Sequence[str]) -> RunFolder:
    """The run folder at ``path`` and those of the stages, made or continued; `kfpbench report` reads each of them.

    Equal numbers of images are compared, so that the cells of a stage are kept apart. Workers that start at once make
    it once. Raises StoreError as `open_run` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        study = {"name": definition.name, "target": f"{definition.field}.{definition.label}"}
        notes = ["the cells are trials of a study"]
        folder = open_run(path, suite, command, utc_now(), False, notes, study)
        manifest = _without_plan(folder.read_manifest())
        folder.write_manifest(manifest)
        for stage in definition.stages:
            if not RunFolder.is_run(stage_path(path, stage)):
                note = f"cells of trials at the stage of {stage} images"
                RunFolder.create(stage_path(path, stage), {**manifest, "notes": [*manifest["notes"], note]})
    return folder


def stage_path(path: Path, stage: int) -> Path:
    """The run folder of a stage."""
    return path / "stages" / f"n{stage}"


def _without_plan(manifest: dict[str, Any]) -> dict[str, Any]:
    """Nobody knows the cells beforehand: every record counts. No claim is made by trials."""
    return {key: value for key, value in manifest.items() if key not in ("plan", "claim", "schema_version")}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder itself; none where there are no file locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
