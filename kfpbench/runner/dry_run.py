"""What a run would do: its cells with their predicted memory, without reading any data."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kfpbench.errors import KfpbenchError
from kfpbench.runner.materials import predict_memory
from kfpbench.runner.progress import describe
from kfpbench.suite.cell import Cell
from kfpbench.suite.loaded import Suite
from kfpbench.suite.select import select_cells

_GIB = 2**30


def plan_as_text(suite: Suite, select: Sequence[str] = ()) -> str:
    """One line a cell: id, predicted memory, description."""
    cells = select_cells(suite.cells, select) if select else suite.cells
    lines = []
    for cell in cells:
        predicted, reason = _predict(cell)
        shown = "      ?" if predicted is None else f"{predicted / _GIB:7.2f}"
        lines.append(f"{cell.id}  {shown} GiB  {describe(cell)}" + (f"  {reason}" if reason else ""))
    return "\n".join([f"{len(lines)} cells; predicted peak memory of each:", *lines])


def plan_as_json(suite: Suite, select: Sequence[str] = ()) -> str:
    """The same as JSON, with the canonical spec of every cell."""
    cells = select_cells(suite.cells, select) if select else suite.cells
    fields = ("id", "index", "kind", "label", "axes", "repeat", "seed", "spec")
    plan = []
    for cell in cells:
        predicted, reason = _predict(cell)
        known = {name: getattr(cell, name) for name in fields}
        plan.append({**known, "predicted_memory_bytes": predicted, "reason": reason})
    return json.dumps({"cells": plan}, indent=2)


def _predict(cell: Cell) -> tuple[int | None, str]:
    """The predicted bytes; or None and the reason, for a cell whose components cannot tell: it does not hide others."""
    try:
        return predict_memory(cell), ""
    except KfpbenchError as error:  # such as a CapabilityError, with which the cell would be skipped
        return None, str(error)
    except Exception as error:  # a plugin may fail in any way; its cell says so, and the others are listed
        return None, f"{type(error).__name__}: {error}"
