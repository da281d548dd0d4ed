"""What `run` and `spectrum` do: load the suite, show the plan or run the cells, with progress, log and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from kfpbench.cache.summary import cache_line
from kfpbench.runner.execute import RunResult
from kfpbench.runner.execute import run as execute
from kfpbench.runner.logs import logging_to
from kfpbench.runner.progress import LiveProgress, PlainProgress
from kfpbench.runner.run_cell import CellHook
from kfpbench.runner.run_options import RunOptions
from kfpbench.runner.summary import result_as_json
from kfpbench.store.run_folder import RUNS

if TYPE_CHECKING:
    from kfpbench.suite.loaded import Suite


def run_suite(file: Path, options: RunOptions, *, spectra_only: bool = False) -> int:
    """Load a suite and run it, or with ``dry_run`` list its cells. Returns the exit code; raises KfpbenchError."""
    from kfpbench.suite.load import load_suite

    command = ["kfpbench", *sys.argv[1:]]
    console = Console(stderr=options.as_json)
    with logging_to(console, verbosity=options.verbosity, file=options.log_file, command=command):
        suite = load_suite(file, overrides=options.overrides, allow_plugins=options.allow_plugins)
        select = options.select
        if spectra_only:
            from kfpbench.suite.select import spectrum_selection

            select = spectrum_selection(suite.cells, select)
        if options.dry_run:
            _show_plan(suite, select, options.as_json)
            return 0
        result = _run_cells(suite, select, options, command, console)
    if result is None:
        typer.echo("interrupted; finished cells are kept, run the same command again to go on", err=True)
        return 130
    if options.as_json:
        typer.echo(result_as_json(result))
    else:
        _show(result, console, spectra_only)
    return result.exit_code


def _show_plan(suite: Suite, select: Sequence[str], as_json: bool) -> None:
    from kfpbench.runner.dry_run import plan_as_json, plan_as_text

    typer.echo(plan_as_json(suite, select) if as_json else plan_as_text(suite, select))


def _run_cells(
    suite: Suite, select: Sequence[str], options: RunOptions, command: list[str], console: Console
) -> RunResult | None:
    """Run the cells with progress; None when the user has interrupted them, which typer would end silently."""
    hooks, notes = _hooks(suite, options)
    live = console.is_terminal and not options.debug  # a bar would be drawn over the debugger
    with (LiveProgress if live else PlainProgress)(console) as progress:
        try:
            return execute(
                suite,
                out=options.out,
                select=select,
                retry_failed=options.retry_failed,
                force=options.force,
                cache=False if options.no_cache else None,
                progress=progress,
                command=command,
                around=hooks,
                notes=notes,
                executor=options.executor,
            )
        except KeyboardInterrupt:
            return None


def _hooks(suite: Suite, options: RunOptions) -> tuple[list[CellHook], list[str]]:
    """What every cell runs inside, outermost first, and what the manifest notes of it."""
    hooks: list[CellHook] = []
    notes: list[str] = []
    if options.debug:
        from kfpbench.runner.post_mortem import post_mortem

        hooks.append(post_mortem)
    if options.profile:
        from kfpbench.runner.profiling import NOTE, profile_into

        hooks.append(profile_into(options.out if options.out is not None else RUNS / suite.model.name))
        notes.append(f"cells of this command were {NOTE}")
    return hooks, notes


def _show(result: RunResult, console: Console, spectra_only: bool) -> None:
    """Tables, the claim where the suite makes one, and where the report is."""
    if spectra_only:
        from kfpbench.report.spectrum_terminal import render_spectra

        render_spectra(result.records, console)
    else:
        from kfpbench.report.terminal import render_table

        render_table(result.records, console)
    if result.claim is not None:
        from kfpbench.claim.terminal import render_card

        render_card(result.claim, console)
    if line := cache_line(result.records, result.started):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {result.report}", markup=False, highlight=False, soft_wrap=True)
