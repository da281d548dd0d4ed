"""The contract of scores: a denoiser that keeps the laws of every conditional mean, and counts its rows.

The data are 400 rows of a mixture in the plane whose law is known, else grey images of 8 x 8, else colour images of
32 x 32 pixels: the first that ``bind`` does not refuse by a CapabilityError. How good a denoiser is, is no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.data.mixtures import PlanarMixture
from kfpbench.errors import CapabilityError, DataError
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.testing.contract import Contract, NotApplicableError, remembered, require

CONTRACT = Contract("scores")
_ROWS = 6
_LEVELS = ((1.0, 0.05), (1.0, 1.0), (0.6, 0.8), (1.0, 20.0))  # (alpha, sigma)
_TOLERANCE = 2e-3  # of the largest entry: networks compute in float32, in tiles
_HARDLY = 0.02  # noise, over the data's standard deviation, through which a row is seen


@dataclass(frozen=True)
class _Bound:
    score: BoundScore
    dataset: Dataset

    def noised(self, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """Training rows x_0 and x = alpha x_0 + sigma eps, (n, d) float64 each."""
        rows = torch.from_numpy(self.dataset.train[:_ROWS]).double()
        eps = torch.from_numpy(np.random.default_rng(3).standard_normal(rows.shape))
        return rows, alpha * rows + sigma * eps


@CONTRACT
def denoises_to_finite_rows(plugin: ScorePlugin) -> None:
    """``denoise`` and ``score`` map x (n, d) to finite (n, d) of the same type, one row too, and leave x as it was."""
    bound = _bound(plugin)
    for alpha, sigma in _LEVELS:
        _, x = bound.noised(alpha, sigma)
        for name, function in (("denoise", bound.score.denoise), ("score", bound.score.score)):
            for rows in (x, x[:1]):
                given = rows.clone()
                found: Any = function(given, alpha, sigma)
                require(
                    isinstance(found, Tensor) and found.shape == rows.shape and found.dtype == rows.dtype,
                    f"{name} does not return rows like x",
                    got=f"{getattr(found, 'dtype', type(found))} {tuple(getattr(found, 'shape', ()))}",
                    allowed=f"{rows.dtype} {tuple(rows.shape)}",
                )
                finite = bool(torch.isfinite(found).all())
                require(finite, f"{name} is not finite", got=f"at alpha {alpha}, sigma {sigma}")
                require(torch.equal(given, rows), f"{name} changes x", remedy="Avoid in-place operations on x.")


@CONTRACT
def score_is_tweedies(plugin: ScorePlugin) -> None:
    """grad log p_t(x) = (alpha E[x_0 | x] - x) / sigma^2."""
    bound = _bound(plugin)
    for alpha, sigma in _LEVELS:
        _, x = bound.noised(alpha, sigma)
        exact = (alpha * bound.score.denoise(x, alpha, sigma) - x) / sigma**2
        _near(bound.score.score(x, alpha, sigma), exact, "score is not (alpha denoise - x) / sigma^2")


@CONTRACT
def depends_on_the_ratio_alone(plugin: ScorePlugin) -> None:
    """D(x; alpha, sigma) = D(x / alpha; 1, sigma / alpha): the same observation in another unit."""
    bound = _bound(plugin)
    for alpha, sigma in ((0.6, 0.8), (0.3, 0.1)):
        _, x = bound.noised(alpha, sigma)
        _near(
            bound.score.denoise(x, alpha, sigma),
            bound.score.denoise(x / alpha, 1.0, sigma / alpha),
            f"denoise at alpha {alpha}, sigma {sigma} is not that of x / alpha at sigma / alpha",
            remedy="Check where alpha enters: x is alpha x_0 + sigma eps, the answer x_0 is not scaled by it.",
        )


@CONTRACT
def keeps_rows_that_are_hardly_noised(plugin: ScorePlugin) -> None:
    """At sigma / alpha of 2 % of the data's standard deviation, a training row comes back to 3 sigma / alpha (rms)."""
    bound = _bound(plugin)
    deviation = float(bound.dataset.train.std(axis=0).mean())
    for alpha in (1.0, 0.5):
        sigma = _HARDLY * deviation * alpha
        rows, x = bound.noised(alpha, sigma)
        found = float((bound.score.denoise(x, alpha, sigma) - rows).square().mean().sqrt())
        require(
            found <= 3.0 * sigma / alpha,
            "a row that is hardly noised does not come back",
            got=f"{found:.3g} at alpha {alpha}, sigma {sigma:.3g}",
            allowed=f"at most {3.0 * sigma / alpha:.3g}",
            remedy="denoise returns E[x_0 | x], not the noise, and not the score.",
        )


@CONTRACT
def rows_do_not_depend_on_the_batch(plugin: ScorePlugin) -> None:
    """Row i is the same alone and among others, and from a second call: to 0.2 % of the largest entry."""
    bound = _bound(plugin)
    _, x = bound.noised(1.0, 1.0)
    whole = bound.score.denoise(x, 1.0, 1.0)
    alone = torch.cat([bound.score.denoise(row[None], 1.0, 1.0) for row in x])
    _near(alone, whole, "a row's answer depends on its batch", remedy="Take no mean or scale from the batch.")
    _near(bound.score.denoise(x, 1.0, 1.0), whole, "a second call differs from the first", remedy="Seed random moves.")


@CONTRACT
def counts_its_rows(plugin: ScorePlugin) -> None:
    """``evaluations`` starts at 0 and grows by the number of rows of each call of ``denoise`` and ``score``."""
    bound = _bind(plugin)
    require(bound.score.evaluations == 0, "a bound score does not start at 0", got=bound.score.evaluations)
    _, x = bound.noised(1.0, 1.0)
    for calls, (function, rows) in enumerate(((bound.score.denoise, _ROWS), (bound.score.score, 2))):
        before = bound.score.evaluations
        function(x[:rows], 1.0, 1.0)
        made = bound.score.evaluations - before
        name, remedy = ("denoise", "score")[calls], "Subclass kfpbench.scores.counted.CountedScore, which counts."
        require(made == rows, f"{name} does not count its rows", got=made, allowed=rows, remedy=remedy)


@CONTRACT
def predicts_its_working_memory(plugin: ScorePlugin) -> None:
    """``working_memory`` is a whole number of bytes that does not fall with the batch."""
    _bound(plugin)  # where files are missing there is nothing to predict
    found: list[Any] = [plugin.working_memory(ProblemSize(2000, 3072, batch, 8)) for batch in (10, 1000)]
    for each in found:
        whole = isinstance(each, int) and not isinstance(each, bool) and each >= 0
        require(whole, "working_memory is not a whole number of bytes", got=each, allowed="an int of at least 0")
    require(found[0] <= found[1], "working_memory falls with the batch", got=found)


def _near(found: Tensor, exact: Tensor, what: str, remedy: str | None = None) -> None:
    gap, allowed = float((found - exact).abs().max()), _TOLERANCE * float(exact.abs().max().clamp_min(1e-3))
    require(gap <= allowed, what, got=f"a difference of {gap:.2e}", allowed=f"{allowed:.1e}", remedy=remedy)


def _bound(plugin: ScorePlugin) -> _Bound:
    found: _Bound = remembered(plugin, "bound", lambda: _bind(plugin))
    return found


def _bind(plugin: ScorePlugin) -> _Bound:
    refusal: CapabilityError | None = None
    for dataset in (PlanarMixture(train=400, validation=10, test=10).load(), _images((1, 8, 8)), _images((3, 32, 32))):
        try:
            return _Bound(plugin.bind(dataset, torch.device("cpu"), torch.float64), dataset)
        except CapabilityError as error:
            refusal = error
        except DataError as error:
            raise NotApplicableError(f"its files are not here: {error}") from error
    assert refusal is not None  # there are data sets
    raise refusal


def _images(shape: tuple[int, int, int]) -> Dataset:
    """40 images in [-1, 1] whose pixels go with their neighbours, flattened."""
    coarse = np.random.default_rng(0).uniform(-1.0, 1.0, (40, shape[0], shape[1] // 4, shape[2] // 4))
    rows = np.ascontiguousarray(coarse.repeat(4, axis=2).repeat(4, axis=3).reshape(40, -1), dtype=np.float32)
    return Dataset("contract", rows, rows[:5], rows[5:10], image_shape=shape, fingerprint=f"contract {shape}")
