"""Agreement with diffusers' schedulers on one smooth nonlinear denoiser and one grid of noise levels, step for step.

The schedulers keep their levels in float32; where they are put in as float64, both sides differ by rounding alone. The
levels end above 0, since every sampler here does; a scheduler's own last step to 0 is not taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem
from kfpbench.scores.counted import CountedScore
from kfpbench_baselines.ddim import FittedDDIM
from kfpbench_baselines.dpmpp_2m import DPMSolverPP2M, FittedDPMSolverPP2M
from kfpbench_baselines.dpmpp_3m import DPMSolverPP3M, FittedDPMSolverPP3M
from kfpbench_baselines.edm_heun import FittedEDMHeun
from kfpbench_baselines.ipndm import FittedIPNDM
from kfpbench_baselines.unipc import FittedUniPC

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra 'diffusers')")

CPU = torch.device("cpu")
DIMENSION, WIDTH, ROWS = 6, 24, 8
DATA_STD = 0.5
ROUNDING = 1e-9  # relative, levels in float64 on both sides
SINGLE = 1e-5  # relative, where one side rounds levels or rows to float32


class Network(CountedScore):
    """D = c_skip(s) y + c_out(s) W_2 tanh(W_1 (y, s) + b), y = x / alpha, s = sigma / alpha: a fixed random network."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(7)
        self.first = torch.from_numpy(rng.standard_normal((DIMENSION + 1, WIDTH)))
        self.bias = torch.from_numpy(rng.standard_normal(WIDTH))
        self.second = torch.from_numpy(rng.standard_normal((WIDTH, DIMENSION)) / math.sqrt(WIDTH))

    def _denoise(self, x, alpha, sigma):
        y, s = x / alpha, sigma / alpha
        scale = math.sqrt(s**2 + DATA_STD**2)
        inputs = torch.cat([y / scale, torch.full_like(y[:, :1], 0.25 * math.log(s))], dim=1)
        hidden = torch.tanh(inputs @ self.first + self.bias)
        return DATA_STD**2 / scale**2 * y + s * DATA_STD / scale * hidden @ self.second


@dataclass
class Levels:
    """A process that is known at the times 0, -1, -2, ... alone, from the noise down."""

    alphas: list[float]
    sigmas: list[float]

    def __post_init__(self):
        self.t_max, self.t_min = 0.0, 1.0 - len(self.alphas)

    @classmethod
    def variance_preserving(cls, ratios):
        alphas = 1.0 / np.sqrt(1.0 + np.square(ratios))
        return cls([float(a) for a in alphas], [float(a * r) for a, r in zip(alphas, ratios, strict=True)])

    @classmethod
    def variance_exploding(cls, ratios):
        return cls([1.0] * len(ratios), [float(r) for r in ratios])

    @property
    def times(self):
        return [-float(index) for index in range(len(self.alphas))]

    def alpha(self, t):
        return self.alphas[round(-t)]

    def sigma(self, t):
        return self.sigmas[round(-t)]

    def log_ratio(self, t):
        return math.log(self.sigma(t) / self.alpha(t))


def problem_of(process):
    rows = np.zeros((2, DIMENSION), dtype=np.float32)
    return Problem(Dataset("none", rows, rows[:0], rows[:0]), process, Network(), CPU, torch.float64, 0)


def edm_levels(steps, low=0.05, high=20.0):
    return (high ** (1 / 7) + np.arange(steps + 1) / steps * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def start(process):
    return process.sigma(0.0) * torch.from_numpy(np.random.default_rng(1).standard_normal((ROWS, DIMENSION)))


def ended(scheduler, process, output, evaluations):
    """What the scheduler makes of the start; ``output`` (x, alpha, sigma) -> the model's output at a level."""
    x = start(process)
    for index, t in enumerate(scheduler.timesteps[: len(evaluations)]):
        level = -float(evaluations[index])
        x = scheduler.step(output(x, process.alpha(level), process.sigma(level)), t, x).prev_sample
    return x


def with_levels(scheduler, steps, ratios):
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(ratios, dtype=torch.float64)
    scheduler.set_begin_index(0)
    return scheduler


def assert_agree(found, expected, tolerance):
    assert found.dtype == expected.dtype == torch.float64
    assert torch.isfinite(expected).all()
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def test_the_stand_in_is_nonlinear_enough_to_tell_methods_apart():
    process = Levels.variance_preserving(edm_levels(8))
    problem = problem_of(process)
    ends = [
        FittedDDIM(problem, process.times),
        FittedDPMSolverPP2M(problem, process.times, True),
        FittedDPMSolverPP2M(problem, process.times, False),
        FittedDPMSolverPP3M(problem, process.times, False, "halved"),
        FittedDPMSolverPP3M(problem, process.times, False, "full"),
        *(FittedUniPC(problem, process.times, order, variant, True) for order in (1, 2) for variant in ("bh1", "bh2")),
        FittedIPNDM(problem, process.times, 3),
        FittedEDMHeun(problem, process.times),
    ]
    rows = [each.integrate(start(process), None) for each in ends]
    for index, one in enumerate(rows):
        for other in rows[:index]:
            assert float((one - other).abs().max() / one.abs().max()) > 1e-3


@pytest.mark.parametrize("steps", [5, 10, 25])
def test_ddim(steps):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)  # 1,000 levels, variance preserving
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(steps)  # 1000 - 1000 / steps, ..., 0
    cumulative = scheduler.alphas_cumprod[scheduler.timesteps].numpy()
    process = Levels([float(a) for a in np.sqrt(cumulative)], [float(s) for s in np.sqrt(1 - cumulative)])
    problem = problem_of(process)

    def noise(x, alpha, sigma):
        return (x - alpha * problem.score.denoise(x, alpha, sigma)) / sigma

    expected = ended(scheduler, process, noise, range(steps - 1))
    found = FittedDDIM(problem, process.times).integrate(start(process), None)
    assert_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("steps", [2, 3, 9, 18])
def test_edm_heun(steps):
    ratios = edm_levels(steps)
    process = Levels.variance_exploding(ratios)
    problem = problem_of(process)
    twice = [ratios[0], *np.repeat(ratios[1:-1], 2), ratios[-1]]
    scheduler = with_levels(diffusers.HeunDiscreteScheduler(), steps, twice)

    def noise(x, alpha, sigma):
        return (x - problem.score.denoise(x, alpha, sigma)) / sigma

    levels = [0, *np.repeat(np.arange(1, steps), 2)]  # the last of them starts the step of Euler
    expected = ended(scheduler, process, noise, levels)
    evaluations = problem.score.evaluations
    found = FittedEDMHeun(problem, process.times).integrate(start(process), None)
    assert problem.score.evaluations == 2 * evaluations == 2 * ROWS * (2 * steps - 1)
    assert_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("steps", [3, 5, 14, 15, 30])
@pytest.mark.parametrize("order", [2, 3])
def test_dpmpp_under_variance_preservation(order, steps, lower_order_final):
    ratios = edm_levels(steps)
    process = Levels.variance_preserving(ratios)
    problem = problem_of(process)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        solver_order=order,
        prediction_type="sample",
        final_sigmas_type="sigma_min",
        lower_order_final=lower_order_final,
    )
    expected = ended(with_levels(scheduler, steps, ratios), process, problem.score.denoise, range(steps))
    fitted = (
        FittedDPMSolverPP2M(problem, process.times, lower_order_final)
        if order == 2
        else FittedDPMSolverPP3M(problem, process.times, lower_order_final, "halved")
    )
    assert_agree(fitted.integrate(start(process), None), expected, SINGLE)  # this scheduler steps in float32


@pytest.mark.parametrize("order", [2, 3])
def test_dpmpp_on_the_levels_that_diffusers_lays_for_edm(order):
    # nothing is put in here: its own float32 levels, of which the last is there twice, against the schedule edm
    steps, low, high = 20, 0.05, 20.0
    process = VarianceExploding(low, high)
    problem = problem_of(process)
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(
        sigma_min=low, sigma_max=high, sigma_data=DATA_STD, solver_order=order, final_sigmas_type="sigma_min"
    )
    scheduler.set_timesteps(steps + 1)
    x = high * torch.from_numpy(np.random.default_rng(1).standard_normal((ROWS, DIMENSION)))
    sampler = (DPMSolverPP2M, DPMSolverPP3M)[order - 2](steps)
    found = sampler.fit(problem).integrate(x, None)
    for t, sigma in zip(scheduler.timesteps[:steps], scheduler.sigmas.tolist(), strict=False):
        denoised = problem.score.denoise(x, 1.0, sigma)
        squared = sigma**2 + DATA_STD**2
        output = (denoised - DATA_STD**2 / squared * x) * math.sqrt(squared) / (sigma * DATA_STD)
        x = scheduler.step(output, t, x).prev_sample
    assert_agree(found, x, SINGLE)


@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("steps", [3, 5, 12, 20])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order, variant, steps, lower_order_final):
    ratios = edm_levels(steps)
    process = Levels.variance_preserving(ratios)
    problem = problem_of(process)
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order,
        solver_type=variant,
        prediction_type="sample",
        final_sigmas_type="sigma_min",
        lower_order_final=lower_order_final,
    )
    expected = ended(with_levels(scheduler, steps, ratios), process, problem.score.denoise, range(steps))
    found = FittedUniPC(problem, process.times, order, variant, lower_order_final).integrate(start(process), None)
    assert_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("steps", [3, 4, 5, 12, 20])
def test_ipndm(steps):
    # the scheduler's betas are sigma with alpha^2 + sigma^2 = 1, and its model predicts v = alpha eps - sigma D
    process = Levels.variance_preserving(edm_levels(steps))
    problem = problem_of(process)
    scheduler = diffusers.IPNDMScheduler(trained_betas=process.sigmas)
    scheduler.set_timesteps(steps)
    scheduler.betas = torch.tensor(process.sigmas, dtype=torch.float64)
    scheduler.alphas = torch.tensor(process.alphas, dtype=torch.float64)
    scheduler.set_begin_index(0)

    def velocity(x, alpha, sigma):
        denoised = problem.score.denoise(x, alpha, sigma)
        return alpha * (x - alpha * denoised) / sigma - sigma * denoised

    expected = ended(scheduler, process, velocity, range(steps))
    found = FittedIPNDM(problem, process.times, 4).integrate(start(process), None)
    assert_agree(found, expected, ROUNDING)
