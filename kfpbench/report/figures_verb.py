"""The verb figures of the command line: its options. What it needs is imported when it is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """The formats of a figure."""

    pdf = "pdf"
    svg = "svg"
    png = "png"


def figures(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where they go; default RUN/figures.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="The format of the files.")] = Form.pdf,
    samples: Annotated[
        list[str] | None,
        typer.Option("--samples", metavar="CELL", help="Draw first images of this cell alone; may be repeated."),
    ] = None,
) -> None:
    """Write figures for papers out of a run: front, ablation, phases, spectra; a file each (extra `figures`). Or, by
    --samples, one sheet of images with a row for each of these cells.
    """
    from kfpbench.report.paper_figures import write_figures
    from kfpbench.report.sample_sheet import write_sample_sheet
    from kfpbench.store.run_folder import RunFolder

    finished = RunFolder.open(run)
    folder = out if out is not None else finished.path / "figures"
    if samples:
        typer.echo(write_sample_sheet(finished, samples, folder, form.value))
        return
    paths = write_figures(finished.records(), folder, form.value)
    for path in paths:
        typer.echo(path)
    if not paths:
        typer.echo("The run has no numbers for a figure.", err=True)
