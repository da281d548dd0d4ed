"""Recognise, before anything heavy is imported, a run in which the same command by the same code would do nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfpbench import __version__
from kfpbench.errors import KfpbenchError
from kfpbench.protocols import KINDS
from kfpbench.registry import available
from kfpbench.runner.run_options import RunOptions
from kfpbench.store.records import CellRecord, exit_code_of
from kfpbench.store.run_folder import RUNS, RunFolder
from kfpbench.suite.include import Merged, read_suite_file

CONCLUDED = "concluded"  # key of the manifest: the digest of the log that table and report were made from
CODE = "code"  # and the state of the code that planned the run
_OWN = ("kfpbench", "kfpbench_baselines")


@dataclass(frozen=True)
class SettledRun:
    """The folder's report and its records: nothing is left to run."""

    report: Path
    records: list[CellRecord]

    @property
    def text(self) -> str:
        """What there is, in words."""
        counts = Counter(record.status for record in self.records)
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        total = len(self.records)
        return f"{total} cells, {total} finished already: {told}\nreport: {self.report}"

    @property
    def exit_code(self) -> int:
        """As of the run itself."""
        return exit_code_of(self.records)


def settled_run(file: Path, options: RunOptions) -> SettledRun | None:
    """The run that the command would leave as it is; None wherever that takes more than reading files to say.

    It is one of the same suite with the same includes, overrides and plugin files, planned by the same files of
    kfpbench, whose log table and report were made from. Components of other packages, files of scores, claims, timings
    in turns, selections, and options that ask for more make it None: the suite is then loaded, and compared cell by
    cell. Cost: the suite's text, the log, and the dates of kfpbench's files.
    """
    asks_more = options.force or options.dry_run or options.as_json or options.debug or options.profile
    if asks_more or options.select or options.log_file or options.verbosity:
        return None
    try:
        merged = read_suite_file(file)
        folder = _folder_of(merged, options)
        return None if folder is None else _settled(merged, file, folder, options)
    except (KfpbenchError, OSError):
        return None  # what is wrong is said where the suite is loaded


def _folder_of(merged: Merged, options: RunOptions) -> RunFolder | None:
    name = merged.data.get("name")
    if options.out is None and not (isinstance(name, str) and name.isidentifier()):
        return None
    path = options.out if options.out is not None else RUNS / str(name)
    return RunFolder.open(path) if RunFolder.is_run(path) else None


def _settled(merged: Merged, file: Path, folder: RunFolder, options: RunOptions) -> SettledRun | None:
    manifest = folder.read_manifest()
    suite = manifest.get("suite", {})
    plugins = manifest.get("plugins") or {}
    same = (
        suite.get("text") == merged.text
        and suite.get("included") == merged.texts
        and suite.get("overrides") == list(options.overrides)
        and (options.allow_plugins or not plugins)
        and all(_digest(file.parent / name) == digest for name, digest in plugins.items())
        and not manifest.get("score_files")
        and not {"claim", "study"} & manifest.keys()
        and merged.data.get("timing") is None
        and manifest.get(CODE) is not None
        and manifest.get(CODE) == code_state()
        and manifest.get(CONCLUDED) == folder.log.digest()
        and folder.results_path.is_file()
        and folder.report_path.is_file()
    )
    if not same:
        return None
    records = folder.records()
    again = ("failed", "timeout") if options.retry_failed else ()
    done = {record.cell for record in records if record.status not in again}
    return SettledRun(folder.report_path, records) if done >= set(manifest["plan"]) else None


def code_state() -> str | None:
    """A digest of version, names, sizes and dates of kfpbench's own files; None where other packages add components.

    An edited default is another plan under the same suite and version.
    """
    if any(entry.target.partition(".")[0] not in _OWN for kind in KINDS for entry in available(kind).values()):
        return None
    import kfpbench
    import kfpbench_baselines

    stats: list[Any] = [__version__]
    for package in (kfpbench, kfpbench_baselines):
        root = Path(os.path.dirname(package.__file__ or ""))
        for path in sorted(root.rglob("*.py")):
            stat = path.stat()
            stats.append([path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
