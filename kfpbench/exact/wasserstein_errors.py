"""The Wasserstein-2 errors of a sampler against the law of its data, and their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kfpbench.data.dataset import Mixture
from kfpbench.errors import CapabilityError
from kfpbench.protocols import FittedSampler, Problem


@dataclass(frozen=True)
class WassersteinErrors:
    """W2 distances between four laws: what the sampler draws, X; what it would draw from p at t_max, Y; the target p at
    t_min; and the data.

    ``total`` W2(X, p), ``data`` W2(X, data), ``discretisation`` W2(Y, p), ``initialisation`` W2(X, Y): total is at most
    the sum of the last two. The last two are None for a sampler that does not use draw 0. ``accuracy`` bounds the
    numerical error of each, as far as it was measured.
    """

    total: float
    data: float
    discretisation: float | None
    initialisation: float | None
    accuracy: float
    details: dict[str, Any] = field(default_factory=dict)


def exact_errors(sampler: FittedSampler, problem: Problem, max_rows: int = 20_000) -> WassersteinErrors:
    """The errors by whichever way is open: closed form for Gaussian data, quantile functions in one dimension.

    Raises CapabilityError, with the reason, when neither is.
    """
    from kfpbench.exact.gaussian_w2 import gaussian_errors
    from kfpbench.exact.mixture_w2_1d import line_errors

    law = known_law(problem)
    if problem.dataset.dimension > 1:
        return gaussian_errors(sampler, problem, max_rows)
    if len(law.weights) > 1:
        return line_errors(sampler, problem)
    try:
        return gaussian_errors(sampler, problem, max_rows)
    except CapabilityError:
        return line_errors(sampler, problem)


def known_law(problem: Problem) -> Mixture:
    """The law of the data. Raises CapabilityError where it is not known."""
    law = problem.dataset.law
    if law is None:
        raise CapabilityError(
            "the law of the data is not known: there is no exact Wasserstein distance to it",
            got=problem.dataset.name,
            allowed="a data set with a law, such as gaussian or mixture1d",
        )
    return law
