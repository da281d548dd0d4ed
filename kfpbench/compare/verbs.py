"""The verb `compare` of the command line: its options. It imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kfpbench.cli_options import AsJson


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The run folder to compare with: the base.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The run folder that is compared.")],
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="LIST", help="As in frechet,coverage; default: all.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="LIMITS",
            help="Exit code 1 where B is surely worse by more, as in regression=5%,frechet=10%,missing.",
        ),
    ] = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List also what has not changed.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
) -> None:
    """Compare two runs: matched cells, paired differences with intervals, what got worse first.

    Exit code 0: compared, and no limit of --fail-on is passed; 1: one is; 2: the runs cannot be read or judged.
    """
    from kfpbench.compare.command import compare as compare_folders

    raise typer.Exit(
        compare_folders(
            a,
            b,
            metrics=metrics,
            fail_on=fail_on or (),
            as_json=as_json,
            markdown=markdown,
            everything=everything,
            out=out,
        )
    )
