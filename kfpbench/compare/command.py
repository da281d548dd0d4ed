"""What `kfpbench compare` does: compare two run folders, print or write the result, and tell the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from kfpbench.compare.compare_runs import compare_runs
from kfpbench.compare.gate import read_limits
from kfpbench.compare.tables import as_markdown, as_text
from kfpbench.store.atomic import write_bytes


def compare(
    a: Path,
    b: Path,
    *,
    metrics: str | None,
    fail_on: Sequence[str],
    as_json: bool,
    markdown: bool,
    everything: bool,
    out: Path | None,
) -> int:
    """Print the comparison, or write it to ``out``; the exit code is 1 when the gate fails. Raises KfpbenchError."""
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    result = compare_runs(a, b, metrics=names, limits=read_limits(fail_on))
    if as_json:
        text = json.dumps(result.as_json(), indent=2, allow_nan=False) + "\n"
    elif markdown:
        text = as_markdown(result, everything=everything)
    else:
        text = "\n".join(as_text(result, everything=everything)) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
    return result.exit_code
