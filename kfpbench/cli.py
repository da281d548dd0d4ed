"""The command line: thin verbs over the library. Every error of kfpbench ends in a message and exit code
2."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from kfpbench.errors import DataError, KfpbenchError
from kfpbench.protocols import KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from kfpbench.suite.load import Suite

# Verbs import what they need when they are called, so that --help and ls stay fast.

# OpenMP reads this when torch is loaded. Threads that wait by spinning are starved by any other busy process: small
# products were then seen to take 2 to 15 times as long. A wait that sleeps costs microseconds; set it to override.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="kfpbench",
    help="Benchmarks and ablations of kernel Fokker-Planck (operator-theoretic) diffusion sampling.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SuitePath = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a value; may be repeated.")
]
AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Permit running the Python files under `plugins:`.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Run folder; default reports/runs/<name>.")]
Select = Annotated[
    list[str] | None, typer.Option("--select", metavar="KEY=VALUE", help="Run only these cells; may be repeated.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed and timed-out cells of an earlier run again.")
]
Force = Annotated[bool, typer.Option("--force", help="Run every cell again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells with their predicted memory; run nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from kfpbench import __version__

        typer.echo(f"kfpbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmarks and ablations of kernel Fokker-Planck (operator-theoretic) diffusion sampling."""


@app.command()
def validate(
    suite: SuitePath,
    overrides: Overrides = None,
    allow_plugins: AllowPlugins = False,
    as_json: AsJson = False,
) -> None:
    """Check a suite and everything in it without running it; list its cells and axes."""
    from kfpbench.suite.load import load_suite
    from kfpbench.suite.summary import error_as_json, suite_as_json, suite_as_text

    try:
        loaded = load_suite(suite, overrides=overrides or (), allow_plugins=allow_plugins)
    except KfpbenchError as error:
        if as_json:
            typer.echo(json.dumps(error_as_json(error), indent=2))
        raise
    typer.echo(json.dumps(suite_as_json(loaded), indent=2) if as_json else suite_as_text(loaded))


@app.command()
def run(
    suite: SuitePath,
    out: Out = None,
    overrides: Overrides = None,
    select: Select = None,
    allow_plugins: AllowPlugins = False,
    retry_failed: RetryFailed = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run a suite. Exit code 0: all cells ok or skipped; 1: some failed; 2: bad suite; 130: interrupted."""
    from kfpbench.suite.load import load_suite

    loaded = load_suite(suite, overrides=overrides or (), allow_plugins=allow_plugins)
    if dry_run:
        _show_plan(loaded, select or (), as_json)
        return
    from kfpbench.report.terminal import render_table

    _execute(loaded, out, select or (), retry_failed, force, as_json, render_table)


@app.command()
def spectrum(
    suite: SuitePath,
    out: Out = None,
    overrides: Overrides = None,
    select: Select = None,
    allow_plugins: AllowPlugins = False,
    retry_failed: RetryFailed = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run only the spectrum cells of a suite: print their eigenvalues, and plot them with their eigenfunctions into the
    report. Exit codes as of run.
    """
    from kfpbench.suite.load import load_suite
    from kfpbench.suite.select import spectrum_selection

    loaded = load_suite(suite, overrides=overrides or (), allow_plugins=allow_plugins)
    chosen = spectrum_selection(loaded.cells, select or ())
    if dry_run:
        _show_plan(loaded, chosen, as_json)
        return
    from kfpbench.report.spectrum_terminal import render_spectra

    _execute(loaded, out, chosen, retry_failed, force, as_json, render_spectra)


def _show_plan(suite: Suite, select: Sequence[str], as_json: bool) -> None:
    from kfpbench.runner.dry_run import plan_as_json, plan_as_text

    typer.echo(plan_as_json(suite, select) if as_json else plan_as_text(suite, select))


def _execute(
    suite: Suite,
    out: Path | None,
    select: Sequence[str],
    retry_failed: bool,
    force: bool,
    as_json: bool,
    render: Callable[[Iterable[Any], Console], None],
) -> NoReturn:
    """Run the cells with progress, ``render`` their records, and exit."""
    from rich.console import Console

    from kfpbench.runner.execute import run as execute
    from kfpbench.runner.progress import LiveProgress, PlainProgress
    from kfpbench.runner.summary import result_as_json

    console = Console(stderr=as_json)
    with (LiveProgress if console.is_terminal else PlainProgress)(console) as progress:
        try:
            result = execute(
                suite,
                out=out,
                select=select,
                retry_failed=retry_failed,
                force=force,
                progress=progress,
                command=["kfpbench", *sys.argv[1:]],
            )
        except KeyboardInterrupt:  # typer would end silently
            typer.echo("interrupted; finished cells are kept, run the same command again to go on", err=True)
            raise typer.Exit(130) from None
    if as_json:
        typer.echo(result_as_json(result))
    else:
        render(result.records, console)
        console.print(f"report: {result.report}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(result.exit_code)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")]) -> None:
    """Write the report of a run again, from its records."""
    from kfpbench.report.html import write_report
    from kfpbench.store.run_folder import RunFolder

    finished = RunFolder.open(folder)
    typer.echo(write_report(finished.read_manifest(), finished.records(), finished.path))


@app.command()
def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A training file (YAML).")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Training folder; default reports/runs/<name>.")
    ] = None,
    overrides: Overrides = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", min=0.0, help="Stop after M minutes, to go on later.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu or cuda.")] = "auto",
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Train nothing; write the checkpoint so far and its model card."),
    ] = None,
) -> None:
    """Train a denoising network, from its folder's state on. Exit code 0: complete, or --minutes have passed;
    2: bad file; 130 or 143: stopped by a signal with the state saved.
    """
    from kfpbench.training.command import export_checkpoint, train_network
    from kfpbench.training.load import load_training

    options = load_training(file, overrides or ())
    folder = out if out is not None else Path("reports/runs") / options.name
    if export is not None:
        export_checkpoint(options, file, folder, export)
        return
    raise typer.Exit(train_network(options, file, folder, minutes, device))


data_app = typer.Typer(help="Data sets on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cifar10")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Default: the user cache.")] = None,
) -> None:
    """Download a data set from its official place, verify its checksum, and resume where a download broke off."""
    from rich.console import Console

    from kfpbench.data.fetch import fetch_cifar10
    from kfpbench.data.fetch_progress import download_bar

    if name != "cifar10":
        raise DataError("no such data set to fetch", got=name, allowed="cifar10")
    with download_bar(Console(stderr=True), name) as advance:
        typer.echo(fetch_cifar10(to, progress=advance))


@app.command()
def schema(
    training: Annotated[bool, typer.Option("--training", help="Of training files (kfpbench train) instead.")] = False,
) -> None:
    """Print the JSON Schema of suites with the parameters of all installed components, for editors."""
    if training:
        from kfpbench.training.json_schema import training_json_schema as json_schema
    else:
        from kfpbench.suite.json_schema import suite_json_schema as json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command("ls")
def list_components(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=", ".join(KINDS))] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed components: name, target and origin by kind."""
    from kfpbench.registry import available

    entries = [entry for one in ([kind] if kind else KINDS) for entry in available(one).values()]
    if as_json:
        fields = ("kind", "name", "target", "origin")
        typer.echo(json.dumps([{key: getattr(entry, key) for key in fields} for entry in entries], indent=2))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("kind", "name", "target", "origin")
        for entry in entries:
            table.add_row(entry.kind, entry.name, entry.target, entry.origin)
        Console().print(table)
    else:
        for entry in entries:
            typer.echo(f"{entry.kind}\t{entry.name}\t{entry.target}\t{entry.origin}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error that kfpbench raises on purpose is shown without a traceback, with
    exit code 2."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="kfpbench")
    except KfpbenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
