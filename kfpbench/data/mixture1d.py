"""Gaussian mixtures on the line: their quantile function is computable, and so Wasserstein distances are."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from kfpbench.data.dataset import Dataset, Mixture, Reference
from kfpbench.data.mixtures import Rows, Seed, draw_splits, require_positive
from kfpbench.errors import ParameterError

Positives = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


class LineMixture:
    """sum_k w_k N(m_k, s_k^2) on the line, with ``weights`` w_k divided by their sum.

    The default has three overlapping modes of unequal weight and width. Rows are (n, 1); the law is known, so that the
    score ``mixture`` and the metric ``exact_w2`` apply. ``load`` costs O(n). Raises ParameterError for lists of unequal
    length or numbers out of range.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"train": 500, "validation": 50, "test": 50},)

    def __init__(
        self,
        weights: Positives = (0.5, 0.3, 0.2),
        means: Annotated[tuple[float, ...], Field(min_length=1)] = (-1.5, 0.5, 2.0),
        stds: Positives = (0.5, 0.4, 0.6),
        train: Rows = 20_000,
        validation: Rows = 2_000,
        test: Rows = 50_000,
        seed: Seed = 0,
    ) -> None:
        """Raises ParameterError for lists of unequal lengths, or weights and deviations that are not positive."""
        require_positive("mixture1d", seed, train=train, validation=validation, test=test)
        lengths = len(weights), len(means), len(stds)
        if not (lengths[0] == lengths[1] == lengths[2] >= 1):
            raise ParameterError(
                "weights, means and stds must be equally many",
                got=lengths,
                allowed="one of each for every component",
                where="data set 'mixture1d'",
            )
        for name, values in (("weights", weights), ("stds", stds)):
            if not all(0 < value < math.inf for value in values):
                raise ParameterError(
                    f"{name} must be positive and finite", got=tuple(values), where="data set 'mixture1d'"
                )
        self.weights, self.means, self.stds = tuple(weights), tuple(means), tuple(stds)
        self.train, self.validation, self.test, self.seed = train, validation, test, seed

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, 1) of the data set as loaded, or with ``reference`` "test" of ``for_reference("test")``."""
        return self.train + (self.validation if reference == "test" else 0), 1

    def load(self) -> Dataset:
        """Draw the three splits from the law, each from a random stream of its own."""
        weights = np.array(self.weights) / math.fsum(self.weights)
        law = Mixture(weights, np.array(self.means)[:, None], np.square(self.stds)[:, None, None])
        source = f"mixture of {len(weights)} Gaussians on the line"
        return draw_splits("mixture1d", source, law, (self.train, self.validation, self.test), self.seed)
