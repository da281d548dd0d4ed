"""The command line: thin verbs over the library. Every error of kfpbench ends in a message and exit code
2."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kfpbench.cache.verbs import cache_app
from kfpbench.cli_completion import kinds
from kfpbench.cli_options import AllowPlugins, AsJson, Overrides, SuitePath
from kfpbench.compare.verbs import compare
from kfpbench.doctor.verb import doctor
from kfpbench.errors import DataError, KfpbenchError
from kfpbench.protocols import KINDS
from kfpbench.publish.verbs import collect, export, publish, report
from kfpbench.report.figures_verb import figures
from kfpbench.runner.time_verb import time
from kfpbench.runner.verbs import run, spectrum
from kfpbench.scoring.verb import score
from kfpbench.study.verbs import study_app
from kfpbench.suite.starter_verb import init

# Verbs import what they need when they are called, so that --help and ls stay fast.

# OpenMP reads this when torch is loaded. Threads that wait by spinning are starved by any other busy process: small
# products were then seen to take 2 to 15 times as long. A wait that sleeps costs microseconds; set it to override.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="kfpbench",
    help="Benchmarks and ablations of kernel Fokker-Planck (operator-theoretic) diffusion sampling.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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


app.command()(run)
app.command()(spectrum)
app.command()(time)


app.command()(report)
app.command()(compare)
app.command()(collect)
app.command()(publish)
app.command()(export)


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
    """Train a denoising network or a classifier (`kind:` in the file), from its folder's state on.

    Exit code 0: complete, or --minutes have passed; 2: bad file; 130 or 143: stopped by a signal with the state saved.
    """
    from kfpbench.training.command import export_checkpoint, train_network
    from kfpbench.training.load import load_training

    options = load_training(file, overrides or ())
    folder = out if out is not None else Path("reports/runs") / options.name
    if export is not None:
        export_checkpoint(options, file, overrides or (), folder, export)
        return
    raise typer.Exit(train_network(options, file, overrides or (), folder, minutes, device))


app.command()(figures)
app.command()(score)
app.command()(init)
app.command()(doctor)

app.add_typer(cache_app, name="cache")
app.add_typer(study_app, name="study")

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
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=", ".join(KINDS), autocompletion=kinds)] = None,
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
        # control characters, which a suite's text may hold, must not reach a terminal
        text = "".join(one if one.isprintable() or one == "\n" else "?" for one in str(error))
        typer.echo(f"error: {text}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
