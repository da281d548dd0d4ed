"""A Gaussian with a chosen spectrum: data for which every solver with the exact score has a known law."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from kfpbench.data.dataset import Dataset, Mixture, Reference
from kfpbench.data.mixtures import Rows, Seed, draw_splits, require_positive
from kfpbench.errors import ParameterError


class Gaussian:
    """N(mu, U diag(lam) U^T): lam_i = std^2 condition^(-(i-1)/(d-1)), i = 1, ..., d, random axes U, mean of norm
    ``offset``.

    ``std`` is the largest standard deviation and ``condition`` the ratio of the largest variance to the smallest; with
    d = 1 there is one variance, std^2. U is uniform on the orthogonal group and mu on the sphere: functions of
    ``law_seed`` alone, while ``seed`` draws the rows. Its law is a mixture of one component, so the score ``mixture``
    is exact; the score ``gaussian`` is that of the training rows' moments. Cost of loading O(n d^2 + d^3).
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"train": 500, "validation": 50, "test": 50},)

    def __init__(
        self,
        dimension: Annotated[int, Field(ge=1, le=4096)] = 8,
        std: Annotated[float, Field(gt=0)] = 1.0,
        condition: Annotated[float, Field(ge=1)] = 100.0,
        offset: Annotated[float, Field(ge=0)] = 1.0,
        train: Rows = 20_000,
        validation: Rows = 2_000,
        test: Rows = 50_000,
        law_seed: Seed = 0,
        seed: Seed = 0,
    ) -> None:
        """Raises ParameterError when a parameter is out of range."""
        require_positive(
            "gaussian",
            min(seed, law_seed),
            dimension=dimension,
            std=std,
            train=train,
            validation=validation,
            test=test,
        )
        for name, value, least in (("condition", condition, 1.0), ("offset", offset, 0.0)):
            if not least <= value < math.inf:
                raise ParameterError(
                    f"{name} out of range", got=value, allowed=f"from {least:g}", where="data set 'gaussian'"
                )
        self.dimension, self.std, self.condition, self.offset = dimension, std, condition, offset
        self.train, self.validation, self.test = train, validation, test
        self.law_seed, self.seed = law_seed, seed

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of ``for_reference("test")``."""
        return self.train + (self.validation if reference == "test" else 0), self.dimension

    def load(self) -> Dataset:
        """Draw the law, then the three splits from it, each from a random stream of its own."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.law_seed)))
        d = self.dimension
        upper, triangle = np.linalg.qr(rng.standard_normal((d, d)))
        axes = upper * np.sign(np.diag(triangle))  # uniform (Mezzadri 2007)
        mean = rng.standard_normal(d)
        mean *= self.offset / np.linalg.norm(mean)
        variances = self.std**2 * np.logspace(0.0, -np.log10(self.condition), d)
        covariance = (axes * variances) @ axes.T
        law = Mixture(np.ones(1), mean[None, :], (covariance + covariance.T)[None] / 2)
        source = f"Gaussian in {d} dimensions, variances {variances[0]:.3g} to {variances[-1]:.3g}"
        source += f", law seed {self.law_seed}"
        return draw_splits("gaussian", source, law, (self.train, self.validation, self.test), self.seed)
