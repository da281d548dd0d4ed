"""estimate_spectrum on large arrays: float32 input is not copied whole, and no check takes more than the points do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench import estimate_spectrum
from kfpbench.eigensolvers.doubts import moments_are_invariant
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.runner.memory import PeakMemory

N, D = 60_000, 128


def test_float32_arrays_are_converted_only_where_they_are_fitted():
    """In float64 the split takes 16 N d bytes (points and drift); whole copies beside it would take as much again."""
    scale = (1.0 / np.arange(1, D + 1)).astype(np.float32)
    x = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32) * scale
    drift = -x
    solver = {"eigensolver": "nystrom", "eigensolver_params": {"centres": 40}}
    estimate_spectrum(x[:100], drift[:100], 1.0, **solver)  # what is imported on the way is not counted
    with PeakMemory() as memory:
        found = estimate_spectrum(x, drift, scale.astype(np.float64) ** 2, n_eigs=2, **solver)
    if memory.result.source != "VmHWM":
        pytest.skip(f"peak memory is not measured here: {memory.result.source}")
    assert found.status == "ok"
    assert memory.result.increase is not None
    assert memory.result.increase < 2.2 * 16 * N * D
    assert found.points.dtype == torch.float32
    assert found.propagate(x[:, :1], 0.1).shape == (N, 1)
    assert found.propagate(lambda z: z[:, 0], 0.1, x[:3]).shape == (3,)


def test_moments_of_a_diagonal_diffusion_in_high_dimension():
    """O(N d) memory: one vector field an axis would take 8 N d^2 bytes, 8 GB here."""
    count, dimension = 4000, 512
    x = torch.randn((count, dimension), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = torch.ones(dimension, dtype=torch.float64)
    with PeakMemory() as memory:
        assert moments_are_invariant(GalerkinPencil.uniform(x, -x, Diffusion.constant(a)))
        assert not moments_are_invariant(GalerkinPencil.uniform(x, -x, Diffusion.constant(1.5 * a)))
        matrix = Diffusion.constant(torch.eye(dimension, dtype=torch.float64))
        assert moments_are_invariant(GalerkinPencil.uniform(x, -x, matrix))
        assert not moments_are_invariant(GalerkinPencil.uniform(x, x, matrix))
    if memory.result.increase is None or memory.result.source != "VmHWM":
        pytest.skip(f"peak memory is not measured here: {memory.result.source}")
    assert memory.result.increase < 20 * 8 * count * dimension
