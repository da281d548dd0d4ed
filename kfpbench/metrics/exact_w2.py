"""Exact Wasserstein-2 errors of the sampler itself, where its law is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.metrics.inputs import Direction, check_input
from kfpbench.protocols import Measurement

if TYPE_CHECKING:
    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {
    "exact_w2": "lower",
    "exact_w2_data": "lower",
    "exact_w2_discretisation": "lower",
    "exact_w2_initialisation": "lower",
}


class ExactWasserstein:
    """W2 between the law of the sampler, with no samples between, and the law of the data.

    ``exact_w2``: to p at t_min, the target of every sampler. ``exact_w2_data``: to the data, smoothing included.
    ``exact_w2_discretisation``: to p at t_min, for the same sampler begun at p at t_max. ``exact_w2_initialisation``:
    between the sampler's own law and that one; the first is at most the sum of the last two. The data's units. Exact to
    ``details["accuracy"]``, which dtype float64 makes small; so there is no interval, and n plays no part.

    Gaussian data: any sampler that is an affine map of its noise, with or without noise on the way, in any dimension,
    by kfpbench.exact.gaussian_w2. One dimension: any sampler without noise on the way, by kfpbench.exact.mixture_w2_1d.
    Cost: some rows through the sampler (there), at most ``max_rows`` for the first.

    Raises CapabilityError with the reason for other data and samplers: the cell's other metrics are taken all the same.
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(self, max_rows: Annotated[int, Field(ge=1)] = 20_000) -> None:
        if max_rows < 1:
            raise ParameterError("max_rows must be at least 1", got=max_rows, where="exact_w2")
        self.max_rows = max_rows

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Four measurements, those of ``outputs``; the last two are missing for a sampler that does not use draw 0."""
        from kfpbench.exact.exact_errors import exact_errors

        check_input(data)
        if data.sampler is None or data.problem is None:
            raise CapabilityError(
                "exact_w2 looks at the sampler, and was given samples alone",
                remedy="Run a suite, or call kfpbench.exact.exact_errors.exact_errors(sampler, problem).",
            )
        found = exact_errors(data.sampler, data.problem, self.max_rows)
        dtype = str(data.problem.dtype).removeprefix("torch.")
        details = {**found.details, "accuracy": found.accuracy, "dtype": dtype, "range": [0.0, None]}
        values = (found.total, found.data, found.discretisation, found.initialisation)
        return [
            Measurement(name, value, details=details)
            for name, value in zip(OUTPUTS, values, strict=True)
            if value is not None
        ]
