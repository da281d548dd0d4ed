"""Sampling is a fixed number of tensor operations: as many for 300 rows as for 3,000, for 5 eigenpairs as for 40.

A loop over samples or over eigenfunctions would show in the count. What may differ with the rows is left out of reach:
all parts of `partitioned` are drawn from at both sizes, and both are one tile of the kernel products.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.samplers.density import Density
from kfpbench.samplers.jump import Jump
from kfpbench.samplers.koopman import Koopman
from kfpbench.samplers.partitioned import Partitioned
from kfpbench_baselines.dpmpp_2m import DPMSolverPP2M

CPU = torch.device("cpu")


class Count(TorchDispatchMode):
    """The number of tensor operations that torch was asked for."""

    operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.operations += 1
        return function(*arguments, **(keywords or {}))


def _koopman(rank, **operator):
    return Koopman(operator=GeneratorOptions(segments=3, points=120, **operator), rank=rank)


SAMPLERS = {
    "koopman, eta 0": lambda rank: _koopman(rank),
    "koopman, eta 0.5": lambda rank: _koopman(rank, eta=0.5),
    "koopman, eta 1, posterior": lambda rank: _koopman(rank, eta=1.0, frame="posterior"),
    "koopman, kernel covariance": lambda rank: Koopman(
        operator=GeneratorOptions(segments=3, points=120, eta=1.0), rank=rank, covariance="kernel"
    ),
    "density": lambda rank: Density(operator=GeneratorOptions(segments=2, points=120, eta=1.0), rank=rank),
    "density, local": lambda rank: Density(
        operator=GeneratorOptions(segments=2, points=120), rank=rank, smoothing="local_low_rank", clusters=3
    ),
    "jump": lambda rank: Jump(start=_koopman(rank), refiner=DPMSolverPP2M(steps=3), sigma_star=1.0),
    "partitioned": lambda rank: Partitioned(sampler=_koopman(rank), parts=2),
}


def operations(fitted, rows: int) -> int:
    noise = NoiseStream.of_range(3, 0, rows, 2, CPU, torch.float64)
    with Count() as count:
        x = fitted.sample(noise)
    assert x.shape == (rows, 2)
    return count.operations


@pytest.mark.parametrize("name", SAMPLERS)
def test_as_many_for_more_rows_and_for_more_eigenpairs(make_problem, ring, name):
    problem = make_problem(ring, VarianceExploding(0.05, 20.0))
    few, many = (SAMPLERS[name](rank).fit(problem) for rank in (5, 40))
    counts = {(rank, rows): operations(fitted, rows) for rank, fitted in ((5, few), (40, many)) for rows in (300, 3000)}
    assert len(set(counts.values())) == 1, counts
    assert 0 < counts[5, 300] < 5000


def test_a_loop_over_rows_is_counted():
    """The counter itself: what it would say of a sampler that goes row by row."""
    x = torch.ones(300, 2)
    with Count() as whole:
        _ = 2.0 * x
    with Count() as rows:
        _ = [2.0 * row for row in x]
    assert whole.operations == 1
    assert rows.operations > 300
