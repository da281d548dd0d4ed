"""The forward SDEs: coefficients agree with the marginals; log-ratio is a time variable with an exact inverse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpbench.errors import ParameterError
from kfpbench.operators.marginal import marginal
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Process

PROCESSES = [
    VarianceExploding(),
    VarianceExploding(1e-6, 1e4),
    VariancePreserving(),
    VariancePreserving(0.5, 3.0, 1e-3, 4.0),
    OrnsteinUhlenbeck(),
    OrnsteinUhlenbeck(rate=3.0, stationary_std=5.0, t_min=1e-5, t_max=2.0),
    OrnsteinUhlenbeck(rate=0.01, stationary_std=0.1, t_min=0.01, t_max=500.0),
]
over_processes = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: f"{type(p).__name__}-{p.t_max:g}")


def times(process: Process, count: int = 41) -> np.ndarray:
    """Logarithmically spaced, both ends as they are."""
    inner = np.geomspace(process.t_min, process.t_max, count)[1:-1]
    return np.concatenate([[process.t_min], inner, [process.t_max]])


def derivative(function: Callable[[float], float], t: float) -> float:
    """Central difference of sixth order with a step of t / 200; exact for polynomials up to degree 6."""
    h = t / 200.0
    return sum(c * (function(t + k * h) - function(t - k * h)) for k, c in ((1, 45.0), (2, -9.0), (3, 1.0))) / (60 * h)


@over_processes
def test_drift_rate_is_the_derivative_of_log_alpha(process):
    for t in times(process):
        slope = derivative(lambda s: math.log(process.alpha(s)), t)
        # rounding: log(alpha) carries an absolute error of some ulp of 1, divided by the step
        rounding = 20.0 * np.finfo(float).eps * max(1.0, abs(math.log(process.alpha(t)))) / (t / 200.0)
        assert slope == pytest.approx(process.drift_rate(t), rel=1e-9, abs=rounding)


@over_processes
def test_diffusion_ties_alpha_and_sigma(process):
    """g^2 = d(sigma^2)/dt - 2 f sigma^2."""
    for t in times(process):
        growth = derivative(lambda s: process.sigma(s) ** 2, t)
        decay = 2.0 * process.drift_rate(t) * process.sigma(t) ** 2
        # sigma^2 has a relative error of some ulp, divided by the step; sixth-order truncation is below 1e-9
        rounding = 20.0 * np.finfo(float).eps * process.sigma(t) ** 2 / (t / 200.0)
        assert growth - decay == pytest.approx(process.squared_diffusion(t), rel=1e-9, abs=rounding)


@over_processes
def test_squared_diffusion_is_positive(process):
    assert all(process.squared_diffusion(t) > 0 for t in times(process))


@over_processes
def test_log_ratio_is_log_of_sigma_over_alpha_and_increases(process):
    values = [process.log_ratio(t) for t in times(process, 301)]
    assert all(a < b for a, b in itertools.pairwise(values))
    for t in times(process):
        assert process.log_ratio(t) == pytest.approx(
            math.log(process.sigma(t) / process.alpha(t)), rel=1e-13, abs=1e-13
        )


@over_processes
def test_time_of_inverts_log_ratio(process):
    for t in times(process, 101):
        assert process.time_of(process.log_ratio(t)) == pytest.approx(t, rel=1e-12, abs=0.0)
    for value in np.linspace(process.log_ratio(process.t_min), process.log_ratio(process.t_max), 33):
        assert process.log_ratio(process.time_of(value)) == pytest.approx(value, rel=1e-12, abs=1e-12)


@over_processes
def test_marginal_speed_and_scale_rate(process):
    """d rho / d tau = g^2 / (2 sigma^2) and log_scale_rate = d log(alpha) / d rho, both by differences in rho."""
    for t in times(process, 11):
        at = marginal(process, t)
        assert at.rho == -process.log_ratio(t)
        assert at.squared_ratio == pytest.approx(math.exp(-2.0 * at.rho), rel=1e-12, abs=0.0)
        speed = process.squared_diffusion(t) / (2.0 * at.sigma**2)
        assert derivative(process.log_ratio, t) == pytest.approx(speed, rel=1e-8)

        def log_alpha(rho):
            return math.log(process.alpha(process.time_of(-rho)))

        h = 1e-3
        slope = sum(c * (log_alpha(at.rho + k * h) - log_alpha(at.rho - k * h)) for k, c in ((1, 8.0), (2, -1.0)))
        assert slope / (12 * h) == pytest.approx(at.log_scale_rate, rel=1e-8, abs=1e-11)


def test_vp_keeps_unit_variance():
    process = VariancePreserving()
    for t in times(process):
        assert process.alpha(t) ** 2 + process.sigma(t) ** 2 == pytest.approx(1.0, rel=1e-14)


def test_ou_tends_to_its_stationary_law():
    process = OrnsteinUhlenbeck(rate=2.0, stationary_std=3.0, t_max=20.0)
    assert process.sigma(20.0) == pytest.approx(3.0, rel=1e-14)
    assert process.alpha(20.0) == pytest.approx(math.exp(-40.0), rel=1e-13, abs=0.0)
    # the stationary law N(0, std^2) is a fixed point: alpha^2 std^2 + sigma^2 = std^2
    for t in times(process):
        assert process.alpha(t) ** 2 * 9.0 + process.sigma(t) ** 2 == pytest.approx(9.0, rel=1e-14)


@settings(max_examples=50, deadline=None)
@given(beta_min=st.floats(1e-3, 5.0), extra=st.floats(1e-3, 30.0), share=st.floats(1e-6, 1.0))
def test_vp_inverse_for_any_schedule(beta_min, extra, share):
    process = VariancePreserving(beta_min, beta_min + extra, 1e-6, 1.0)
    assert process.time_of(process.log_ratio(share)) == pytest.approx(share, rel=1e-12, abs=0.0)


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(1e-2, 10.0), std=st.floats(1e-2, 100.0), t=st.floats(1e-6, 10.0))
def test_ou_inverse_for_any_parameters(rate, std, t):
    process = OrnsteinUhlenbeck(rate, std, 1e-6, 10.0)
    assert process.time_of(process.log_ratio(t)) == pytest.approx(t, rel=1e-12, abs=0.0)


# ---- what is refused ----


def test_a_process_that_forgets_the_data_altogether_is_refused():
    with pytest.raises(ParameterError, match="nothing is left of the data"):
        OrnsteinUhlenbeck(t_max=800.0)
    with pytest.raises(ParameterError, match="nothing is left of the data"):
        VariancePreserving(beta_max=1000.0)


@pytest.mark.parametrize(
    "interval", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1e-3, math.inf), (math.nan, 1.0)]
)
def test_empty_or_unbounded_intervals(interval):
    low, high = interval
    with pytest.raises(ParameterError, match=r"time interval|sigma_min must be below"):
        VarianceExploding(low, high)
    with pytest.raises(ParameterError, match="time interval"):
        VariancePreserving(t_min=low, t_max=high)
    with pytest.raises(ParameterError, match="time interval"):
        OrnsteinUhlenbeck(t_min=low, t_max=high)


@pytest.mark.parametrize(
    ("beta_min", "beta_max"), [(20.0, 0.1), (1.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (0.1, math.inf)]
)
def test_impossible_schedules(beta_min, beta_max):
    with pytest.raises(ParameterError, match="vp: the schedule"):
        VariancePreserving(beta_min, beta_max)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_ornstein_uhlenbeck(bad):
    with pytest.raises(ParameterError, match="ou: rate"):
        OrnsteinUhlenbeck(rate=bad)
    with pytest.raises(ParameterError, match="ou: rate"):
        OrnsteinUhlenbeck(stationary_std=bad)
