"""`kfpbench time`: time a suite's samplers in turns, and show and keep the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from kfpbench.cache.use import keeping
from kfpbench.errors import StoreError
from kfpbench.report.html import write_report
from kfpbench.report.speed_section import comparisons
from kfpbench.report.speed_terminal import render_speed
from kfpbench.report.terminal import print_line
from kfpbench.runner.time_suite import time_suite
from kfpbench.runner.timing_record import FILE_NAME
from kfpbench.store.json_values import dumps
from kfpbench.store.run_folder import RUNS, RunFolder
from kfpbench.store.run_lock import run_lock
from kfpbench.suite.load import load_suite


def time_command(
    path: Path,
    out: Path | None,
    *,
    overrides: Sequence[str],
    select: Sequence[str],
    allow_plugins: bool,
    force: bool,
    no_cache: bool,
    as_json: bool,
) -> int:
    """Returns the exit code: 0 when two samplers or more could be compared, 130 when interrupted. Raises StoreError for
    a folder that holds no run of this suite.
    """
    suite = load_suite(path, overrides=overrides, allow_plugins=allow_plugins)
    folder = out if out is not None else RUNS / suite.model.name
    run = _run_of(suite.model.name, folder)
    console = Console(stderr=as_json)
    try:
        with run_lock(folder), keeping(suite.model.cache and not no_cache, refresh=force):
            record = time_suite(
                suite, folder, select=select, force=force, say=lambda line: print_line(console, line, "dim")
            )
    except KeyboardInterrupt:  # typer would end without a word
        typer.echo("interrupted; times that were taken are kept, run the same command again to go on", err=True)
        write_report(run.read_manifest(), run.records(), run.path)
        return 130
    if as_json:
        content = record.as_plain()
        for plain, timed in zip(content["sets"], record.sets, strict=True):
            plain["compared"] = [vars(one) for one in comparisons(timed)]
        typer.echo(dumps(content, indent=2))
    else:
        render_speed(record, console)
    print_line(console, f"times: {folder / FILE_NAME}")
    print_line(console, f"report: {write_report(run.read_manifest(), run.records(), run.path)}")
    return 0 if any(len(timed.timed()) > 1 for timed in record.sets) else 1


def _run_of(name: str, folder: Path) -> RunFolder:
    if not RunFolder.is_run(folder):
        remedy = "Run the suite first (kfpbench run), or name its folder with --out."
        raise StoreError("there is no run to put the times into", got=str(folder), remedy=remedy)
    run = RunFolder.open(folder)
    held = run.read_manifest().get("suite", {}).get("name")
    if held != name:
        raise StoreError(
            "the folder holds a run of another suite", got=held, allowed=name, remedy="Name its own folder."
        )
    return run
