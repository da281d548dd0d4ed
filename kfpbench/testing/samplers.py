"""The contract of samplers: row i depends on the seed and on index i alone, and evaluations of the score are counted.

The problem is a mixture of six Gaussians in the plane with its exact score, from noise of scale 10.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from kfpbench.data.mixtures import PlanarMixture
from kfpbench.noise import NoiseStream
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import FittedSampler, Problem, ProblemSize, SamplerPlugin
from kfpbench.scores.mixture import MixtureScore
from kfpbench.testing.contract import Contract, ContractError, remembered, require
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("samplers")
_COUNT = 15
_SEED = 5
# BLAS chooses its blocking by the number of rows, so sums are in another order: a few eps N |w| for N terms of weight w
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_BATCHES = {
    "batches of 1": [[index] for index in range(_COUNT)],
    "batches of 4": [list(range(start, min(start + 4, _COUNT))) for start in range(0, _COUNT, 4)],
    "the reversed order": [list(range(_COUNT))[::-1]],
}


def problem(dtype: torch.dtype = torch.float64) -> Problem:
    """2,000 training rows of the planar mixture, the exact score with its counter at 0."""
    dataset = PlanarMixture(train=2000, validation=10, test=10).load()
    cpu = torch.device("cpu")
    score = MixtureScore().bind(dataset, cpu, dtype)
    return Problem(dataset, VarianceExploding(0.05, 10.0), score, cpu, dtype, 3)


@CONTRACT
def fitted_sampler_has_its_members(sampler: SamplerPlugin) -> None:
    """``fit`` returns an object with ``sample`` and ``describe``, and changes neither the sampler nor the data."""
    before, given = snapshot(sampler), problem()
    rows = given.dataset.train.copy()
    fitted = sampler.fit(given)
    for name in ("sample", "describe"):
        require(callable(getattr(fitted, name, None)), f"what fit returns lacks the method {name}", got=type(fitted))
    require(bool((given.dataset.train == rows).all()), "fit changes the training rows", remedy="Work on a copy.")
    altered = changed(before, sampler)
    require(not altered, "fit changes the sampler", got=", ".join(altered), remedy="Put results into what fit returns.")


@CONTRACT
def rows_are_finite(sampler: SamplerPlugin) -> None:
    """``sample`` returns finite rows (n, d) in the problem's dtype, on its device, for one row too."""
    for dtype in (torch.float64, torch.float32):
        fitted = _fitted(sampler, dtype)
        for count in (1, _COUNT):
            rows = fitted.sample(_noise(list(range(count)), dtype))
            require(tuple(rows.shape) == (count, 2), "samples have the wrong shape", got=rows.shape, allowed=(count, 2))
            require(
                rows.dtype == dtype and rows.device.type == "cpu",
                "samples are not in the problem's dtype, on its device",
                got=f"{rows.dtype} on {rows.device}",
                allowed=f"{dtype} on cpu",
            )
            bad = int((~torch.isfinite(rows)).any(dim=1).sum())
            require(bad == 0, "samples hold NaN or infinity", got=f"{bad} of {count} rows")


@CONTRACT
def rows_do_not_depend_on_the_batch(sampler: SamplerPlugin) -> None:
    """Row i is the same whatever else is in the batch: to 1e-9 of the largest entry in float64, to 1e-3 in float32."""
    for dtype, tolerance in _TOLERANCE.items():
        fitted = _fitted(sampler, dtype)
        whole = fitted.sample(_noise(list(range(_COUNT)), dtype))
        for name, batches in _BATCHES.items():
            rows = torch.empty_like(whole)
            for batch in batches:
                rows[batch] = fitted.sample(_noise(batch, dtype))
            gap, allowed = float((rows - whole).abs().max()), tolerance * float(whole.abs().max())
            require(
                gap <= allowed,
                f"a row depends on the batch that it is drawn in: one batch and {name} differ",
                got=f"{gap:.2e} in {str(dtype).removeprefix('torch.')}",
                allowed=f"{allowed:.1e}",
                remedy="Take all noise from the NoiseStream, and no mean, norm or step size from the batch.",
            )


@CONTRACT
def is_deterministic(sampler: SamplerPlugin) -> None:
    """The same seeds give the same rows, bit by bit, from a second draw and from a second fit; other seeds others."""
    fitted, indices = _fitted(sampler, torch.float64), list(range(_COUNT))
    rows = fitted.sample(_noise(indices)).clone()
    again = torch.equal(rows, fitted.sample(_noise(indices)))
    require(again, "a second draw differs from the first", remedy="Sampling must leave no trace in the sampler.")
    refitted = torch.equal(rows, sampler.fit(problem()).sample(_noise(indices)))
    require(refitted, "a second fit gives other rows", remedy="Derive all randomness from problem.seed.")
    other = fitted.sample(_noise(indices, seed=6))
    moved = bool(((rows - other).abs().amax(dim=0) > 0).all())
    require(moved, "another seed gives the same rows", remedy="Start from noise.normal(0).")
    distinct = len(torch.unique(rows, dim=0))
    require(distinct == _COUNT, "different indices give equal rows", got=distinct, allowed=_COUNT)


@CONTRACT
def score_evaluations_are_counted(sampler: SamplerPlugin) -> None:
    """The score counts equally many evaluations for every row, in any batch, and the sampler leaves the count alone."""
    given = problem()
    fitted = sampler.fit(given)
    shares = []
    for count in (4, _COUNT):
        before = given.score.evaluations
        fitted.sample(_noise(list(range(count))))
        shares.append((given.score.evaluations - before) / count)
    require(
        shares[0] == shares[1] and shares[0] >= 0,
        "the number of score evaluations a row depends on the batch, or the count was reset",
        got=shares,
        allowed="equal, and not negative",
        remedy="Call problem.score with rows of the batch alone, and leave its counter alone.",
    )


@CONTRACT
def describes_itself_in_json(sampler: SamplerPlugin) -> None:
    """``describe`` of the fitted sampler returns a dictionary that JSON can hold."""
    record: Any = _fitted(sampler, torch.float64).describe()
    require(isinstance(record, dict), "describe returns no dictionary", got=type(record).__name__)
    try:
        json.dumps(record)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"describe returns what JSON cannot hold: {error}",
            got=record,
            allowed="numbers, text, lists, dictionaries, None",
            remedy="Write tensors as float(...) or .tolist().",
        ) from error


@CONTRACT
def predicts_its_working_memory(sampler: SamplerPlugin) -> None:
    """``working_memory`` is a whole number of bytes that does not fall with the batch."""
    found: list[Any] = [sampler.working_memory(ProblemSize(2000, 8, batch, 8)) for batch in (10, 1000)]
    for each in found:
        require(
            isinstance(each, int) and not isinstance(each, bool) and each >= 0,
            "working_memory is not a whole number of bytes",
            got=each,
            allowed="an int of at least 0",
        )
    require(found[0] <= found[1], "working_memory falls with the batch", got=found)


def _fitted(sampler: SamplerPlugin, dtype: torch.dtype) -> FittedSampler:
    found: FittedSampler = remembered(sampler, f"fitted {dtype}", lambda: sampler.fit(problem(dtype)))
    return found


def _noise(indices: list[int], dtype: torch.dtype = torch.float64, seed: int = _SEED) -> NoiseStream:
    return NoiseStream(seed, torch.tensor(indices), 2, dtype)
