"""The Dormand-Prince pair against torchdiffeq's on the pilot rows, against the exact flow, and in its order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kfpbench.data.mixtures import PlanarMixture
from kfpbench.data.moments import training_moments
from kfpbench.errors import NumericalError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.span import split
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.scores.mixture import MixtureScore
from kfpbench_baselines import pf_ode_rk45
from kfpbench_baselines.pf_ode_rk45 import FittedRK45, ProbabilityFlowRK45

PROCESSES = [
    pytest.param(VarianceExploding(0.01, 20.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.01), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.01, t_max=2.0), id="ou"),
]
CPU = torch.device("cpu")


def noise(count=20, dtype=torch.float64):
    return NoiseStream.of_range(1, 0, count, 2, CPU, dtype)


def flow(problem, x):
    """The exact probability flow from t_max to t_min of rows x (n, 2)."""
    process, moments = problem.process, training_moments(problem.dataset)
    mean, basis = torch.tensor(moments.mean), torch.tensor(moments.basis)
    spread = [
        process.alpha(t) ** 2 * torch.tensor(moments.variances) + process.sigma(t) ** 2
        for t in (process.t_max, process.t_min)
    ]
    y = (x - process.alpha(process.t_max) * mean) @ basis * (spread[1] / spread[0]).sqrt()
    return process.alpha(process.t_min) * mean + y @ basis.T


@pytest.mark.parametrize("process", PROCESSES)
def test_on_the_pilot_rows_it_is_torchdiffeq(gaussian_problem, process):
    from torchdiffeq import odeint

    problem = gaussian_problem(process)
    sampler = ProbabilityFlowRK45(rtol=1e-4, atol=1e-4)
    fitted, x = sampler.fit(problem), sampler.pilot_rows(problem)
    ends = torch.tensor(
        [process.sigma(t) / process.alpha(t) for t in (process.t_max, process.t_min)], dtype=torch.float64
    )
    calls = []

    def slope(level, y):
        calls.append(float(level))
        return (y - problem.score.denoise(y, 1.0, float(level))) / float(level)

    options = {"step_t": ends[1:], "dtype": torch.float64}
    found = odeint(
        slope, x / process.alpha(process.t_max), ends, rtol=1e-4, atol=1e-4, method="dopri5", options=options
    )
    torch.testing.assert_close(
        fitted.integrate(x, noise()), process.alpha(process.t_min) * found[-1], rtol=1e-9, atol=1e-9
    )
    assert fitted.pilot_evaluations == len(x) * len(calls)
    nearest = np.abs(np.subtract.outer(fitted.levels, calls)).min(1)  # torchdiffeq has been at every level of the grid
    assert nearest.max() < 1e-9


def test_order():
    # on a mixture: for Gaussian data the equation is linear, and the pair converges faster than its order there
    process, data = VarianceExploding(0.5, 6.0), PlanarMixture(train=20, validation=10, test=10).load()
    problem = Problem(data, process, MixtureScore().bind(data, CPU, torch.float64), CPU, torch.float64, 0)
    x = 6.0 * noise().normal(0)

    def end(steps):
        levels = np.exp(np.linspace(math.log(6.0), math.log(0.5), steps + 1)).tolist()
        return FittedRK45(problem, [process.t_max, process.t_min], levels, 0).integrate(x, noise())

    exact = end(640)
    errors = [float((end(steps) - exact).square().mean().sqrt()) for steps in (40, 80, 160)]
    # it comes down to 5 from above; a scheme of order 4 would show 4
    assert np.log2(np.divide(errors[:-1], errors[1:])).min() > 4.75


def test_the_tableau_keeps_the_conditions_of_order_five():
    # the row sums, the quadrature conditions sum_i b_i c_i^k = 1 / (k + 1), k <= 4, and two of the nested ones
    a = np.zeros((6, 6))
    for stage, row in enumerate(pf_ode_rk45._STAGES, start=1):
        a[stage, : len(row)] = row
    b, c = np.array(pf_ode_rk45._WEIGHTS), np.array([0.0, *pf_ode_rk45._NODES])
    np.testing.assert_allclose(a.sum(1), c, atol=1e-14)
    for power in range(5):
        assert b @ c**power == pytest.approx(1 / (power + 1), abs=1e-14)
    assert b @ a @ c == pytest.approx(1 / 6, abs=1e-14)
    assert b @ a @ a @ a @ c == pytest.approx(1 / 120, abs=1e-14)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_smaller_tolerance_is_a_smaller_error(gaussian_problem, process):
    # with errors per step held at the tolerance the global error is in proportion to it: 100 times less, give 5
    problem = gaussian_problem(process)
    x = process.sigma(process.t_max) * noise().normal(0)
    exact = flow(problem, x)
    scale = float((x / process.alpha(process.t_max)).abs().max())
    errors, steps = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        fitted = ProbabilityFlowRK45(rtol=tolerance, atol=tolerance).fit(problem)
        errors.append(float((fitted.sample(noise()) - exact).abs().max()))
        steps.append(fitted.describe()["steps"])
        assert errors[-1] < 10 * tolerance * (1 + scale)
    assert errors[0] > 20 * errors[1] > 400 * errors[2]
    assert steps[0] < steps[1] < steps[2]


def test_evaluations_are_six_a_step_and_the_pilots_are_the_setups(gaussian_problem):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    fitted = ProbabilityFlowRK45(rtol=1e-3, atol=1e-3, pilot=4).fit(problem)
    setup = problem.score.evaluations
    assert setup == fitted.describe()["pilot_evaluations"] > 0
    fitted.sample(noise(5))
    assert problem.score.evaluations - setup == 5 * 6 * fitted.describe()["steps"]
    assert (fitted.levels[0], fitted.levels[-1]) == (pytest.approx(20.0), pytest.approx(0.01))
    assert np.all(np.diff(fitted.times) < 0)


@pytest.mark.parametrize("process", PROCESSES)
def test_it_starts_anywhere(gaussian_problem, process):
    whole = gaussian_problem(process)
    _, behind = split(process, 1.0)
    problem = gaussian_problem(behind)
    assert problem.process.t_max < whole.process.t_max
    fitted = ProbabilityFlowRK45(rtol=1e-7, atol=1e-7).fit(problem)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((10, 2)) * 2)
    assert float((fitted.integrate(x, noise(10)) - flow(problem, x)).abs().max()) < 1e-5


def test_float32_reaches_what_its_rounding_allows(gaussian_problem):
    process = VarianceExploding(0.01, 20.0)
    problem = gaussian_problem(process, torch.float32)
    fitted = ProbabilityFlowRK45(rtol=1e-4, atol=1e-4).fit(problem)
    found = fitted.sample(noise(dtype=torch.float32))
    assert found.dtype == torch.float32
    exact = flow(gaussian_problem(process), 20.0 * noise().normal(0))
    assert float((found.double() - exact).abs().max()) < 10 * 1e-4 * 80


def test_a_tolerance_beyond_the_precision_is_reported(gaussian_problem, monkeypatch):
    monkeypatch.setattr(pf_ode_rk45, "_MOST_STEPS", 100)
    problem = gaussian_problem(VarianceExploding(0.01, 20.0), torch.float32)
    with pytest.raises(NumericalError, match="gives up"):
        ProbabilityFlowRK45(rtol=1e-14, atol=1e-14).fit(problem)


@pytest.mark.parametrize("parameters", [{"rtol": 0.0}, {"atol": -1.0}, {"pilot": 0}, {"rtol": math.nan}])
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        ProbabilityFlowRK45(**parameters)
