"""The table of a run in common formats: one row per cell and metric, or one per cell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kfpbench.store.atomic import atomic_path, write_bytes
from kfpbench.store.run_folder import load_run

if TYPE_CHECKING:
    from pandas import DataFrame

_OF_METRIC = ("metric", "value", "ci_low", "ci_high", "n", "unit", "better", "features", "features_version", "resize")
_WIDE = {"value": "", "ci_low": ".ci_low", "ci_high": ".ci_high", "n": ".n"}


def wide_table(frame: DataFrame) -> DataFrame:
    """One row per cell: its columns, then ``M``, ``M.ci_low``, ``M.ci_high`` and ``M.n`` of every metric M.

    Columns without any value are left out. A cell without a result keeps its row.
    """
    import pandas as pd

    own = [column for column in frame.columns if column not in _OF_METRIC]
    table = frame.drop_duplicates("cell")[own].set_index("cell", drop=False)
    columns = {}
    for metric in dict.fromkeys(frame["metric"].dropna()):
        rows = frame[frame["metric"] == metric].set_index("cell")
        for column, ending in _WIDE.items():
            if rows[column].notna().any():
                columns[f"{metric}{ending}"] = rows[column].reindex(table.index)
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1).reset_index(drop=True)


def export_run(folder: str | os.PathLike[str], path: Path, form: str, *, wide: bool = False) -> int:
    """Write the table of a run as ``form`` (csv, parquet or json), atomically; returns how many rows it has.

    CSV has a header, commas and UTF-8, an empty field for what is not there; JSON is a list of objects with null for
    it. The path ``-`` is the standard output (csv, json). Raises StoreError for a folder without a run, and a path that
    cannot be written.
    """
    frame = load_run(folder)
    if wide:
        frame = wide_table(frame)
    to_output = str(path) == "-" and form != "parquet"
    if form == "parquet":
        with atomic_path(path) as temporary:
            frame.to_parquet(temporary, index=False)
        return len(frame)
    if form == "csv":
        text = frame.to_csv(index=False, lineterminator="\n")
    else:
        text = json.dumps(json.loads(frame.to_json(orient="records", double_precision=15)), indent=1) + "\n"
    if to_output:
        import typer

        typer.echo(text, nl=False)
    else:
        write_bytes(path, text.encode())
    return len(frame)
