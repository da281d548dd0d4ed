"""Whether the reference rows are held-out rows at all: measures of memorisation compare with them."""

from __future__ import annotations

import numpy as np

from kfpbench.errors import NumericalError
from kfpbench.metrics.nearest_rows import Nearest

_COPY = 1e-4  # of the distance to the second nearest training row: what rounding of features leaves of 0


def check_held_out(reference: Nearest, name: str, where: str) -> None:
    """Refuse a reference of which half or more are training rows: copies would look like held-out data.

    ``reference`` is what the search found for its rows. A row is taken for a training row where its distance D to the
    nearest one is less than 1e-4 of that to the second nearest: 0 but for the rounding of features. No held-out data
    come near: for independent rows of a continuous law in d dimensions the median of D / D_2 is about 2^(-1/d) >= 1/2.
    Raises NumericalError.
    """
    share = float(np.mean(reference.closeness() <= _COPY))
    if share >= 0.5:
        raise NumericalError(
            "the reference consists of training rows, so there is no held-out distance to compare with",
            got=f"{share:.0%} of the rows",
            allowed="less than half",
            remedy=f"Check that the {name} rows are not training rows.",
            where=where,
        )
