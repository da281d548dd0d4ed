"""Eigenfunctions sampled for figures: the known ones of Ornstein-Uhlenbeck processes come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench.data.potentials import LinearSDE, OrnsteinUhlenbeck, RotatingOU
from kfpbench.eigensolvers.spectrum_task import SpectrumTask
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.runner.eigenfunction_grid import function_grid

CPU, F64 = torch.device("cpu"), torch.float64


def solved(problem, count: int, n_eigs: int = 6, sampling="quadrature"):
    operator = GeneratorOptions(eta=1.0, time="frozen", points=count)
    task = SpectrumTask(RBF(bandwidth=6.0), operator=operator, n_eigs=n_eigs, sampling=sampling)
    return task.solve_reference(problem, 0, CPU, F64)


def test_one_dimension_has_the_hermite_polynomials() -> None:
    problem = OrnsteinUhlenbeck()
    spectrum = solved(problem, 200)
    grid = function_grid(spectrum, problem.log_density)
    assert grid is not None
    (x,) = grid.axes
    assert grid.values.shape == (len(grid.modes), 200)
    assert grid.modes[:2] == (1, 2)  # the constant function is left out
    # of norm 1 in L2(N(0, 1)): x and (x^2 - 1) / sqrt 2, positive where largest
    assert min(np.abs(grid.values[0] - x).max(), np.abs(grid.values[0] + x).max()) < 0.01
    np.testing.assert_allclose(grid.values[1], (x**2 - 1) / np.sqrt(2), atol=0.05)
    assert grid.values[1].max() == np.abs(grid.values[1]).max()
    assert grid.density is not None
    np.testing.assert_allclose(grid.density, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), rtol=1e-12)


def test_the_grid_spans_the_weight_and_not_the_tails_of_the_quadrature() -> None:
    spectrum = solved(OrnsteinUhlenbeck(), 400)
    assert float(spectrum.points.abs().max()) > 8
    grid = function_grid(spectrum)
    assert grid is not None
    assert grid.density is None
    # 0.1 % of N(0, 1) lies beyond 3.09, and the grid's step is 0.043
    assert abs(grid.axes[0][0] + 3.09) < 0.05
    assert abs(grid.axes[0][-1] - 3.09) < 0.05


def test_two_dimensions_show_a_conjugate_pair_once() -> None:
    problem = RotatingOU()
    grid = function_grid(solved(problem, 400), problem.log_density)
    assert grid is not None
    assert [len(axis) for axis in grid.axes] == [40, 40]
    assert grid.values.shape == (3, 40, 40)
    assert grid.modes[0] == 1
    assert 2 not in grid.modes
    assert grid.density is not None
    assert grid.density.shape == (40, 40)
    # the first pair is linear: its real part vanishes on a line through the origin and is odd
    np.testing.assert_allclose(grid.values[0], -grid.values[0][::-1, ::-1], atol=0.01)


def test_more_dimensions_have_no_figure() -> None:
    assert function_grid(solved(LinearSDE(), 200, sampling="draws")) is None


@pytest.mark.parametrize("n_eigs", [1, 9])
def test_how_many_there_are(n_eigs: int) -> None:
    grid = function_grid(solved(OrnsteinUhlenbeck(), 200, n_eigs))
    if n_eigs == 1:
        assert grid is None  # the constant function alone
    else:
        assert grid is not None
        assert len(grid.modes) == 6
