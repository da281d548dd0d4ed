from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem, Process
from kfpbench.scores.mixture import MixtureScore

PROCESSES = {
    "ve": VarianceExploding(0.3, 6.0),
    "vp": VariancePreserving(beta_max=8.0, t_min=0.05),
    "ou": OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0),
}


def problem_of(law: Mixture, process: Process, dtype: torch.dtype) -> Problem:
    """Data of that law with their exact score on the CPU; the rows are no part of it."""
    rows = law.sample(50, np.random.default_rng(0))
    data, cpu = Dataset("known", rows, rows, rows, law=law), torch.device("cpu")
    return Problem(data, process, MixtureScore().bind(data, cpu, dtype), cpu, dtype, 0)


@pytest.fixture(params=sorted(PROCESSES))
def process(request) -> Process:
    return PROCESSES[request.param]


@pytest.fixture(scope="session")
def gaussian() -> Mixture:
    """A Gaussian in three dimensions, with a mean, and axes that are not the coordinates'."""
    mixing = np.array([[1.4, 0.0, 0.0], [0.5, 0.7, 0.0], [-0.3, 0.2, 0.4]])
    return Mixture(np.ones(1), np.array([[1.0, -2.0, 0.5]]), (mixing @ mixing.T)[None])


@pytest.fixture(scope="session")
def line() -> Mixture:
    """Three modes on the line."""
    squares = np.square([0.5, 0.4, 0.6])
    return Mixture(np.array([0.5, 0.3, 0.2]), np.array([[-1.5], [0.5], [2.0]]), squares[:, None, None])


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    def make(law: Mixture, process: Process = PROCESSES["ve"], dtype: torch.dtype = torch.float64) -> Problem:
        return problem_of(law, process, dtype)

    return make


class Sampled:
    """A fitted sampler that is the given function of its noise."""

    def __init__(self, function) -> None:
        self.sample = function

    def describe(self):
        return {}


@pytest.fixture(scope="session")
def sampled() -> type[Sampled]:
    return Sampled
