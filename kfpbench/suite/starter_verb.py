"""The verb `init` of the command line: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _data_sets(incomplete: str) -> list[str]:
    from kfpbench.suite.starter import DATA

    return [name for name in DATA if name.startswith(incomplete)]


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The suite to write.")] = Path("suite.yaml"),
    data: Annotated[
        str,
        typer.Option("--data", metavar="NAME", help="digits, gmm_ring or cifar10.", autocompletion=_data_sets),
    ] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a suite with comments, ready to run and to be changed, and say how to run it."""
    import shlex

    from kfpbench.suite.starter import write_starter

    write_starter(file, data, overwrite=force)
    typer.echo(f"wrote {file}; next:\n  kfpbench run {shlex.quote(str(file))}")
