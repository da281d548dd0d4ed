"""The spectrum block without score and process: the own dynamics of a reference problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench.data.mixtures import RingMixture
from kfpbench.data.potentials import DoubleWell, OrnsteinUhlenbeck, RotatingOU
from kfpbench.eigensolvers.spectrum_task import SpectrumTask
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem
from kfpbench.scores.mixture import MixtureScore

CPU, F64 = torch.device("cpu"), torch.float64


def points(count: int) -> GeneratorOptions:
    return GeneratorOptions(eta=1.0, time="frozen", points=count)


def test_draws_find_the_spectrum_and_hold_a_fifth_out():
    task = SpectrumTask(RBF(bandwidth=3.0), operator=points(500), n_eigs=3)
    spectrum = task.solve_reference(OrnsteinUhlenbeck(dimension=2), 0, CPU, F64)
    assert len(spectrum.fitted) == 400
    assert spectrum.points.shape == (500, 2)
    # 400 draws: the sampled covariance, hence a rate, is off by about sqrt(2 / 400) = 7 %; three times that
    np.testing.assert_allclose(spectrum.values.real, [0.0, -1.0, -1.0], atol=0.21)
    assert spectrum.diagnostics["residual_points"] == "held-out points"


def test_the_seed_draws_the_points():
    task = SpectrumTask(RBF(bandwidth=3.0), operator=points(60), n_eigs=2)
    first, again, other = (task.solve_reference(OrnsteinUhlenbeck(), seed, CPU, F64) for seed in (3, 3, 4))
    assert torch.equal(first.points, again.points)
    assert np.array_equal(first.values, again.values)
    assert not torch.equal(first.points, other.points)


def test_quadrature_is_a_weighted_tensor_grid_of_about_n_points():
    task = SpectrumTask(RBF(bandwidth=6.0), operator=points(420), sampling="quadrature", n_eigs=3)
    spectrum = task.solve_reference(OrnsteinUhlenbeck(dimension=2), 0, CPU, F64)
    assert spectrum.points.shape == (20**2, 2)  # 420^(1/2) = 20.5
    assert float(spectrum.pairs.weights.std()) > 0  # not equal ones
    # no sampling error: the linear functions are in the span to the kernel's accuracy, far below a draw's 7 %
    np.testing.assert_allclose(spectrum.values, [0.0, -1.0, -1.0], atol=1e-3)


def test_reversible_gives_real_values_of_the_symmetric_form():
    task = SpectrumTask(RBF(bandwidth=1.0), operator=points(400), sampling="quadrature", n_eigs=3, reversible=True)
    well = DoubleWell()
    spectrum = task.solve_reference(well, 0, CPU, F64)
    assert np.all(spectrum.values.imag == 0.0)
    np.testing.assert_allclose(spectrum.values.real[:2], well.exact_eigenvalues(2), rtol=0.02, atol=1e-8)


def test_reversible_is_refused_without_detailed_balance():
    task = SpectrumTask(operator=points(50), reversible=True)
    with pytest.raises(CapabilityError, match=r"detailed balance does not hold.*RotatingOU"):
        task.solve_reference(RotatingOU(), 0, CPU, F64)


def test_a_grid_of_one_point_an_axis_is_refused():
    task = SpectrumTask(operator=points(50), sampling="quadrature")
    with pytest.raises(CapabilityError, match=r"20 dimensions.*at least 2\^20"):
        task.solve_reference(OrnsteinUhlenbeck(dimension=20), 0, CPU, F64)


def test_the_precision_is_the_suites():
    task = SpectrumTask(RBF(bandwidth=3.0), operator=points(60), n_eigs=2)
    assert task.solve_reference(OrnsteinUhlenbeck(), 0, CPU, torch.float32).pairs.values.dtype == torch.complex64


@pytest.mark.parametrize("changes", [{"sampling": "quadrature"}, {"reversible": True}])
def test_a_reverse_process_has_neither_quadrature_nor_detailed_balance(changes):
    data = RingMixture(train=50, validation=10, test=10).load()
    score = MixtureScore().bind(data, CPU, F64)
    given = Problem(data, VarianceExploding(), score, CPU, F64, 0)
    with pytest.raises(CapabilityError, match="neither a quadrature rule nor detailed balance"):
        SpectrumTask(operator=points(20), at=1.0, **changes).solve(given)
    assert score.evaluations == 0


def test_an_unknown_sampling_is_refused():
    with pytest.raises(ParameterError, match="sampling"):
        SpectrumTask(sampling="grid")  # type: ignore[arg-type]
