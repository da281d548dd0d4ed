"""``--pdb``: Python's debugger where a cell has failed, before the failure is recorded."""

from __future__ import annotations

import pdb
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from kfpbench.errors import BudgetError, CapabilityError, CellTimeout
from kfpbench.runner.sample_cell import Outcome
from kfpbench.suite.cell import Cell

_EXPECTED = (CapabilityError, BudgetError, CellTimeout)  # these skip a cell, or end it at its limit


@contextmanager
def post_mortem(cell: Cell, outcome: Outcome) -> Iterator[None]:
    """A hook for `execute.run`: opens the debugger on an unexpected exception inside the cell.

    `continue` records the failure and goes on with the next cell; `quit` ends the run, and the cell counts as not run.
    """
    try:
        yield
    except _EXPECTED:
        raise
    except (Exception, SystemExit) as error:
        print(f"{cell.label} ({cell.id}): {type(error).__name__}: {error}", file=sys.stderr)
        if debug(error.__traceback__):
            raise KeyboardInterrupt from error
        raise


def debug(trace: TracebackType | None) -> bool:
    """Let the user look around, on standard error; True when the user has quit, False to go on."""
    debugger = pdb.Pdb(stdout=sys.stderr)
    debugger.reset()
    debugger.interaction(None, trace)
    return bool(debugger.quitting)
