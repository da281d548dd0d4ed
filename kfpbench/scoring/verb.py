"""The verb `score` of the command line: its options. It imports what it needs when it is called, so that --help and ls
stay fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kfpbench.cli_options import NoCache


def score(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_FOLDER", help="Samples: a .npz, a .npy, or a folder of PNG or JPEG images."),
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="NAME_OR_YAML", help="The data set: a name, YAML, or a YAML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAMETER=VALUE", help="A parameter of the data set.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="SPLIT", help="test (default), validation or train.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="LIST", help="As in frechet,kid[pca]; default: what suits the data."),
    ] = None,
    features: Annotated[
        str | None, typer.Option("--features", metavar="NAME", help="Default: cifar_cnn for 32x32 colour, else pca.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", metavar="N", help="Rows compared; default: as many as there are.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, max=2**63 - 1, help="Of rows and intervals.")] = 0,
    value_range: Annotated[
        str | None, typer.Option("--range", metavar="LOW,HIGH", help="Black and white, as in 0,255; default: decided.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Resize images of another size (bicubic, antialiased).")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write .json, .csv or .parquet.")] = None,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure anyone's samples with the metrics and intervals of a run, beside what held-out data would get."""
    from kfpbench.scoring.command import score as measure

    measure(
        path,
        data=data,
        overrides=overrides or (),
        reference=reference,
        metrics=metrics,
        features=features,
        n=n,
        seed=seed,
        value_range=value_range,
        resized=resize,
        out=out,
        no_cache=no_cache,
        as_json=as_json,
    )
