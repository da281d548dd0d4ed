"""The exact Wasserstein-2 errors of a sampler, in closed form or by quantile functions."""

from __future__ import annotations

from kfpbench.errors import CapabilityError
from kfpbench.exact.gaussian_w2 import gaussian_errors
from kfpbench.exact.mixture_w2_1d import line_errors
from kfpbench.exact.wasserstein_errors import WassersteinErrors, known_law
from kfpbench.protocols import FittedSampler, Problem


def exact_errors(sampler: FittedSampler, problem: Problem, max_rows: int = 20_000) -> WassersteinErrors:
    """The errors by whichever way is open: closed form for Gaussian data, quantile functions in one dimension.

    Raises CapabilityError, with the reason, when neither is.
    """
    law = known_law(problem)
    if problem.dataset.dimension > 1:
        return gaussian_errors(sampler, problem, max_rows)
    if len(law.weights) > 1:
        return line_errors(sampler, problem)
    try:
        return gaussian_errors(sampler, problem, max_rows)
    except CapabilityError:
        return line_errors(sampler, problem)
