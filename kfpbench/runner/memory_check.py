"""Compare a cell's predicted memory with its budget, or with the machine's, before it starts."""

from __future__ import annotations

import logging

from kfpbench.errors import BudgetError
from kfpbench.runner.budget import check_memory
from kfpbench.runner.materials import choose_device, predict_memory
from kfpbench.runner.memory import available_bytes, total_bytes
from kfpbench.suite.cell import Cell

_GIB = 2**30
_log = logging.getLogger(__name__)


def check_prediction(cell: Cell) -> str:
    """A note where little memory is free for the cell, else ''.

    A budget decides alone: BudgetError where more is predicted. Without one a cell is refused (BudgetError) only where
    more is predicted than the whole machine, its container or the device has. What is free at the moment may be more in
    the next: a cell that is predicted to need more than that runs, with a warning and a note. Raises CapabilityError
    for an absent device.
    """
    what = f"cell {cell.label}"
    limit = cell.spec["budget"]["memory_gib"]
    predicted = predict_memory(cell)
    if limit is not None:
        check_memory(predicted, int(limit * _GIB), what)
        return ""
    device = choose_device(cell.spec["device"])
    total = total_bytes(device)
    if total is not None and predicted > total:
        place = "this machine" if device.type == "cpu" else str(device)
        raise BudgetError(
            f"{what} would need more memory than {place} has",
            got=f"{predicted / _GIB:.2f} GiB predicted",
            allowed=f"at most {total / _GIB:.2f} GiB",
            remedy="Take fewer points, a smaller batch or a lazy backend; or state budget.memory_gib, which then "
            "decides alone.",
        )
    free = available_bytes(device)
    if free is None or predicted <= free:
        return ""
    note = f"predicted memory {predicted / _GIB:.2f} GiB, of which {free / _GIB:.2f} GiB were free when it started"
    _log.warning("%s: %s", what, note)
    return note
