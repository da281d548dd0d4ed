"""What a run would do: its cells with their predicted memory, without reading any data."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kfpbench.runner.materials import predict_memory
from kfpbench.runner.progress import describe
from kfpbench.suite.load import Suite
from kfpbench.suite.select import select_cells

_GIB = 2**30


def plan_as_text(suite: Suite, select: Sequence[str] = ()) -> str:
    """One line a cell: id, predicted memory, description."""
    cells = select_cells(suite.cells, select) if select else suite.cells
    lines = [f"{cell.id}  {predict_memory(cell) / _GIB:7.2f} GiB  {describe(cell)}" for cell in cells]
    return "\n".join([f"{len(lines)} cells; predicted peak memory of each:", *lines])


def plan_as_json(suite: Suite, select: Sequence[str] = ()) -> str:
    """The same as JSON, with the canonical spec of every cell."""
    cells = select_cells(suite.cells, select) if select else suite.cells
    fields = ("id", "index", "kind", "label", "axes", "repeat", "seed", "spec")
    plan = [
        {**{name: getattr(cell, name) for name in fields}, "predicted_memory_bytes": predict_memory(cell)}
        for cell in cells
    ]
    return json.dumps({"cells": plan}, indent=2)
