from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.mixtures import PlanarMixture, RingMixture
from kfpbench.protocols import BoundScore, Problem, Process
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.scores.mixture import MixtureScore

CPU = torch.device("cpu")


def _score(dataset: Dataset, dtype: torch.dtype) -> BoundScore:
    """The exact score: the mixture's where the law is known, else the Gaussian's."""
    plugin = GaussianScore() if dataset.law is None else MixtureScore()
    return plugin.bind(dataset, CPU, dtype)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """Builds a problem on the CPU with the data set's exact score, whose counter starts at 0."""

    def make(dataset: Dataset, process: Process, dtype: torch.dtype = torch.float64, seed: int = 0) -> Problem:
        return Problem(dataset, process, _score(dataset, dtype), CPU, dtype, seed)

    return make


@pytest.fixture(scope="session")
def gaussian_data() -> Dataset:
    """Rows in three dimensions with a mean, and a covariance whose axes are not the coordinates'."""
    rng = np.random.default_rng(11)
    mixing = np.array([[1.5, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.4, 0.3, 0.2]])
    rows = (rng.standard_normal((500, 3)) @ mixing.T + np.array([1.0, -2.0, 0.5])).astype(np.float32)
    return Dataset("gauss", rows, rows[:0], rows[:0])


@pytest.fixture(scope="session")
def ring() -> Dataset:
    return RingMixture(train=20_000, validation=10, test=10).load()


@pytest.fixture(scope="session")
def planar() -> Dataset:
    return PlanarMixture(train=20_000, validation=10, test=10).load()
