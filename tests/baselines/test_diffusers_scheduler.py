"""The adapter against diffusers' own loop around a network that a DDPM or EDM checkpoint would be, and exact flows."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.span import split
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.suite.signature import read_signature
from kfpbench_baselines.diffusers_scheduler import DiffusersScheduler
from kfpbench_baselines.schedules import time_grid

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own, of numpy, by the thousand


def data():
    rng = np.random.default_rng(12)
    mixing = np.array([[0.4, 0.0], [0.15, 0.2]])
    rows = (rng.standard_normal((400, 2)) @ mixing.T + np.array([0.3, -0.2])).astype(np.float32)
    return Dataset("gauss", rows, rows[:0], rows[:0])


DATA = data()


def make(process, dtype=torch.float64):
    return Problem(DATA, process, GaussianScore().bind(DATA, CPU, dtype), CPU, dtype, 0)


def noise(count=20, seed=1):
    return NoiseStream.of_range(seed, 0, count, 2, CPU, torch.float64)


def data_of(x, process):
    """The exact flow of rows x (n, 2) from t_max to sigma = 0."""
    moments, t = training_moments(DATA), process.t_max
    mean, basis, variances = (torch.tensor(part) for part in (moments.mean, moments.basis, moments.variances))
    ratio = (variances / (process.alpha(t) ** 2 * variances + process.sigma(t) ** 2)).sqrt()
    return mean + ((x - process.alpha(t) * mean) @ basis * ratio) @ basis.T


CHAINS = [
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
]


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_driven_as_a_ddpm_checkpoint_would_drive_it(name):
    """The network sees scale_model_input's rows and an integer timestep t; it belongs to alphas_cumprod[t] alone."""
    problem = make(VarianceExploding(0.01, 20.0))
    fitted = DiffusersScheduler(name, steps=8).fit(problem)
    scheduler = fitted.ready()
    x = scheduler.init_noise_sigma * noise().normal(0)
    for t in scheduler.timesteps:
        assert float(t) == int(t)
        rows = scheduler.scale_model_input(x, t)
        kept = float(scheduler.alphas_cumprod[int(t)])
        alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
        eps = (rows - alpha * problem.score.denoise(rows, alpha, sigma)) / sigma
        x = scheduler.step(eps, t, x).prev_sample
    # alphas_cumprod and sigmas are float32: at sigma = 0.01, 1 - alphas_cumprod = 1e-4 has a relative error of 1e-3
    torch.testing.assert_close(fitted.sample(noise()), x.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_is_driven_as_an_edm_checkpoint_would_drive_it(name):
    """The network sees c_in x and c_noise = log(sigma) / 4 and returns F = (D - c_skip x) / c_out (Table 1)."""
    problem, sd = make(VarianceExploding(0.01, 20.0)), 0.5
    fitted = DiffusersScheduler(name, steps=8).fit(problem)
    scheduler = fitted.ready()
    x = scheduler.init_noise_sigma * noise().normal(0)
    for c_noise in scheduler.timesteps:
        sigma = math.exp(4 * float(c_noise))
        rows = scheduler.scale_model_input(x, c_noise) * math.sqrt(sigma**2 + sd**2)
        denoised = problem.score.denoise(rows, 1.0, sigma)
        network = (denoised - sd**2 / (sigma**2 + sd**2) * rows) / (sigma * sd / math.sqrt(sigma**2 + sd**2))
        x = scheduler.step(network, c_noise, x).prev_sample
    torch.testing.assert_close(fitted.sample(noise()), x.double(), rtol=1e-4, atol=1e-4)


def test_edm_euler_is_the_formula_on_the_grid_of_the_process():
    # y <- D + (q' / q) (y - D) on the levels of the grid "edm", then D
    problem = make(VarianceExploding(0.01, 20.0))
    levels = [*time_grid(problem.process, 7, "edm"), 0.0]
    x = math.sqrt(20.0**2 + 1) * noise().normal(0)  # their init_noise_sigma
    for q, following in pairwise(levels):
        denoised = problem.score.denoise(x, 1.0, q)
        x = denoised + following / q * (x - denoised)
    fitted = DiffusersScheduler("EDMEulerScheduler", steps=8).fit(problem)
    torch.testing.assert_close(fitted.sample(noise()), x, rtol=1e-5, atol=1e-5)


SECOND_ORDER = [  # LMS and KDPM2 too, but their own tables take seconds to make
    "PNDMScheduler",
    "HeunDiscreteScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "IPNDMScheduler",
]


@pytest.mark.parametrize("process", [VarianceExploding(0.01, 20.0), VariancePreserving(t_min=1e-3)], ids=["ve", "vp"])
@pytest.mark.parametrize("name", SECOND_ORDER)
def test_methods_of_order_two_find_the_flow(name, process):
    _, behind = split(process, 5.0)
    problem = make(behind)
    x = behind.alpha(behind.t_max) * torch.tensor([[0.4, 0.1]]).double() + behind.sigma(behind.t_max) * noise().normal(
        0
    )
    errors = [
        float((DiffusersScheduler(name, steps).fit(problem).integrate(x, noise()) - data_of(x, behind)).abs().max())
        for steps in (10, 50)  # they divide the 1,000 levels: PNDM steps by the quotient
    ]
    assert errors[1] < 0.02  # the data's standard deviations are 0.2 and 0.4
    assert errors[1] < 0.5 * errors[0]


STOCHASTIC = [
    ("DDPMScheduler", {}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("SASolverScheduler", {}),
]


@pytest.mark.parametrize(("name", "options"), STOCHASTIC)
def test_stochastic_ones_draw_their_noise_row_by_row(name, options):
    problem = make(VarianceExploding(0.01, 20.0))
    fitted = DiffusersScheduler(name, steps=6, options=options).fit(problem)
    rows = fitted.sample(noise())
    few = noise().select(torch.tensor([7, 2]))
    torch.testing.assert_close(fitted.sample(few), rows[[7, 2]], rtol=0, atol=1e-6)
    x = problem.process.sigma(problem.process.t_max) * noise().normal(0)
    first, second = (fitted.integrate(x, noise(seed=seed)) for seed in (1, 2))
    assert float((first - second).abs().amin()) > 0  # the same start, other noise on the way


def test_evaluations_are_those_that_the_score_counts():
    problem = make(VarianceExploding(0.01, 20.0))
    fitted = DiffusersScheduler("HeunDiscreteScheduler", steps=6).fit(problem)
    assert problem.score.evaluations == 0  # the trial asks no score
    fitted.sample(noise(5))
    assert problem.score.evaluations == 5 * 11
    assert fitted.describe() == {"scheduler": "HeunDiscreteScheduler", "steps": 6}


def test_options_reach_the_scheduler_and_come_first():
    problem = make(VarianceExploding(0.01, 20.0))
    fitted = DiffusersScheduler("EulerDiscreteScheduler", 6, {"use_karras_sigmas": True}).fit(problem)
    found = fitted.ready().sigmas[:-1].numpy()
    # Karras et al. (2022), eq. (5), from the first to the last level that the spacing has chosen
    ends = found[0] ** (1 / 7), found[-1] ** (1 / 7)
    np.testing.assert_allclose(found, (ends[0] + np.arange(6) / 5 * (ends[1] - ends[0])) ** 7, rtol=1e-4)
    assert found[0] == pytest.approx(20.0, rel=1e-3)
    given = DiffusersScheduler("EDMEulerScheduler", 6, {"sigma_max": 3.0}).fit(problem)
    assert float(given.ready().sigmas[0]) == pytest.approx(3.0)
    with pytest.raises(CapabilityError, match="does not start at"):
        given.integrate(noise().normal(0), noise())


def test_the_suite_reads_the_options():
    model = read_signature(DiffusersScheduler).model
    found = model.model_validate({"scheduler": "DDIMScheduler", "options": {"clip_sample": True, "steps_offset": 1}})
    assert found.model_dump()["options"] == {"clip_sample": True, "steps_offset": 1}


def test_an_unknown_scheduler_gets_close_names():
    with pytest.raises(ParameterError, match="EulerDiscreteScheduler"):
        DiffusersScheduler("EulerDiscretScheduler").fit(make(VarianceExploding()))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("FlowMatchEulerDiscreteScheduler", "does not lead"),
        ("DDIMInverseScheduler", "does not lead"),
        ("RePaintScheduler", "fails"),
    ],
)
def test_schedulers_of_another_kind_are_refused(name, reason):
    with pytest.raises(CapabilityError, match=reason):
        DiffusersScheduler(name, steps=4).fit(make(VarianceExploding()))


def test_a_scheduler_that_misses_the_data_is_refused():
    # clipping to [-1, 1] keeps the trial's points, a learned variance's two outputs do not fit: the trial tells both
    DiffusersScheduler("DDPMScheduler", 4, {"clip_sample": True}).fit(make(VarianceExploding()))
    with pytest.raises(CapabilityError, match="DDPMScheduler"):
        DiffusersScheduler("DDPMScheduler", 4, {"clip_sample": True, "clip_sample_range": 0.1}).fit(
            make(VarianceExploding())
        )


def test_impossible_options_are_refused():
    with pytest.raises(ParameterError, match="no such option"):
        DiffusersScheduler("DDIMScheduler", 4, {"colour": 1}).fit(make(VarianceExploding()))
    for name in ("prediction_type", "trained_betas"):
        with pytest.raises(ParameterError, match=name):
            DiffusersScheduler("DDIMScheduler", 4, {name: "sample"})


def test_without_diffusers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.schedulers", None)
    with pytest.raises(CapabilityError, match=r"pip install \"kfpbench\[diffusers\]\""):
        DiffusersScheduler().fit(make(VarianceExploding()))
