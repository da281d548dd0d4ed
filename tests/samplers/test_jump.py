"""A jump is its refiner from wherever its start ends: any refiner, any process, with draws of its own.

For Gaussian data the start ``gaussian`` is exact, so the whole has the refiner's own order and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from kfpbench import registry
from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError, ParameterError, SuiteError
from kfpbench.noise import NoiseStream
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.span import Span, split
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import FittedRefiner, ProblemSize
from kfpbench.samplers.jump import Jump
from kfpbench.samplers.partitioned import Partitioned
from kfpbench.suite.load import load_suite
from kfpbench.testing.samplers import problem as planar_problem
from kfpbench_baselines.ddpm_ancestral import DDPMAncestral
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun
from kfpbench_baselines.predictor_corrector import PredictorCorrector

CPU, D = torch.device("cpu"), 3
PROCESSES = [
    pytest.param(VarianceExploding(0.3, 6.0), id="ve"),
    pytest.param(VariancePreserving(beta_max=8.0, t_min=0.05), id="vp"),
    pytest.param(OrnsteinUhlenbeck(rate=0.8, stationary_std=1.3, t_min=0.05, t_max=2.0), id="ou"),
]
CANNOT_START = {"koopman", "density", "jump", "partitioned", "gaussian_mixture"}
STEPPING = {  # registered names, parameters of a cheap one, evaluations a row
    "euler_maruyama": ({"steps": 4}, 4),
    "pf_ode_euler": ({"steps": 4}, 4),
    "pf_ode_heun": ({"steps": 4}, 8),
    "ddim": ({"steps": 4}, 4),
    "edm_heun": ({"steps": 4}, 7),
    "dpmpp_2m": ({"steps": 4}, 4),
    "dpmpp_3m": ({"steps": 4}, 4),
    "unipc": ({"steps": 4}, 4),
    "ipndm": ({"steps": 4}, 4),
    "predictor_corrector": ({"steps": 4, "corrections": 2}, 12),
    "ddpm_ancestral": ({"steps": 4}, 4),
    "edm_stochastic": ({"steps": 4, "s_max": 100.0}, 7),
    "gaussian": ({}, 0),
    "closed_form_denoiser": ({"sigma_star": 0.5}, 0),
}
STOCHASTIC = {"euler_maruyama", "predictor_corrector", "ddpm_ancestral", "edm_stochastic", "closed_form_denoiser"}


def make(name, **parameters):
    return registry.find("samplers", name).load()(**{**STEPPING[name][0], **parameters})


def stream(count=12, dtype=torch.float64, seed=3):
    return NoiseStream.of_range(seed, 0, count, D, CPU, dtype)


class Identity:
    """A start that leaves the noise as it is: sigma* times draw 0, which is where ``sample`` of a refiner begins."""

    def fit(self, problem):
        return FittedIdentity(problem.process)

    def working_memory(self, size):
        return 0


@dataclass(frozen=True)
class FittedIdentity:
    process: object

    def sample(self, noise):
        return self.process.sigma(self.process.t_min) * noise.normal(0)

    def describe(self):
        return {}


@dataclass(frozen=True)
class GivenNoise:
    """Draws (draw, n, d) in the order in which they are first asked for, whatever their numbers."""

    draws: torch.Tensor
    first: int = 0
    numbers: list[int] = field(default_factory=list)

    def normal(self, draw):
        if self.first + draw not in self.numbers:
            self.numbers.append(self.first + draw)
        return self.draws[self.numbers.index(self.first + draw)]

    def after(self, draws):
        return replace(self, first=self.first + draws)


@dataclass(frozen=True)
class Recorder:
    """A stream that notes the number of every draw, the start's and the refiner's alike."""

    inner: NoiseStream
    log: list[int]

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def normal(self, draw):
        self.log.append(self.inner.first_draw + draw)
        return self.inner.normal(draw)

    def uniform_integers(self, draw, high):
        self.log.append(self.inner.first_draw + draw)
        return self.inner.uniform_integers(draw, high)

    def after(self, draws):
        return Recorder(self.inner.after(draws), self.log)

    def select(self, rows):
        return Recorder(self.inner.select(rows), self.log)


def exact_flow(problem, x):
    """The probability flow of Gaussian data from t_max to t_min of rows x (n, d), written with numpy."""
    process, moments = problem.process, training_moments(problem.dataset)
    first, last = process.t_max, process.t_min
    spread = [process.alpha(t) ** 2 * moments.variances + process.sigma(t) ** 2 for t in (first, last)]
    y = (x - process.alpha(first) * moments.mean) @ moments.basis * np.sqrt(spread[1] / spread[0])
    return process.alpha(last) * moments.mean + y @ moments.basis.T


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", [name for name in STEPPING if "steps" in STEPPING[name][0]])
def test_from_the_identity_it_is_the_refiner_from_noise(make_problem, gaussian_data, name, process, steps):
    problem, refiner = make_problem(gaussian_data, process), make(name, steps=steps)
    _, behind = split(process, 1.5)
    alone = refiner.fit(replace(problem, process=behind))
    found = Jump(Identity(), refiner, 1.5).fit(problem).sample(stream())
    assert torch.isfinite(found).all()
    draws = stream()
    start = behind.sigma(behind.t_max) * draws.normal(0)
    if name in STOCHASTIC:  # the same law from other draws; with the jump's own draws the same rows
        draws = draws.after(Jump(Identity(), refiner, 1.5).fit(problem).draws)
    else:
        assert torch.equal(found, alone.sample(stream()))
    assert torch.equal(found, alone.integrate(start, draws))


@pytest.mark.parametrize("process", PROCESSES)
def test_two_exact_parts_are_the_exact_whole(make_problem, gaussian_data, process):
    problem = make_problem(gaussian_data, process)
    whole = ClosedFormGaussian().fit(problem).sample(stream())
    found = Jump("gaussian", "gaussian", 1.5).fit(problem).sample(stream())
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    expected = exact_flow(problem, process.sigma(process.t_max) * stream().normal(0).numpy())
    np.testing.assert_allclose(whole.numpy(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("process", PROCESSES)
def test_for_gaussian_data_it_errs_by_the_refiner_alone(make_problem, gaussian_data, process):
    # the flow is met to the refiner's order 2, however coarse the start's one step
    problem = make_problem(gaussian_data, process)
    exact = exact_flow(problem, process.sigma(process.t_max) * stream().normal(0).numpy())
    errors = []
    for steps in (40, 80, 160):
        rows = Jump("gaussian", ProbabilityFlowHeun(steps), 1.5).fit(problem).sample(stream()).numpy()
        errors.append(np.abs(rows - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([2.0, 2.0], abs=0.15)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", [EulerMaruyama, DDPMAncestral, PredictorCorrector])
def test_the_law_with_a_stochastic_refiner_converges_to_the_exact_one(make_problem, gaussian_data, process, solver):
    """The start's law at sigma* is N with variances v = sigma_T^2 S_* / S_T; behind it y_0 = m y_* + (1 - m^2)^(1/2) xi
    in the standardised state, m = (R_0 / R_*)^(1/2), R = lam + (sigma / alpha)^2: weak order 1 of the whole.
    """
    problem, moments = make_problem(gaussian_data, process), training_moments(gaussian_data)
    _, behind = split(process, 1.5)
    spread, level = (
        {t: process.alpha(t) ** power * (moments.variances + math.exp(2 * process.log_ratio(t))) for t in times}
        for power, times in ((2, (process.t_min, process.t_max)), (0, (process.t_min, behind.t_max)))
    )
    m2 = level[process.t_min] / level[behind.t_max]
    exact = spread[process.t_min] * (m2 * process.sigma(process.t_max) ** 2 / spread[process.t_max] + 1 - m2)
    errors = []
    for steps in (20, 40, 80):
        refiner = solver(steps, corrections=0) if solver is PredictorCorrector else solver(steps)
        draws = torch.zeros(steps + 1, D * (steps + 1) + 1, D, dtype=torch.float64)
        for number in range(D * (steps + 1)):  # an affine map shows its law on 0 and the basis vectors
            draws[number // D, number + 1, number % D] = 1.0
        rows = Jump("gaussian", refiner, 1.5).fit(problem).sample(GivenNoise(draws)).numpy() @ moments.basis
        errors.append(np.abs(np.square(rows[1:] - rows[0]).sum(0) - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([1.0, 1.0], abs=0.15)


@pytest.mark.parametrize("name", STEPPING)
def test_evaluations_are_the_refiners_and_counted_by_the_score(make_problem, gaussian_data, name):
    problem = make_problem(gaussian_data, VarianceExploding(0.1, 20.0))
    fitted = Jump("gaussian", make(name), 2.0).fit(problem)
    assert problem.score.evaluations == 0
    assert torch.isfinite(fitted.sample(stream(5))).all()
    assert problem.score.evaluations == 5 * STEPPING[name][1]


def test_evaluations_of_a_start_that_steps_count_too(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, VarianceExploding(0.1, 20.0))
    Jump(make("pf_ode_heun"), make("edm_heun"), 2.0).fit(problem).sample(stream(5))
    assert problem.score.evaluations == 5 * (8 + 7)


def test_evaluations_of_a_pilot_are_the_setups(make_problem, gaussian_data):
    problem = make_problem(gaussian_data, VarianceExploding(0.1, 20.0))
    fitted = Jump("gaussian", "pf_ode_rk45", 2.0).fit(problem)
    told, setup = fitted.describe(), problem.score.evaluations
    assert setup == told["refiner"]["pilot_evaluations"] > 0
    fitted.sample(stream(5))
    assert problem.score.evaluations - setup == 5 * 6 * told["refiner"]["steps"]
    assert told["sigma_star"] == 2.0


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("refiner", ["pf_ode_rk45", "edm_stochastic", "unipc"])
def test_float32_stays_float32(make_problem, gaussian_data, refiner, process):
    problem = make_problem(gaussian_data, process, torch.float32)
    rows = Jump("gaussian", refiner, 1.5).fit(problem).sample(stream(dtype=torch.float32))
    assert rows.dtype == torch.float32
    assert torch.isfinite(rows).all()


def test_diffusers_refine_from_sigma_star(make_problem, gaussian_data):
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra 'diffusers')")
    problem = make_problem(gaussian_data, VarianceExploding(0.01, 20.0))
    exact = exact_flow(problem, 20.0 * stream().normal(0).numpy())
    steppers = registry.find("samplers", "diffusers_scheduler").load()
    errors = []
    for steps in (10, 50):
        refiner = steppers("DPMSolverMultistepScheduler", steps)
        rows = Jump("gaussian", refiner, 1.5).fit(problem).sample(stream()).numpy()
        errors.append(float(np.abs(rows - exact).max()))
    assert problem.score.evaluations == 12 * 60
    # both end elsewhere, at sigma = 0 and at 0.01: up to that their error falls by the factor 25 of order 2
    assert errors[1] < errors[0] / 5 + 0.01 * float(np.abs(stream().normal(0).numpy()).max())


@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_start_and_refiner_share_no_draw(make_problem, gaussian_data, name):
    problem, log = make_problem(gaussian_data, VarianceExploding(0.1, 20.0)), []
    sampler = Jump(make("euler_maruyama", steps=70), make(name), 2.0)
    sampler.fit(problem).sample(Recorder(stream(), log))
    assert len(log) > 71
    assert len(set(log)) == len(log)


NESTED = [
    pytest.param(lambda inner: Jump(inner, make("ddpm_ancestral"), 2.0), id="jump"),
    pytest.param(lambda inner: Jump(Jump(inner, make("euler_maruyama"), 4.0), make("ddpm_ancestral"), 2.0), id="twice"),
    pytest.param(lambda inner: Jump(Partitioned(inner, parts=1), make("ddpm_ancestral"), 2.0), id="partitioned"),
]


@pytest.mark.parametrize("outer", NESTED)
def test_a_jump_as_start_of_a_jump_shares_no_draw(make_problem, gaussian_data, outer):
    problem, log = make_problem(gaussian_data, VarianceExploding(0.1, 20.0)), []
    sampler = outer(Jump("gaussian", make("euler_maruyama"), 8.0))
    rows = sampler.fit(problem).sample(Recorder(stream(), log))
    assert torch.isfinite(rows).all()
    assert len(set(log)) == len(log)
    assert max(log) < 2**32  # of the counter


def test_the_start_is_paired_with_itself_alone(make_problem, gaussian_data):
    # draw 0 is the start's in both: the shared noise that paired comparisons rest on
    problem, log = make_problem(gaussian_data, VarianceExploding(0.1, 20.0)), []
    Jump("gaussian", make("dpmpp_2m"), 2.0).fit(problem).sample(Recorder(stream(), log))
    assert log == [0]


@pytest.mark.parametrize("given", [0.0, -1.0, math.nan])
def test_an_impossible_sigma_star_is_refused_at_once(given):
    with pytest.raises(ParameterError, match="sigma_star"):
        Jump(sigma_star=given)


@pytest.mark.parametrize("given", [0.05, 0.1, 20.0, 30.0, math.inf])
def test_a_sigma_star_outside_the_process_names_its_range(make_problem, gaussian_data, given):
    problem = make_problem(gaussian_data, VarianceExploding(0.1, 20.0))
    with pytest.raises(ParameterError, match=r"between 0\.1 and 20 .*sigma / alpha.*widen"):
        Jump(sigma_star=given).fit(problem)
    assert problem.score.evaluations == 0


@pytest.mark.parametrize("process", PROCESSES)
def test_sigma_star_is_the_ratio_of_sigma_and_alpha(make_problem, gaussian_data, process):
    before, behind = split(process, 1.5)
    assert before.t_min == behind.t_max
    assert process.sigma(before.t_min) / process.alpha(before.t_min) == pytest.approx(1.5, rel=1e-12)
    assert (before.t_max, behind.t_min) == (process.t_max, process.t_min)
    # a span is a process like any other, so a part of a part is one too
    inner, _ = split(before, 2.0)
    assert inner.log_ratio(inner.t_min) == pytest.approx(math.log(2.0), rel=1e-12)


def test_an_impossible_span_is_refused():
    for ends in ((0.2, 0.2), (0.05, 1.0), (0.2, 30.0), (1.0, 0.2)):
        with pytest.raises(ParameterError, match="interval"):
            Span(VarianceExploding(0.1, 20.0), *ends)


def cheap(name):
    """A registered sampler with the parameters of its cheapest contract example."""
    component = registry.find("samplers", name).load()
    return component(**getattr(component, "contract_examples", ({},))[0])


@pytest.mark.parametrize("name", sorted(CANNOT_START))
def test_what_cannot_start_from_rows_is_refused_with_the_reason(name):
    with pytest.raises(CapabilityError, match=r"cannot start from given rows; got .* integrate.*dpmpp_2m"):
        Jump("gaussian", cheap(name), 2.0).fit(planar_problem())


def test_every_registered_sampler_refines_or_is_refused():
    own = [name for name, entry in registry.available("samplers").items() if entry.origin.startswith("kfpbench ")]
    refines = set()
    for name in set(own) - CANNOT_START:
        parameters = {"sigma_star": 0.5} if name == "closed_form_denoiser" else {}
        sampler = registry.find("samplers", name).load()(**parameters) if parameters else cheap(name)
        fitted = Jump("gaussian", sampler, 2.0).fit(planar_problem())
        assert isinstance(fitted.refiner, FittedRefiner)
        noise = NoiseStream.of_range(5, 0, 4, 2, CPU, torch.float64)
        assert torch.isfinite(fitted.sample(noise)).all(), name
        refines.add(name)
    assert refines >= {*STEPPING, "pf_ode_rk45"}


SUITE = """
schema_version: 1
name: refiners
data: {name: gmm2d, train: 100, validation: 20, test: 20}
score: {name: mixture}
process: {name: ve, sigma_min: 0.05, sigma_max: 10.0}
samplers:
"""


def test_every_refiner_is_accepted_by_a_suite(tmp_path):
    names = [name for name in registry.available("samplers") if name not in CANNOT_START]
    entries = [
        f"  - {{name: jump, label: {name}, start: gaussian, sigma_star: 2.0, refiner: {name}}}" for name in names
    ]
    path = tmp_path / "refiners.yaml"
    path.write_text(SUITE + "\n".join(entries) + "\ngrid:\n  samplers.ddim.sigma_star: [1.0, 2.0]\n")
    suite = load_suite(path)
    assert len(suite.cells) == len(names) + 1
    path.write_text(SUITE + "  - {name: jump, refiner: {name: dpmpp_2m, stepps: 3}}\n")
    with pytest.raises(SuiteError, match="stepps"):
        load_suite(path)


def test_memory_is_that_of_both_parts():
    size = ProblemSize(1000, 10, 64, 4)
    start, refiner = (registry.resolve("samplers", name).working_memory(size) for name in ("gaussian", "dpmpp_2m"))
    assert Jump("gaussian", "dpmpp_2m").working_memory(size) == start + refiner + 4 * 64 * 10


def test_rows_of_data_without_spread_end_at_the_point(make_problem):
    # one point: D is constant, x = alpha c + sigma eps all along the flow, whatever the steps
    rows = np.tile(np.array([0.5, -1.0, 2.0], dtype=np.float32), (6, 1))
    process = VariancePreserving()
    problem = make_problem(Dataset("point", rows, rows[:0], rows[:0]), process)
    point, first, last = torch.tensor(rows[0]).double(), process.t_max, process.t_min
    eps = stream().normal(0) - process.alpha(first) / process.sigma(first) * point
    expected = process.alpha(last) * point + process.sigma(last) * eps
    for name in ("ddim", "edm_heun", "dpmpp_2m", "dpmpp_3m", "unipc", "ipndm", "gaussian"):
        found = Jump("gaussian", make(name), 1.5).fit(problem).sample(stream())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
