"""The acceptance criterion of the spectral sampler, on the ring of Gaussians.

"Ring of Gaussians: the spectral sampler is as good as Heun with 200 steps up to a factor 1.5, tested so that noise
cannot decide it: unbiased energy distance, n >= 20,000, at least 10 paired seeds, and the upper end of the interval of
(spectral - 1.5 x Heun) below the 95 % quantile of exact-against-exact."

- A pair shares the noise indices and the reference, drawn from the exact law; the fit's seed is the pair's seed.
- The interval is the two-sided 95 % t-interval of the mean of the pairs' differences.
- The quantile is that of ONE exact-against-exact energy distance at the same n, from independent pairs of draws: what
  a perfect sampler would show in one run. (The mean over 10 pairs has a narrower null; the criterion says this one.)

The configuration was chosen with seeds 100 and 101, by the excess over Heun with the same noise and reference.
There, 0.2 of the median distance beats 0.15, 0.25 and 0.3, and a small ridge beats spectral truncation at 1e-6 or 1e-9.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t

from kfpbench.data.mixtures import RingMixture
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.kernels.rbf import RBF
from kfpbench.metrics.energy_distance import energy_distance
from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.operators.tiled import TiledGram
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem
from kfpbench.samplers.koopman import Koopman
from kfpbench.scores.mixture import MixtureScore
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

N = 20_000
SEEDS = range(10)
NULL_PAIRS = 40
FACTOR = 1.5
CPU = torch.device("cpu")


def spectral(segments: int) -> Koopman:
    return Koopman(
        kernel=RBF("median", factor=0.2),
        eigensolver=DenseEigensolver(ridge=1e-9, truncation=1e-12, max_rank=200),
        backend=TiledGram(tile=512),
        operator=GeneratorOptions(eta=0.0, segments=segments, frame="whitened", points=1000),
    )


SAMPLERS: dict[str, Any] = {
    "spectral": spectral(32),
    "heun": ProbabilityFlowHeun(200),
    "gaussian": ClosedFormGaussian(),
    "two segments": spectral(2),
}


# ---- the energy distance of points in the plane, from sums of distances that are shared between comparisons


def mean_distance(a: torch.Tensor, b: torch.Tensor, rows: int = 128, columns: int = 2048) -> float:
    """Mean of |a_i - b_j| over all pairs, i != j where a is b; a (n, 2) and b (m, 2) float32.

    Differences, not a product form: a distance has a relative error of about 1e-7 with random sign. Tiles stay in the
    cache; where a is b, those above the diagonal count twice.
    """
    total = 0.0
    buffers = torch.empty(2, rows * columns)
    (ax, ay), (bx, by) = a.T.contiguous(), b.T.contiguous()
    for start in range(0, len(a), rows):
        stop = min(start + rows, len(a))
        edges = {*range(0, len(b), columns), len(b)}
        if a is b:
            edges = {edge for edge in edges if edge > stop} | {start, stop}
        for first, last in pairwise(sorted(edges)):
            shape = stop - start, last - first
            u, v = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
            torch.sub(ax[start:stop, None], bx[first:last], out=u)
            torch.sub(ay[start:stop, None], by[first:last], out=v)
            part = u.square_().addcmul_(v, v).sqrt_().sum().item()
            total += 2.0 * part if a is b and first >= stop else part
    return total / (len(a) * (len(b) - (a is b)))


def distance_from(samples: torch.Tensor, reference: torch.Tensor, within_reference: float) -> float:
    """Unbiased energy distance, the U-statistic of kfpbench.metrics.energy_distance."""
    return 2.0 * mean_distance(samples, reference) - mean_distance(samples, samples) - within_reference


def test_the_shortcut_is_the_metric(ring_law):
    x, y = (exact_draw(ring_law, 3, part, 3001 + part) for part in range(2))
    y *= 1.1
    found = distance_from(x, y, mean_distance(y, y))
    assert found == pytest.approx(energy_distance(x.numpy(), y.numpy()), abs=1e-6)


# ---- draws


def exact_draw(law, seed: int, part: int, n: int = N) -> torch.Tensor:
    return torch.from_numpy(law.sample(n, np.random.default_rng([20_26, seed, part])))


@pytest.fixture(scope="module")
def dataset():
    return RingMixture().load()


@pytest.fixture(scope="module")
def ring_law(dataset):
    return dataset.law


@pytest.fixture(scope="module")
def null_quantile(ring_law) -> float:
    values = []
    for pair in range(NULL_PAIRS):
        x, y = (exact_draw(ring_law, 1_000 + pair, part) for part in range(2))
        values.append(distance_from(x, y, mean_distance(y, y)))
    quantile = float(np.quantile(values, 0.95))
    print(
        f"\nexact against exact: mean {np.mean(values):.2e}, sd {np.std(values):.2e}, 95 % quantile {quantile:.2e}",
        flush=True,
    )
    return quantile


@pytest.fixture(scope="module")
def distances(dataset):
    """Energy distance of a sampler for a seed; references and Heun's samples are measured once a seed."""
    references: dict[int, tuple[torch.Tensor, float]] = {}
    known: dict[tuple[str, int], float] = {}

    def of(name: str, seed: int) -> float:
        if seed not in references:
            reference = exact_draw(dataset.law, seed, 0)
            references[seed] = reference, mean_distance(reference, reference)
        if (name, seed) not in known:
            score = MixtureScore().bind(dataset, CPU, torch.float32)
            problem = Problem(dataset, VarianceExploding(0.01, 20.0), score, CPU, torch.float32, seed)
            noise = NoiseStream.of_range(seed, 0, N, dataset.dimension, CPU, torch.float32)
            known[name, seed] = distance_from(SAMPLERS[name].fit(problem).sample(noise), *references[seed])
        return known[name, seed]

    return of


def interval(distances, name: str, seeds: range) -> tuple[float, float]:
    """95 % t-interval of the mean of (sampler - 1.5 x Heun) over the paired seeds."""
    values = [(distances(name, seed), distances("heun", seed)) for seed in seeds]
    differences = np.array([sampler - FACTOR * heun for sampler, heun in values])
    mean, half = differences.mean(), student_t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / len(seeds) ** 0.5
    print(f"\n{name}:", " ".join(f"({sampler:.1e}, {heun:.1e})" for sampler, heun in values))
    print(f"{name} - {FACTOR} heun: {mean:.2e}, {mean - half:.2e} to {mean + half:.2e}", flush=True)
    return mean - half, mean + half


def test_as_good_as_heun_with_200_steps(distances, null_quantile):
    _, high = interval(distances, "spectral", SEEDS)
    assert high < null_quantile


@pytest.mark.parametrize("defect", ["gaussian", "two segments"])
def test_the_criterion_rejects_a_sampler_that_is_not(distances, null_quantile, defect):
    # the lower end lies above the quantile too: rejected by what it is, not by the width of three seeds' interval
    low, _ = interval(distances, defect, range(3))
    assert low > null_quantile


def test_heun_itself_passes(distances, null_quantile):
    # -0.5 x Heun: the bar is not so tight that the yardstick would fail it
    assert interval(distances, "heun", SEEDS)[1] < null_quantile
