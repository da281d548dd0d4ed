from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.protocols import Problem, Process
from kfpbench.scores.gaussian import GaussianScore


@pytest.fixture(scope="session")
def gaussian_data() -> Dataset:
    """Rows in two dimensions with a mean, and a covariance whose axes are not the coordinates'."""
    rng = np.random.default_rng(12)
    mixing = np.array([[1.2, 0.0], [0.5, 0.6]])
    rows = (rng.standard_normal((400, 2)) @ mixing.T + np.array([1.0, -2.0])).astype(np.float32)
    return Dataset("gauss", rows, rows[:0], rows[:0])


@pytest.fixture(scope="session")
def gaussian_problem(gaussian_data) -> Callable[..., Problem]:
    """Gaussian data with their exact score on the CPU: every flow is affine."""

    def make(process: Process, dtype: torch.dtype = torch.float64) -> Problem:
        cpu = torch.device("cpu")
        return Problem(gaussian_data, process, GaussianScore().bind(gaussian_data, cpu, dtype), cpu, dtype, 0)

    return make
