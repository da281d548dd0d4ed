from __future__ import annotations

import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.pf_ode_euler import ProbabilityFlowEuler
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun
from kfpbench_baselines.schedules import time_grid

PROCESSES = [
    pytest.param(VarianceExploding(), id="ve"),
    pytest.param(VariancePreserving(), id="vp"),
    pytest.param(OrnsteinUhlenbeck(), id="ou"),
]
SOLVERS = [EulerMaruyama, ProbabilityFlowEuler, ProbabilityFlowHeun]


@pytest.mark.parametrize("schedule", ["edm", "log_snr", "time"])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_a_grid_runs_down_from_one_end_exactly_to_the_other(process, schedule, steps):
    grid = time_grid(process, steps, schedule)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (process.t_max, process.t_min)
    assert (np.diff(grid) < 0).all()


@pytest.mark.parametrize("process", PROCESSES)
def test_schedules_are_what_they_are_called(process):
    steps = 12
    uniform = np.arange(steps + 1) / steps
    ratios = np.exp([process.log_ratio(t) for t in time_grid(process, steps, "edm")])
    np.testing.assert_allclose(
        ratios ** (1 / 7), ratios[0] ** (1 / 7) + uniform * (ratios[-1] ** (1 / 7) - ratios[0] ** (1 / 7)), rtol=1e-9
    )
    logs = [process.log_ratio(t) for t in time_grid(process, steps, "log_snr")]
    np.testing.assert_allclose(logs, logs[0] + uniform * (logs[-1] - logs[0]), atol=1e-9)
    times = time_grid(process, steps, "time")
    np.testing.assert_allclose(times, process.t_max + uniform * (process.t_min - process.t_max), atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("rho", [1e-3, 0.05, 1.0, 1e6, 1e16, 1e300])
def test_every_positive_exponent_gives_a_grid(process, rho):
    """log q - log a = rho log(1 - s + s e^(-length / rho)), from rho log(1 - s), small rho, to -s length, large rho."""
    steps = 5
    grid = time_grid(process, steps, "edm", rho)
    logs = np.array([process.log_ratio(t) for t in grid])
    assert (np.diff(logs) < 0).all()
    share, length = np.arange(1, steps) / steps, logs[0] - logs[-1]
    fallen = logs[1:-1] - logs[0]
    slack = 1e-9 * length
    assert (fallen >= -share * length - slack).all()
    if rho >= 1e6:  # the next term of the series in 1 / rho is s (1 - s) length^2 / (2 rho)
        np.testing.assert_allclose(fallen, -share * length, atol=length**2 / (8 * rho) + slack)
    if rho <= 0.05:  # e^(-length / rho) < 1e-80
        np.testing.assert_allclose(fallen, rho * np.log1p(-share), atol=slack)
    if rho == 1.0:  # uniform in sigma / alpha
        np.testing.assert_allclose(np.diff(np.exp(logs)), np.diff(np.exp(logs)).mean(), rtol=1e-6)


def test_the_published_sigmas_of_edm():
    # Karras et al. (2022), eq. (5), with their defaults sigma in [0.002, 80], rho = 7, N = 18
    index = np.arange(18)
    published = (80 ** (1 / 7) + index / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(time_grid(VarianceExploding(), 17, "edm"), published, rtol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("parameters", [{"steps": 0}, {"steps": -3}, {"schedule": "cosine"}])
def test_an_impossible_grid_is_refused(solver, parameters):
    (name,) = parameters
    with pytest.raises(ParameterError, match=name):
        solver(**parameters)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_impossible_stochasticity_is_refused(eta):
    with pytest.raises(ParameterError, match="eta"):
        EulerMaruyama(eta=eta)
