"""The law of a sampler that is an affine map of its normal numbers, found from outside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.exact.planted_noise import rows_of
from kfpbench.noise import NoiseStream
from kfpbench.protocols import FittedSampler, Problem

Array = NDArray[np.float64]
_PROBES = 8  # random points of the check; one would do, since a map that is not affine fails at almost every point
_STREAM = 2  # of the noise: neither sampling nor fitting


@dataclass(frozen=True)
class AffineLaw:
    """x = mean + sum_j z_j @ response_j, z_j ~ N(0, I), in the coordinates of given orthonormal axes.

    mean (d,); ``response`` by draw number, (d, d), or (d,) where every map is diagonal in these axes. ``defect`` is the
    root mean square distance between the sampler's rows and this map's at random points: by that coupling the law
    is W2-near to the sampler's own. ``rows`` counts the rows that were sent through the sampler.
    """

    mean: Array
    response: dict[int, Array]
    defect: float
    rows: int

    @property
    def diagonal(self) -> bool:
        """Whether the axes are independent of each other."""
        return all(gain.ndim == 1 for gain in self.response.values())

    @property
    def root(self) -> Array:
        """A root of the covariance: standard deviations (d,) of a diagonal law, else R (draws * d, d) with C = R^T R.

        Never the covariance itself, whose small eigenvalues would be lost to rounding.
        """
        if not self.response:
            return np.zeros_like(self.mean)
        if self.diagonal:
            deviations: Array = np.sqrt(sum(np.square(gain) for gain in self.response.values()))
            return deviations
        return np.concatenate(list(self.response.values()))

    def with_start(self, shift: Array, scale: Array) -> AffineLaw:
        """The law when draw 0 is N(shift, diag(scale^2)) in these axes instead of N(0, I)."""
        start = self.response[0]
        mean = self.mean + (shift * start if self.diagonal else shift @ start)
        scaled = scale * start if self.diagonal else scale[:, None] * start
        return AffineLaw(mean, {**self.response, 0: scaled}, self.defect, self.rows)


def affine_law(sampler: FittedSampler, problem: Problem, axes: Array, max_rows: int = 20_000) -> AffineLaw:
    """The law of a fitted sampler in orthonormal ``axes`` (d, d), columns, from its response to planted noise.

    First the draws that it asks for are listed, m of them. Superposition, F(a + b) - F(a) - F(b) + F(0) = 0, is tested
    at 8 pairs of random points to sqrt(eps) of the problem's dtype. If F is diagonal in the axes, one row a draw tells
    all of it: a guess, tested at the same points. Else every coordinate of every draw takes a row.
    Cost: m + 26 rows for a diagonal sampler, m (d + 1) + 26 for others.

    Raises CapabilityError for a sampler that is not affine, chooses its draws by their values, takes random integers,
    or needs more than ``max_rows`` rows.
    """
    d = len(axes)
    asked: dict[int, None] = {}  # in the order in which they are first asked for

    def silence(draw: int, indices: Tensor) -> Tensor:
        asked.setdefault(draw)
        return torch.zeros(len(indices), d, dtype=problem.dtype, device=problem.device)

    rows_of(sampler, problem, 1, silence)
    draws = {draw: position for position, draw in enumerate(asked)}
    _check_rows(len(draws) + 3 * _PROBES + 2, max_rows, len(draws), d)
    base, probes, points, defect = _superposition(sampler, problem, draws)
    basis = torch.as_tensor(axes, dtype=problem.dtype, device=problem.device)
    mean = base @ axes

    def every_axis(draw: int, indices: Tensor) -> Tensor:
        here = (indices == _position(draws, draw)).to(problem.dtype)
        return here[:, None] * basis.sum(1)

    gains = rows_of(sampler, problem, len(draws), every_axis).numpy() @ axes - mean  # (m, d)
    diagonal = {draw: gains[position] for draw, position in draws.items()}
    guess = mean + sum((probes[draw] @ axes) * gain for draw, gain in diagonal.items())
    gap = _rms(guess - points @ axes)
    used = len(draws) + 3 * _PROBES + 2
    if gap <= _tolerance(problem, points):
        return AffineLaw(mean, diagonal, max(gap, defect), used)

    _check_rows(used + len(draws) * d, max_rows, len(draws), d)

    def one_axis(draw: int, indices: Tensor) -> Tensor:
        local = indices - _position(draws, draw) * d
        planted = torch.zeros(len(indices), d, dtype=problem.dtype, device=problem.device)
        inside = (local >= 0) & (local < d)
        planted[inside] = basis.T[local[inside]]
        return planted

    full = rows_of(sampler, problem, len(draws) * d, one_axis).numpy() @ axes - mean
    response = {draw: full[position * d : (position + 1) * d] for draw, position in draws.items()}
    return AffineLaw(mean, response, defect, used + len(draws) * d)


def _superposition(
    sampler: FittedSampler, problem: Problem, draws: dict[int, int]
) -> tuple[Array, dict[int, Array], Array, float]:
    """F(0) (d,), random inputs a by draw (probes, d), F(a) (probes, d), and the rms defect of superposition."""
    d, device = problem.dataset.dimension, problem.device
    source = NoiseStream.of_range(problem.seed, 0, 2 * _PROBES, d, device, problem.dtype, _STREAM)

    def probe(draw: int, indices: Tensor) -> Tensor:
        _position(draws, draw)
        first, second = source.normal(draw).split(_PROBES)
        return torch.cat([torch.zeros_like(first[:1]), first, second, first + second])[indices]

    rows = rows_of(sampler, problem, 3 * _PROBES + 1, probe).numpy()
    base, first, second, both = rows[0], *np.split(rows[1:], 3)
    defect = _rms(both - first - second + base)
    allowed = _tolerance(problem, rows)
    if not defect <= allowed:
        raise CapabilityError(
            "the sampler is not an affine map of its noise: its law has no closed form",
            got=f"superposition fails by {defect:.1e}",
            allowed=f"up to {allowed:.1e}, for rounding",
            remedy="Take Gaussian data with score 'mixture' and a solver on a fixed grid; in one dimension a sampler "
            "without noise may be of any form.",
        )
    inputs = {draw: source.normal(draw)[:_PROBES].to("cpu", torch.float64).numpy() for draw in draws}
    return base, inputs, first, defect


def _position(draws: dict[int, int], draw: int) -> int:
    if draw not in draws:
        raise CapabilityError(
            "the draws that the sampler takes depend on their values: it is not an affine map of them",
            got=f"draw {draw}",
            allowed=f"the {len(draws)} draws that it takes when all are zero",
        )
    return draws[draw]


def _rms(gaps: Array) -> float:
    return math.sqrt(float(np.square(gaps).sum(1).mean()))


def _tolerance(problem: Problem, rows: Array) -> float:
    """Half of the dtype's digits, of the rows' own size."""
    return math.sqrt(torch.finfo(problem.dtype).eps) * _rms(rows)


def _check_rows(rows: int, allowed: int, draws: int, d: int) -> None:
    if rows > allowed:
        raise CapabilityError(
            f"finding the sampler's law takes too many rows: {draws} draws in {d} dimensions",
            got=rows,
            allowed=f"at most {allowed}",
            remedy="Raise max_rows, or take fewer steps or dimensions.",
        )
