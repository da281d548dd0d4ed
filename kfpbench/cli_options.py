"""Options that several verbs share, as typer reads them from annotations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kfpbench.cli_completion import selections, suite_files

SuitePath = Annotated[
    Path, typer.Argument(metavar="SUITE", help="A suite file (YAML).", autocompletion=suite_files, show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a value; may be repeated.")
]
AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Permit running the Python files under `plugins:`.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Run folder; default reports/runs/<name>.")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select", metavar="KEY=VALUE", help="Run only these cells; may be repeated.", autocompletion=selections
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed and timed-out cells of an earlier run again.")
]
Force = Annotated[bool, typer.Option("--force", help="Run every cell again.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Read and keep nothing in the cache of costly results; see `cache`.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells with their predicted memory; run nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Show the log; -vv shows more of it.")
]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", metavar="FILE", help="Append the whole log to a file, with times.")
]
Debug = Annotated[bool, typer.Option("--pdb", help="Open the debugger where a cell fails unexpectedly.")]
Profile = Annotated[
    bool, typer.Option("--profile", help="Write a profile of every cell into the run folder; cells run slower.")
]
ExecutorName = Annotated[
    str,
    typer.Option("--executor", metavar="NAME", help="Where cells run: serial, processes or dask; see docs/scaling.md."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Processes, or workers of a local Dask cluster.")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Dask scheduler, such as tcp://head:8786.")
]
Isolate = Annotated[bool, typer.Option("--isolate", help="A process of its own for every cell.")]
ShareDevice = Annotated[
    bool, typer.Option("--share-device", help="Several cells at once on one device; their times are marked as loaded.")
]


def sharing(options: Callable[..., object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A verb with a parameter ``options`` takes those of the function ``options`` in its place, and is given their
    result.

    typer reads what a verb takes from its signature; several verbs with the same options would repeat them all.
    """
    shared = inspect.signature(options, eval_str=True).parameters

    def share(verb: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(verb, eval_str=True).parameters

        @functools.wraps(verb)
        def command(**given: Any) -> None:
            made = options(**{name: given.pop(name) for name in shared})
            verb(**given, options=made)

        taken = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own.values()
            for one in (shared.values() if parameter.name == "options" else [parameter])
        ]
        command.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in taken}
        return command

    return share
