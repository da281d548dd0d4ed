"""The verbs of `kfpbench study`: their options. What runs is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kfpbench.cli_options import AllowPlugins, AsJson, Overrides, SuitePath, sharing
from kfpbench.study.options import StudyOptions

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Study folder; default reports/studies/<name>.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="FILE|URL",
        envvar="KFPBENCH_STUDY_STORAGE",
        help="A journal file (default: study.journal in the folder), or postgresql://user@host/database.",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name of the study in the storage; default the suite's.")
]
Trials = Annotated[
    str | None, typer.Option("--trials", metavar="N,N", help="These trials; default: those on the front.")
]

study_app = typer.Typer(
    help="Search for good configurations with Optuna (a suite's `study:`).", no_args_is_help=True, rich_markup_mode=None
)


def _options(
    out: Out = None,
    storage: Storage = None,
    name: Name = None,
    overrides: Overrides = None,
    allow_plugins: AllowPlugins = False,
) -> StudyOptions:
    return StudyOptions(out, storage, name, overrides or (), allow_plugins)


@study_app.command()
@sharing(_options)
def run(
    suite: SuitePath,
    options: StudyOptions,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Processes on this machine.")] = 1,
) -> None:
    """Run a study, or go on with it. Exit code 0: complete, with a result; 1: not so; 2: bad suite; 130:
    interrupted.
    """
    from kfpbench.study.command import run_study

    raise typer.Exit(run_study(suite, options, workers))


@study_app.command()
@sharing(_options)
def worker(suite: SuitePath, options: StudyOptions) -> None:
    """Join a study with one more process, on this machine or, with a shared storage, on another."""
    from kfpbench.study.command import work_on

    raise typer.Exit(work_on(suite, options))


@study_app.command()
@sharing(_options)
def best(suite: SuitePath, options: StudyOptions, as_json: AsJson = False) -> None:
    """Show the best trial in each objective, and a compromise."""
    from kfpbench.study.opened import existing
    from kfpbench.study.views import show_best

    typer.echo(show_best(existing(suite, options), as_json))


@study_app.command()
@sharing(_options)
def front(
    suite: SuitePath,
    options: StudyOptions,
    as_json: AsJson = False,
    to: Annotated[
        Path | None, typer.Option("--suite", metavar="FILE", help="Write the front as a suite too; see export.")
    ] = None,
) -> None:
    """List the trials on the Pareto front."""
    from kfpbench.study.opened import existing
    from kfpbench.study.views import show_front

    opened = existing(suite, options)
    typer.echo(show_front(opened, as_json))
    if to is not None:
        from kfpbench.study.export import write_suite

        typer.echo(f"wrote {write_suite(opened, to)}", err=True)


@study_app.command()
@sharing(_options)
def export(
    suite: SuitePath,
    options: StudyOptions,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The suite to write.")],
    trials: Trials = None,
    keep_split: Annotated[
        bool, typer.Option("--keep-split", help="Keep the split and the seeds that the study was tuned on.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write the best configurations as a suite that `kfpbench run` accepts: on the test split, with other seeds."""
    from kfpbench.study.export import trial_numbers, write_suite
    from kfpbench.study.opened import existing

    opened = existing(suite, options)
    numbers = None if trials is None else trial_numbers(trials)
    typer.echo(f"wrote {write_suite(opened, to, numbers, keep_split=keep_split, overwrite=force)}")


@study_app.command()
@sharing(_options)
def importance(suite: SuitePath, options: StudyOptions, as_json: AsJson = False) -> None:
    """Show how much each parameter mattered to each objective."""
    from kfpbench.study.opened import existing
    from kfpbench.study.views import show_importance

    typer.echo(show_importance(existing(suite, options), as_json))


@study_app.command()
@sharing(_options)
def report(suite: SuitePath, options: StudyOptions) -> None:
    """Write study.html into the study's folder: front, hypervolume, importances, slices, all trials."""
    from kfpbench.study.opened import existing
    from kfpbench.study.report import write_study_report

    typer.echo(write_study_report(existing(suite, options)))
