"""The verb `time` of the command line: its options. What runs is imported when it is called."""

from __future__ import annotations

import typer

from kfpbench.cli_options import AllowPlugins, AsJson, Force, NoCache, Out, Overrides, Select, SuitePath


def time(
    suite: SuitePath,
    out: Out = None,
    overrides: Overrides = None,
    select: Select = None,
    allow_plugins: AllowPlugins = False,
    force: Force = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Time the samplers of a suite that was run, in turns (A B C C B A), for speed-ups with intervals.

    Writes timing.json into the run folder, and the report again. Exit code 1: no two samplers could be compared;
    130: interrupted, the times taken are kept.
    """
    from kfpbench.runner.time_command import time_command

    raise typer.Exit(
        time_command(
            suite,
            out,
            overrides=overrides or (),
            select=select or (),
            allow_plugins=allow_plugins,
            force=force,
            no_cache=no_cache,
            as_json=as_json,
        )
    )
