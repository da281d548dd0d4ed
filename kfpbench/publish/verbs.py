"""The verbs report, collect, export and publish: their options. What they need is imported when called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kfpbench.errors import ParameterError

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]


def report(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where the report of several runs goes.")
    ] = None,
) -> None:
    """Write the report of a run again, from its records; or one report of several runs."""
    if len(runs) == 1 and out is None:
        from kfpbench.claim.card import write_claim
        from kfpbench.report.html import write_report
        from kfpbench.store.run_folder import RunFolder

        finished = RunFolder.open(runs[0])
        write_claim(finished.read_manifest(), finished.records(), finished.path)
        typer.echo(write_report(finished.read_manifest(), finished.records(), finished.path))
        return
    if out is None:
        raise ParameterError("the report of several runs needs a folder", remedy="Name one with --out.", where="--out")
    from kfpbench.publish.collect import Collected, merge_reports

    made: Collected = merge_reports(runs, out, command=["kfpbench", *sys.argv[1:]])
    _tell(made.gathered.duplicates, made.gathered.disagree, made.files_left_out)
    typer.echo(made.path)


def collect(
    runs: Runs,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new run folder, or a file .parquet.")],
) -> None:
    """Put several run folders, of one suite or of several, into one, or into one table, with the origin of each row.

    Of a cell that several runs hold, the record that ended best counts (ok before skipped, failed, timeout), then the
    one that finished last.
    """
    from kfpbench.publish.collect import collect as collect_runs

    made = collect_runs(runs, out, command=["kfpbench", *sys.argv[1:]])
    _tell(made.gathered.duplicates, made.gathered.disagree, made.files_left_out)
    typer.echo(f"{len(made.gathered.records)} cells of {len(runs)} runs: {made.path}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write CSV; - for standard output.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", metavar="FILE", help="Write Parquet.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write JSON; - for standard output.")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="One row per cell, with columns for each metric.")] = False,
) -> None:
    """Write the numbers of a run as a table: one row per cell and metric, or with --wide one per cell."""
    wanted = {form: path for form, path in (("csv", csv), ("parquet", parquet), ("json", as_json)) if path is not None}
    if not wanted:
        raise ParameterError("no file to write", allowed="--csv FILE, --parquet FILE or --json FILE")
    from kfpbench.publish.export import export_run

    for form, path in wanted.items():
        rows = export_run(run, path, form, wide=wide)
        if str(path) != "-":
            typer.echo(f"{rows} rows: {path}")


def publish(
    page: Annotated[Path, typer.Argument(metavar="PAGE", help="A Markdown file with tables of runs.")],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 where a table is not what the runs say.")
    ] = False,
) -> None:
    """Write the tables of a page again, from the runs beside it (docs/comparing.md says how a table is asked for)."""
    from kfpbench.publish.page import fill_page, write_page

    filled = fill_page(page) if check else write_page(page)
    stale = ", ".join(f"{page}:{line}" for line in filled.changed)
    if check and stale:
        typer.echo(f"not what the runs say: {stale}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{filled.tables} tables, {len(filled.changed)} written anew")


def _tell(duplicates: int, disagree: tuple[str, ...], files_left_out: int) -> None:
    if duplicates:
        typer.echo(f"{duplicates} records of cells that another run holds too were left out", err=True)
    if disagree:
        typer.echo(f"the runs disagree on {', '.join(disagree)}", err=True)
    if files_left_out:
        typer.echo(f"{files_left_out} files are missing or lie outside of their run folder", err=True)
