"""What a sampler says it will take, against the bytes of all tensors that are alive at once while it samples."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kfpbench import registry
from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import moments_memory
from kfpbench.noise import NoiseStream
from kfpbench.processes.vp import VariancePreserving
from kfpbench.protocols import Problem, ProblemSize
from kfpbench.scores.counted import CountedScore
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.integrator import NOISE_BYTES

CPU = torch.device("cpu")
ROWS, D = 3000, 48  # large against all that does not grow with the batch
INTEGRATORS = [
    "euler_maruyama",
    "pf_ode_euler",
    "pf_ode_heun",
    "ddim",
    "edm_heun",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc",
    "ipndm",
    "predictor_corrector",
    "ddpm_ancestral",
    "edm_stochastic",
    "pf_ode_rk45",
]


class Alive(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed; ``peak`` in bytes."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, key)
        return result

    def _freed(self, key):
        self.now -= self.sizes.pop(key)


class Shrunk(CountedScore):
    """A denoiser that takes one batch and no more."""

    def _denoise(self, x, alpha, sigma):
        return 0.5 * x


def problem(dtype):
    rows = np.random.default_rng(0).standard_normal((200, D)).astype(np.float32)
    return Problem(Dataset("rows", rows, rows[:0], rows[:0]), VariancePreserving(), Shrunk(), CPU, dtype, 0)


def peak(fitted, dtype):
    noise = NoiseStream.of_range(0, 0, ROWS, D, CPU, dtype)
    with Alive() as alive:
        fitted.sample(noise)
    return alive.peak


def test_the_count_sees_what_is_alive_at_once():
    x = torch.zeros(1000)
    with Alive() as alive:
        y = x + 1  # 4,000 bytes
        y = y + 1  # 8,000 while both are there
        y = y + 1
        y.view(10, 100)
    assert alive.peak == 8000
    assert alive.now == 4000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_noise_takes_what_is_stated(dtype):
    noise = NoiseStream.of_range(0, 0, ROWS, D, CPU, dtype)
    with Alive() as alive:
        noise.normal(0)
    # float64 spares the conversion to ``dtype``, float32 comes within 1 per cent
    assert 0.85 * NOISE_BYTES * ROWS * D < alive.peak <= 1.01 * NOISE_BYTES * ROWS * D


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", INTEGRATORS)
def test_the_prediction_is_an_upper_bound_and_not_far_above(name, dtype):
    component = registry.find("samplers", name).load()
    sampler = component(rtol=1e-3, atol=1e-3) if name == "pf_ode_rk45" else component(steps=6)
    found = peak(sampler.fit(problem(dtype)), dtype)
    predicted = sampler.working_memory(ProblemSize(200, D, ROWS, dtype.itemsize))
    assert found <= predicted <= 2 * found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_closed_form_gaussian_keeps_to_it_too(dtype):
    sampler = ClosedFormGaussian()
    found = peak(sampler.fit(problem(dtype)), dtype)
    predicted = sampler.working_memory(ProblemSize(200, D, ROWS, dtype.itemsize)) - moments_memory(D)
    assert found <= predicted <= 2 * found


@pytest.mark.parametrize("name", INTEGRATORS)
def test_it_grows_with_the_batch(name):
    sampler = registry.resolve("samplers", name)
    one, two = (sampler.working_memory(ProblemSize(200, D, rows, 4)) for rows in (ROWS, 2 * ROWS))
    assert two == 2 * one
