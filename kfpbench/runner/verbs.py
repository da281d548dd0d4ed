"""The verbs `run` and `spectrum` of the command line: their options. What runs is imported when they are called."""

from __future__ import annotations

import typer

from kfpbench.cli_options import (
    AllowPlugins,
    AsJson,
    Debug,
    DryRun,
    ExecutorName,
    Force,
    Isolate,
    LogFile,
    NoCache,
    Out,
    Overrides,
    Profile,
    RetryFailed,
    Scheduler,
    Select,
    ShareDevice,
    SuitePath,
    Verbose,
    Workers,
    sharing,
)
from kfpbench.runner.run_options import RunOptions


def _options(
    out: Out = None,
    overrides: Overrides = None,
    select: Select = None,
    allow_plugins: AllowPlugins = False,
    retry_failed: RetryFailed = False,
    force: Force = False,
    no_cache: NoCache = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    verbosity: Verbose = 0,
    log_file: LogFile = None,
    debug: Debug = False,
    profile: Profile = False,
    executor: ExecutorName = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    isolate: Isolate = False,
    share_device: ShareDevice = False,
) -> RunOptions:
    from kfpbench.runner.executor_options import ExecutorOptions

    return RunOptions(
        out=out,
        overrides=overrides or (),
        select=select or (),
        allow_plugins=allow_plugins,
        retry_failed=retry_failed,
        force=force,
        no_cache=no_cache,
        dry_run=dry_run,
        as_json=as_json,
        verbosity=verbosity,
        log_file=log_file,
        debug=debug,
        profile=profile,
        executor=ExecutorOptions(executor, workers, scheduler, isolate, share_device),
    )


@sharing(_options)
def run(suite: SuitePath, options: RunOptions) -> None:
    """Run a suite. Exit code 0: all cells ok or skipped; 1: some failed; 2: bad suite; 130: interrupted."""
    from kfpbench.runner.settled_run import settled_run

    if (settled := settled_run(suite, options)) is not None:
        typer.echo(settled.text)
        raise typer.Exit(settled.exit_code)
    from kfpbench.runner.command import run_suite

    raise typer.Exit(run_suite(suite, options))


@sharing(_options)
def spectrum(suite: SuitePath, options: RunOptions) -> None:
    """Run only the spectrum cells of a suite: print their eigenvalues, and plot them with their eigenfunctions into the
    report. Exit codes as of run.
    """
    from kfpbench.runner.command import run_suite

    raise typer.Exit(run_suite(suite, options, spectra_only=True))
