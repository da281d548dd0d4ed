"""How many threads a dense decomposition gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_PARALLEL_FROM = 3000  # order from which a second thread saves seconds on an idle machine


@contextmanager
def threads_for(order: int) -> Iterator[None]:
    """One thread for a decomposition of a small matrix, torch's number for a large one; restored afterwards.

    LAPACK's threads wait for each other at every column. Alone on a machine that gains up to a factor 2 at order 2,000;
    beside one other busy process it was measured to cost a factor 10 (eigh, order 2,000) to 100 (eig, order 600).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if order < _PARALLEL_FROM else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
