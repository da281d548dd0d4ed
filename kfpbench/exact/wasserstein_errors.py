"""The Wasserstein-2 errors of a sampler against the law of its data, and their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kfpbench.data.dataset import Mixture
from kfpbench.errors import CapabilityError
from kfpbench.protocols import Problem


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
