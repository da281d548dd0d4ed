"""Recognise a run that has nothing left to do, so that running its suite again costs no more than reading it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kfpbench import __version__
from kfpbench.runner.open_run import score_files
from kfpbench.runner.settled_run import CONCLUDED
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell
from kfpbench.suite.loaded import Suite


def finished_records(path: Path, suite: Suite, cells: Sequence[Cell], retry_failed: bool) -> list[CellRecord] | None:
    """The records of a finished run of this very suite whose table and report are of this version; else None.

    None too for a suite with a claim or with timings in turns, which have files of their own to look after.
    """
    if suite.model.claim is not None or suite.model.timing is not None or not RunFolder.is_run(path):
        return None
    folder = RunFolder.open(path)
    manifest = folder.read_manifest()
    same = (
        manifest.get("suite", {}).get("text") == suite.text
        and manifest["suite"].get("included") == suite.included
        and manifest["suite"].get("overrides") == list(suite.overrides)
        and manifest.get("plan") == [cell.id for cell in suite.cells]
        and manifest.get("plugins") == suite.plugins
        and (manifest.get("environment") or {}).get("kfpbench") == __version__
        and manifest.get(CONCLUDED) == folder.log.digest()
        and folder.results_path.is_file()
        and folder.report_path.is_file()
    )
    if not same or manifest.get("score_files") != score_files(suite.cells):
        return None
    records = folder.records()
    again = ("failed", "timeout") if retry_failed else ()
    done = {record.cell for record in records if record.status not in again}
    return records if all(cell.id in done for cell in cells) else None
