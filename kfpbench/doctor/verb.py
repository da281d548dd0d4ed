"""The verb `doctor` as the command line shows it; the checks are imported when it is called."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Annotated[str | None, typer.Option("--data", metavar="NAME", help="Load this data set whole, too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compile nothing.")] = False,
) -> None:
    """Check this machine and installation: Python, torch, CUDA, KeOps, data, weights, plugins, disk, threads, clock.

    Every finding is ok, a warning or a problem, the latter two with a fix. Exit code 0: no problem; 1: some.
    """
    from kfpbench.doctor.command import diagnose
    from kfpbench.doctor.finding import Scope

    if data is not None:
        from kfpbench.registry import find

        find("datasets", data)  # a mistyped name is an error of usage, not of the machine
    raise typer.Exit(diagnose(Scope(quick=quick, data=data), json_wanted=as_json))
