"""Kernel centres at the training rows, and a grid over the rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kfpbench
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.eigensolvers.krylov import Krylov
from kfpbench.eigensolvers.nystrom import Nystrom
from kfpbench.eigensolvers.randomized import Randomized
from kfpbench.eigensolvers.rff import RandomFourierFeatures
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.kernels.rbf import RBF
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions, freeze, segments
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.samplers.koopman import Koopman
from kfpbench_baselines.gaussian import ClosedFormGaussian

CPU, F64 = torch.device("cpu"), torch.float64
SUITE = """\
schema_version: 1
name: ranks
data: {name: gmm_ring, train: 300, validation: 100, test: 100}
score: mixture
process: {name: ve, sigma_min: 0.05, sigma_max: 10.0}
samplers:
  - {name: koopman, label: spectral, operator: {segments: 2, points: 30}}
grid:
  samplers.spectral.operator.time: [frozen, piecewise, augmented]
  samplers.spectral.rank: [0, 3, null]
metrics: [energy_distance]
n_samples: 40
device: cpu
"""


def stream(count: int, dimension: int = 2) -> NoiseStream:
    return NoiseStream.of_range(5, 0, count, dimension, CPU, F64)


# ---- centres


@pytest.mark.parametrize("frame", ["raw", "whitened"])
def test_training_centres_are_the_rows_without_their_noise(make_problem, planar, frame):
    """c = y(alpha x_0) for the very rows from which the points were made; the points themselves stay as they are."""
    problem = make_problem(planar, VariancePreserving())
    placed = FRAMES[frame](planar, CPU, F64)
    noised, training = (
        GeneratorOptions(eta=1.0, points=200, frame=frame, centres=centres) for centres in ("noised", "training")
    )
    at = segments(problem, noised)[4].middle
    plain, moved = (freeze(problem, options, placed, at, 4).pencil for options in (noised, training))
    assert plain.centres is None
    assert torch.equal(plain.points, moved.points)
    origin = placed.decode(moved.centres, at) / at.alpha
    assert float(torch.cdist(origin, torch.as_tensor(planar.train, dtype=F64)).amin(1).max()) < 1e-5
    # the noise that was added to them has standard deviation sigma: points are that far from their centres
    noise = torch.cdist(placed.decode(moved.points, at), at.alpha * origin).amin(1) / at.sigma
    assert float(noise.max()) < 5.0
    assert len(torch.unique(moved.centres, dim=0)) == len(moved.centres) <= 200


@pytest.mark.parametrize("solver", [DenseEigensolver, Nystrom])
def test_at_full_rank_both_centres_span_what_the_flow_needs(make_problem, gaussian_data, solver):
    """Gaussian data, raw frame, eta = 0, where the data's scale exceeds the noise: both follow the closed form.

    The drift is linear there, which either set of 300 wide sections represents: to 1 % of the rows' scale (median).
    """
    process = VarianceExploding(0.05, 0.5)
    exact = ClosedFormGaussian().fit(make_problem(gaussian_data, process)).sample(stream(300, 3))
    rows = {}
    for centres in ("noised", "training"):
        options = GeneratorOptions(segments=8, points=300, frame="raw", centres=centres)
        sampler = Koopman(RBF("median", factor=2.0), solver(truncation=1e-12, max_rank=None), operator=options)
        rows[centres] = sampler.fit(make_problem(gaussian_data, process)).sample(stream(300, 3))
    scale = float(exact.std())
    assert float((rows["noised"] - rows["training"]).norm(dim=1).median()) < 0.01 * scale
    assert float((rows["training"] - exact).norm(dim=1).median()) < 0.02 * scale


@pytest.mark.parametrize("solver", [Krylov(), Randomized(), RandomFourierFeatures()])
def test_solvers_without_centres_of_their_own_say_so(make_problem, planar, solver):
    options = GeneratorOptions(eta=1.0, segments=1, points=30, centres="training")
    sampler = Koopman(eigensolver=solver, operator=options, rank=5 if isinstance(solver, Krylov) else None)
    with pytest.raises(CapabilityError, match="centres"):
        sampler.fit(make_problem(planar, VarianceExploding(0.05, 10.0)))


def test_impossible_centres_are_refused():
    with pytest.raises(ParameterError, match="centres"):
        GeneratorOptions(centres="grid")
    with pytest.raises(CapabilityError, match="different instants"):
        GeneratorOptions(centres="training", time="augmented")


# ---- a grid over the rank


def test_a_grid_over_rank_and_time(tmp_path: Path):
    """Every cell runs, but those of a few pairs of the augmented operator, which are skipped with the reason.

    The setup's evaluations, N x operators, are a measurement of each cell: the report's break-even starts from it.
    """
    (tmp_path / "ranks.yaml").write_text(SUITE)
    result = kfpbench.run(tmp_path / "ranks.yaml", out=tmp_path / "run")
    assert len(result.records) == 9
    found = {}
    for record in result.records:
        sampler = record.spec["sampler"]
        setup = {entry["metric"]: entry["value"] for entry in record.measurements}.get("setup_nfe")
        found[sampler["operator"]["time"], sampler["rank"]] = (record.status, setup, record.reason)
    assert {key: value[:2] for key, value in found.items()} == {
        ("frozen", 0): ("ok", 0.0),
        ("frozen", 3): ("ok", 30.0),
        ("frozen", None): ("ok", 30.0),
        ("piecewise", 0): ("ok", 0.0),
        ("piecewise", 3): ("ok", 60.0),
        ("piecewise", None): ("ok", 60.0),
        ("augmented", 0): ("ok", 0.0),
        ("augmented", 3): ("skipped", None),
        ("augmented", None): ("ok", 30.0),
    }
    assert "all eigenpairs" in found["augmented", 3][2]
