"""Orders of convergence of the few-step solvers, and what each integrates exactly.

On Gaussian data the flow is affine and known. A method that starts with steps of lower order shows its own order only
where the start's error is out of the way: on a grid whose first step is h^(3/2), whose error is then O(h^3) for a step
of order 1; or, for weights that need equal steps, on a flow that is at rest at its start.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.samplers.jump import Jump
from kfpbench.scores.counted import CountedScore
from kfpbench_baselines.data_prediction import half_log_snr, interpolation_weights, phi, step_orders
from kfpbench_baselines.ddim import DDIM, FittedDDIM
from kfpbench_baselines.dpmpp_2m import DPMSolverPP2M, FittedDPMSolverPP2M
from kfpbench_baselines.dpmpp_3m import DPMSolverPP3M, FittedDPMSolverPP3M, third_order_weights
from kfpbench_baselines.edm_heun import EDMHeun, FittedEDMHeun
from kfpbench_baselines.ipndm import ADAMS_BASHFORTH, IPNDM, FittedIPNDM
from kfpbench_baselines.pf_ode_euler import FittedProbabilityFlowEuler
from kfpbench_baselines.pf_ode_heun import FittedProbabilityFlowHeun
from kfpbench_baselines.unipc import FittedUniPC, UniPC, corrector_weights, predictor_weights

CPU = torch.device("cpu")
DIMENSION = 2
PROCESSES = [
    pytest.param(VarianceExploding(0.3, 6.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.05), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0), id="ou"),
]
SAMPLERS = [DDIM, EDMHeun, DPMSolverPP2M, DPMSolverPP3M, UniPC, IPNDM]


def starts(process, count=20):
    rows = torch.from_numpy(np.random.default_rng(3).standard_normal((count, DIMENSION)))
    return process.sigma(process.t_max) * rows


def exact_flow(problem, x):
    """x_0 = alpha_0 mu + U (S_0 / S_T)^(1/2) U^T (x_T - alpha_T mu), S_t = alpha_t^2 lam + sigma_t^2."""
    process, law = problem.process, problem.score
    first, last = process.t_max, process.t_min
    spread = [process.alpha(t) ** 2 * law.variances + process.sigma(t) ** 2 for t in (first, last)]
    y = (x - process.alpha(first) * law.mean) @ law.basis * (spread[1] / spread[0]).sqrt()
    return process.alpha(last) * law.mean + y @ law.basis.T


def observed_orders(fit, problem, counts):
    """log2 of the ratio of the largest errors between the numbers of steps, each twice the one before."""
    x = starts(problem.process)
    exact = exact_flow(problem, x)
    errors = [float((fit(steps).integrate(x, None) - exact).abs().max()) for steps in counts]
    assert errors[-1] < 0.01 * float(exact.abs().max())
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))


ORDERS = [
    pytest.param(DDIM, 1, id="ddim"),
    pytest.param(EDMHeun, 2, id="edm_heun"),
    pytest.param(DPMSolverPP2M, 2, id="dpmpp_2m"),
    pytest.param(partial(UniPC, order=1, variant="bh1", lower_order_final=False), 2, id="unipc 1 bh1"),
    pytest.param(partial(UniPC, order=1, variant="bh2", lower_order_final=False), 2, id="unipc 1 bh2"),
    pytest.param(partial(UniPC, order=2, variant="bh1", lower_order_final=False), 3, id="unipc 2 bh1"),
    pytest.param(partial(UniPC, order=2, variant="bh2", lower_order_final=False), 3, id="unipc 2 bh2"),
    pytest.param(partial(UniPC, order=3, lower_order_final=True), 2, id="unipc 3, lower order at the end"),
    pytest.param(partial(IPNDM, order=1), 1, id="ipndm 1"),
    pytest.param(partial(IPNDM, order=2), 2, id="ipndm 2"),
    pytest.param(partial(IPNDM, order=3), 2, id="ipndm 3, unequal steps"),
    pytest.param(partial(IPNDM, order=4), 2, id="ipndm 4, unequal steps"),
]


@pytest.mark.parametrize("schedule", ["edm", "log_snr"])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("solver", "order"), ORDERS)
def test_order_on_gaussian_data(gaussian_problem, solver, order, process, schedule):
    problem = gaussian_problem(process)
    found = observed_orders(lambda steps: solver(steps=steps, schedule=schedule).fit(problem), problem, (160, 320))
    assert found == pytest.approx([order], abs=0.15)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    ("solver", "order"), [(DDIM, 1), (EDMHeun, 2), (DPMSolverPP2M, 2), (partial(IPNDM, order=2), 2)]
)
def test_order_on_a_grid_that_is_uniform_in_time(gaussian_problem, solver, order, process):
    problem = gaussian_problem(process)
    found = observed_orders(lambda steps: solver(steps=steps, schedule="time").fit(problem), problem, (400, 800))
    assert found == pytest.approx([order], abs=0.15)


def graded(process, steps):
    """Uniform in lambda with step h, but for a first step of h^(3/2)."""
    first, last = half_log_snr(process, process.t_max), half_log_snr(process, process.t_min)
    h = (last - first) / (steps - 1)
    for _ in range(50):  # h + ... + h + h^(3/2) = the whole length: a contraction
        h = (last - first - h**1.5) / (steps - 1)
    inner = [process.time_of(-(last - index * h)) for index in range(steps - 1, 0, -1)]
    return [process.t_max, *inner, process.t_min]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    ("fit", "order"),
    [
        pytest.param(lambda *given: FittedDPMSolverPP2M(*given, False), 2, id="dpmpp_2m"),
        pytest.param(lambda *given: FittedDPMSolverPP3M(*given, False, "halved"), 2, id="dpmpp_3m halved"),
        pytest.param(lambda *given: FittedDPMSolverPP3M(*given, False, "full"), 3, id="dpmpp_3m full"),
        pytest.param(lambda *given: FittedUniPC(*given, 3, "bh1", False), 4, id="unipc 3 bh1"),
        pytest.param(lambda *given: FittedUniPC(*given, 3, "bh2", False), 4, id="unipc 3 bh2"),
    ],
)
def test_order_behind_a_short_first_step(gaussian_problem, fit, order, process):
    problem = gaussian_problem(process)
    found = observed_orders(lambda steps: fit(problem, graded(process, steps)), problem, (160, 320))
    assert found == pytest.approx([order], abs=0.25)


class AtRest(CountedScore):
    """y(s) = y_0 exp(tau^5), tau = (s_0 - s) / (s_0 - s_1): the first four derivatives in s are 0 at the start."""

    def __init__(self, process):
        super().__init__()
        self.first, self.last = (process.sigma(t) / process.alpha(t) for t in (process.t_max, process.t_min))

    def _denoise(self, x, alpha, sigma):
        y, s = x / alpha, sigma / alpha
        tau = (self.first - s) / (self.first - self.last)
        return y + s * y * 5 * tau**4 / (self.first - self.last)  # D = y - s dy/ds


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_of_ipndm_where_sigma_over_alpha_steps_equally(gaussian_data, process, order):
    score = AtRest(process)
    problem = Problem(gaussian_data, process, score, CPU, torch.float64, 0)
    x = starts(process)
    exact = math.e * process.alpha(process.t_min) / process.alpha(process.t_max) * x
    errors = []
    for steps in (80, 160):
        ratios = np.linspace(score.first, score.last, steps + 1)[1:-1]
        times = [process.t_max, *(process.time_of(math.log(s)) for s in ratios), process.t_min]
        errors.append(float((FittedIPNDM(problem, times, order).integrate(x, None) - exact).abs().max()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_bashforth_integrates_polynomials_below_its_order(order):
    nodes = -np.arange(order)
    for degree in range(order + 1):
        found = float(np.dot(ADAMS_BASHFORTH[order - 1], nodes.astype(float) ** degree))
        assert (found == pytest.approx(1 / (degree + 1), abs=1e-14)) == (degree < order)


def integral(power, step):
    return quad(lambda u: math.exp(u - step) * u**power, 0.0, step, epsabs=0, epsrel=1e-13)[0]


@pytest.mark.parametrize("z", [-30.0, -3.0, -1.0, -0.999, -0.1, -1e-3, -1e-9, 0.0, 0.5])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_phi_functions_against_their_integral(order, z):
    def integrand(s):
        return math.exp((1 - s) * z) * s ** (order - 1) / math.factorial(order - 1)

    assert phi(order, z) == pytest.approx(quad(integrand, 0, 1, epsabs=0, epsrel=1e-13)[0], rel=1e-12)


@pytest.mark.parametrize("step", [1e-7, 0.01, 0.4, 3.0])
@pytest.mark.parametrize(
    ("weights", "places", "degree"),
    [
        (interpolation_weights, (0.0,), 0),
        (interpolation_weights, (0.0, -0.7), 1),
        (interpolation_weights, (0.0, -0.7, -2.1), 2),
        (partial(third_order_weights, curvature="full"), (0.0, -0.7, -2.1), 2),
        (partial(third_order_weights, curvature="halved"), (0.0, -0.7, -2.1), 1),
        (partial(predictor_weights, variant="bh1"), (0.0, -0.7, -2.1), 2),
        (partial(predictor_weights, variant="bh2"), (0.0, -0.7), 0),
        (partial(corrector_weights, variant="bh1"), (0.0,), 0),
        (partial(corrector_weights, variant="bh2"), (0.0, -0.7), 2),
        (partial(corrector_weights, variant="bh2"), (0.0, -0.7, -2.1), 3),
    ],
)
def test_weights_integrate_polynomials_in_lambda(weights, places, degree, step):
    nodes = [step * place for place in places]
    found = weights(nodes, step)
    used = np.asarray([*nodes, step][: len(found)])
    for power in range(degree + 1):
        assert float(np.dot(found, used**power)) == pytest.approx(integral(power, step), rel=1e-9)
    exact, beyond = integral(degree + 1, step), float(np.dot(found, used ** (degree + 1)))
    assert abs(beyond / exact - 1) > 1e-3 * min(step, 1.0)


@pytest.mark.parametrize("step", [1e-6, 0.4, 3.0])
def test_the_published_third_order_step_takes_half_of_the_curvature(step):
    nodes = [0.0, -0.7 * step, -2.1 * step]
    full, halved = (third_order_weights(nodes, step, each) for each in ("full", "halved"))
    squares = np.square(nodes)
    half = 0.5 * integral(2, step)  # of u^2, whose second divided difference is 1 and second derivative 2
    assert float(np.dot(full, squares)) == pytest.approx(2 * half, rel=1e-9)
    assert float(np.dot(halved, squares)) == pytest.approx(half, rel=1e-9)


class OnePoint(CountedScore):
    """Data that is one point: the denoiser is constant, and x = alpha c + sigma eps along the flow."""

    point = torch.tensor([0.3, -1.7], dtype=torch.float64)

    def _denoise(self, x, alpha, sigma):
        return self.point.expand_as(x)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_point_is_reached_exactly_by_any_number_of_steps(gaussian_data, sampler, process):
    problem = Problem(gaussian_data, process, OnePoint(), CPU, torch.float64, 0)
    eps = starts(process) / process.sigma(process.t_max)
    first, last = process.t_max, process.t_min
    x = process.alpha(first) * OnePoint.point + process.sigma(first) * eps
    exact = process.alpha(last) * OnePoint.point + process.sigma(last) * eps
    for steps in (1, 2, 5):
        found = sampler(steps=steps).fit(problem).integrate(x, None)
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


def test_edm_heun_is_heun_with_a_last_step_of_euler(gaussian_problem):
    # under VE, against the solvers in x and t
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    x, fitted = starts(problem.process), EDMHeun(7).fit(problem)
    before = FittedProbabilityFlowHeun(problem, fitted.times[:-1]).integrate(x, None)
    expected = FittedProbabilityFlowEuler(problem, fitted.times[-2:]).integrate(before, None)
    torch.testing.assert_close(fitted.integrate(x, None), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("process", PROCESSES)
def test_methods_of_order_1_are_ddim(gaussian_problem, process):
    problem = gaussian_problem(process)
    x = starts(process)
    expected = DDIM(6).fit(problem).integrate(x, None)
    torch.testing.assert_close(IPNDM(6, order=1).fit(problem).integrate(x, None), expected, rtol=1e-11, atol=1e-11)
    for solver in (DPMSolverPP2M, DPMSolverPP3M, UniPC, EDMHeun):  # with one step there is no history
        found = solver(1).fit(problem).integrate(x, None)
        torch.testing.assert_close(found, DDIM(1).fit(problem).integrate(x, None), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("solver", [DPMSolverPP2M, DPMSolverPP3M])
def test_the_order_falls_at_the_end_below_15_steps_only(gaussian_problem, solver):
    problem = gaussian_problem(VarianceExploding(0.01, 20.0))
    x = starts(problem.process)

    def end(steps, lower_order_final):
        return solver(steps, lower_order_final=lower_order_final).fit(problem).integrate(x, None)

    assert torch.equal(end(15, True), end(15, False))
    assert not torch.allclose(end(14, True), end(14, False))
    # the last step is then that of DDIM
    fitted = DPMSolverPP2M(14).fit(problem)
    before = FittedDPMSolverPP2M(problem, fitted.times[:-1], False).integrate(x, None)
    last = FittedDDIM(problem, fitted.times[-2:]).integrate(before, None)
    torch.testing.assert_close(fitted.integrate(x, None), last, rtol=1e-11, atol=1e-11)


def test_orders_rise_with_the_history_and_fall_to_the_end():
    assert step_orders(3, 6, True) == [1, 2, 3, 3, 2, 1]
    assert step_orders(3, 6, False) == [1, 2, 3, 3, 3, 3]
    assert step_orders(3, 3, True) == [1, 2, 1]
    assert step_orders(2, 1, True) == [1]


@pytest.mark.parametrize(
    ("sampler", "nfe"),
    [(EDMHeun(13), 25), (EDMHeun(2), 3), (EDMHeun(3), 5), (EDMHeun(1), 1)]
    + [(sampler(13), 13) for sampler in SAMPLERS if sampler is not EDMHeun]
    + [(sampler(3), 3) for sampler in SAMPLERS if sampler is not EDMHeun]
    + [(UniPC(5, order=order), 5) for order in (1, 2, 3)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_evaluations_are_those_that_the_score_counts(gaussian_problem, sampler, nfe, dtype):
    problem = gaussian_problem(VariancePreserving(), dtype)
    fitted = sampler.fit(problem)
    assert problem.score.evaluations == 0
    rows = fitted.sample(NoiseStream.of_range(1, 0, 5, DIMENSION, CPU, dtype))
    assert problem.score.evaluations == 5 * nfe
    assert rows.dtype == dtype
    assert fitted.describe() == {"steps": sampler.steps}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_jump_refines_from_anywhere(gaussian_problem, sampler, process):
    # the Gaussian start is exact for Gaussian data: what is left is the refiner's own error from sigma* on
    problem = gaussian_problem(process)
    noise = NoiseStream.of_range(1, 0, 50, DIMENSION, CPU, torch.float64)
    fitted = Jump("gaussian", sampler(steps=60), sigma_star=1.5).fit(problem)
    assert problem.score.evaluations == 0
    rows = fitted.sample(noise)
    assert problem.score.evaluations == 50 * (119 if sampler is EDMHeun else 60)
    exact = exact_flow(problem, process.sigma(process.t_max) * noise.normal(0))
    tolerance = 2e-2 if sampler is DDIM else 1e-3
    assert float((rows - exact).abs().max()) < tolerance * float(exact.abs().max())


def test_a_jump_refines_with_dpmpp_2m_unless_told_otherwise():
    assert isinstance(Jump().refiner, DPMSolverPP2M)


@pytest.mark.parametrize(
    "fit",
    [
        pytest.param(FittedDDIM, id="ddim"),
        pytest.param(FittedEDMHeun, id="edm_heun"),
        pytest.param(lambda *given: FittedDPMSolverPP2M(*given, False), id="dpmpp_2m"),
        pytest.param(lambda *given: FittedDPMSolverPP3M(*given, False, "full"), id="dpmpp_3m"),
        pytest.param(lambda *given: FittedUniPC(*given, 3, "bh2", False), id="unipc"),
        pytest.param(lambda *given: FittedIPNDM(*given, 4), id="ipndm"),
    ],
)
def test_times_that_coincide_do_no_harm(gaussian_problem, fit):
    problem = gaussian_problem(VarianceExploding(0.3, 6.0))
    times = DDIM(60, "log_snr").fit(problem).times
    twice = [*times[:30], times[29], *times[30:], times[-1]]
    x = starts(problem.process)
    exact = exact_flow(problem, x)
    plain, repeated = (float((fit(problem, grid).integrate(x, None) - exact).abs().max()) for grid in (times, twice))
    assert repeated < 4 * plain + 1e-2 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: UniPC(order=0), "order"),
        (lambda: UniPC(order=4), "order"),
        (lambda: UniPC(variant="bh3"), "variant"),
        (lambda: IPNDM(order=5), "order"),
        (lambda: DPMSolverPP3M(curvature="twice"), "curvature"),
        *[(partial(sampler, steps=0), "steps") for sampler in SAMPLERS],
    ],
)
def test_impossible_parameters_are_refused(make, named):
    with pytest.raises(ParameterError, match=named):
        make()
