"""Row i of every registered sampler depends on (seed, index i) alone.

Noise is bitwise the same for any batch. Samples agree to GEMM rounding: BLAS chooses its blocking by the number of
rows, so a dot product over N terms is summed in another order. In float64 an element moves by at most a few eps N |w|
with eps = 1.1e-16; with N <= 40 points and fitted weights |w| <= 1e4 that is below 1e-9 of the data's scale, and no
dependence on the batch that anyone would notice (a mean, a norm, an adaptive step) could hide there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import FittedSampler, Problem
from kfpbench.registry import available, find

COUNT = 22
TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-3
SMALL: dict[str, list[dict[str, Any]]] = {
    "koopman": [
        {"operator": GeneratorOptions(segments=3, points=40, eta=eta, frame=frame)}
        for eta in (0.0, 1.0)
        for frame in ("whitened", "raw", "posterior")
    ]
    + [{"operator": GeneratorOptions(segments=3, points=40), "backend": "tiled"}],
    "density": [
        {
            "operator": GeneratorOptions(segments=3, points=40, eta=1.0, frame=frame),
            "smoothing": smoothing,
            "clusters": 3,
        }
        for frame, smoothing in (("whitened", "isotropic"), ("posterior", "local_low_rank"), ("raw", "renoised"))
    ],
    "euler_maruyama": [{"steps": 7}, {"steps": 7, "eta": 0.5}],
    "pf_ode_euler": [{"steps": 7}],
    "pf_ode_heun": [{"steps": 7}],
}


def examples(name: str) -> Sequence[dict[str, Any]]:
    """The cheap examples that a sampler gives its contract suite, or its defaults."""
    found: Sequence[dict[str, Any]] = getattr(find("samplers", name).load(), "contract_examples", ({},))
    return found


CASES = [
    pytest.param(name, parameters, id=f"{name}-{number}")
    for name in available("samplers")
    for number, parameters in enumerate(SMALL.get(name) or examples(name))
]
ORDERS = {
    "one batch": [list(range(COUNT))],
    "batches of 1": [[index] for index in range(COUNT)],
    "batches of 3": [list(range(start, min(start + 3, COUNT))) for start in range(0, COUNT, 3)],
    "batches of 7": [list(range(start, min(start + 7, COUNT))) for start in range(0, COUNT, 7)],
    "reversed": [list(range(COUNT))[::-1]],
    "reversed batches of 7": [list(range(start, min(start + 7, COUNT)))[::-1] for start in range(14, -1, -7)]
    + [[COUNT - 1]],
}


class RecordingStream(NoiseStream):
    """A noise stream that keeps what it gave: the rows of each draw by sample index."""

    def normal(self, draw: int) -> torch.Tensor:
        rows = super().normal(draw)
        given = self.__dict__.setdefault("given", {})
        number = self.first_draw + draw
        given.update({(number, index): row for index, row in zip(self.indices.tolist(), rows, strict=True)})
        return rows

    def after(self, draws: int) -> NoiseStream:
        return self._sharing(super().after(draws))

    def select(self, rows: torch.Tensor) -> NoiseStream:
        return self._sharing(super().select(rows))

    def _sharing(self, part: NoiseStream) -> NoiseStream:
        part.__dict__["given"] = self.__dict__.setdefault("given", {})
        return part


@pytest.fixture(scope="module")
def fitted(make_problem, planar):
    """Fitted samplers, each fitted once."""
    kept: dict[Any, FittedSampler] = {}

    def get(name: str, parameters: dict[str, Any], dtype: torch.dtype = torch.float64) -> FittedSampler:
        key = (name, repr(parameters), dtype)
        if key not in kept:
            kept[key] = fit(name, parameters, make_problem(planar, VarianceExploding(0.05, 10.0), dtype))
        return kept[key]

    return get


def fit(name: str, parameters: dict[str, Any], problem: Problem) -> FittedSampler:
    return find("samplers", name).load()(**parameters).fit(problem)


def draw(
    sampler: FittedSampler, batches: list[list[int]], seed: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, dict[tuple[int, int], torch.Tensor]]:
    """Rows in the order of their index, drawn in the given batches, and the noise that they were made from."""
    rows = torch.full((COUNT, 2), float("nan"), dtype=dtype)
    given: dict[tuple[int, int], torch.Tensor] = {}
    for batch in batches:
        stream = RecordingStream(seed, torch.tensor(batch), 2, dtype)
        rows[torch.tensor(batch)] = sampler.sample(stream)
        given.update(stream.__dict__["given"])
    return rows, given


@pytest.mark.parametrize("batches", [pytest.param(batches, id=name) for name, batches in ORDERS.items()])
@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_rows_do_not_depend_on_the_batch(fitted, name, parameters, batches):
    sampler = fitted(name, parameters)
    whole, noise = draw(sampler, [list(range(COUNT))])
    rows, given = draw(sampler, batches)
    assert given.keys() == noise.keys()
    assert all(torch.equal(given[key], noise[key]) for key in noise)
    assert (rows - whole).abs().max() <= TOLERANCE * whole.abs().max()


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_single_precision_rows_agree_to_single_rounding(fitted, name, parameters):
    # eps is 5e8 times larger than in float64, and so is the bound: 1e-9 would become 0.5. What is found stays below
    # 1e-3 of the data's scale, which is 300 times closer than two modes of the mixture are
    sampler = fitted(name, parameters, torch.float32)
    whole, noise = draw(sampler, ORDERS["one batch"], dtype=torch.float32)
    for batches in ORDERS.values():
        rows, given = draw(sampler, batches, dtype=torch.float32)
        assert all(torch.equal(given[key], noise[key]) for key in noise)
        assert (rows - whole).abs().max() <= SINGLE_TOLERANCE * whole.abs().max()


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_a_seed_decides_everything(make_problem, planar, name, parameters):
    process = VarianceExploding(0.05, 10.0)
    first, again = (fit(name, parameters, make_problem(planar, process, seed=3)) for _ in range(2))
    batch = [list(range(COUNT))]
    rows = draw(first, batch)[0]
    assert torch.equal(rows, draw(again, batch)[0])
    assert torch.equal(rows, draw(first, batch)[0])  # sampling leaves no trace in the sampler
    other = draw(first, batch, seed=6)[0]
    assert (rows - other).abs().amin(dim=0).min() > 0.0


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_seed_of_the_fit_moves_the_points_of_a_spectral_sampler(make_problem, planar, eta):
    parameters = {"operator": GeneratorOptions(segments=3, points=40, eta=eta)}
    process = VarianceExploding(0.05, 10.0)
    one, other = (fit("koopman", parameters, make_problem(planar, process, seed=seed)) for seed in (3, 4))
    centres = [fitted.steps[0].displacement.expansion.centres for fitted in (one, other)]
    assert not torch.equal(*centres)
    # a spectral sampler draws its own noise apart from the fit's, even under the same seed
    noise = NoiseStream.of_range(3, 0, 40, 2, torch.device("cpu"), torch.float64)
    fit_noise = NoiseStream.of_range(3, 0, 40, 2, torch.device("cpu"), torch.float64, stream=1)
    overlap = torch.corrcoef(torch.stack([noise.normal(1).flatten(), fit_noise.normal(1).flatten()]))[0, 1]
    assert abs(float(overlap)) < 4.4 / math.sqrt(80)


def test_a_dependence_on_the_batch_would_be_found(fitted):
    """The planted defect: rows shifted by a ten-millionth of the batch's mean."""

    class Leaky:
        def sample(self, noise: NoiseStream) -> torch.Tensor:
            rows = fitted("gaussian", {}).sample(noise)
            return rows + 1e-7 * rows.mean(0)

        def describe(self) -> dict[str, Any]:
            return {}

    whole, _ = draw(Leaky(), ORDERS["one batch"])
    rows, _ = draw(Leaky(), ORDERS["batches of 7"])
    assert (rows - whole).abs().max() > TOLERANCE * whole.abs().max()
