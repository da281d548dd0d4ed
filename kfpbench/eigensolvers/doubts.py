"""Which eigenpairs are doubtful, and why: spurious modes are flagged, never dropped in silence."""

from __future__ import annotations

import torch
from torch import Tensor

from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.residuals import Residuals
from kfpbench.operators.pencil import GalerkinPencil

_TRUSTED = 0.5  # a mode whose trimmed residual exceeds this share of |value| is flagged
_ILL_CONDITIONED = 1e10  # eigenvectors beyond this condition number make every mode doubtful
_RIDGE_SHARE = 0.5  # of v^H B v: a mode that owes more of its norm to the ridge than this is flagged
_STANDARD_ERRORS = 4.0  # moments that differ from those of an invariant density by more deny invariance
_TILE = 4096  # points whose moments are in memory at a time


def doubts(pairs: Eigenpairs, measured: Residuals, fit: GalerkinPencil) -> tuple[str, ...]:
    """One reason, or "", for each value.

    In this order: the solver's own doubt; ill-conditioned eigenvectors; a second constant function; a trimmed residual
    on unseen points above half of |lambda| (what a ridge or too small a sample invents solves its own problem exactly
    and fails here); the ridge's share 1 - ||Phi v||^2 / (v^H B v) above one half; a real part that is positive beyond
    its residual where the points' density is invariant, since there Re <phi, L phi> = -E[grad phi . a grad conj phi] <=
    0. Where it is not invariant (a reverse drift expands) a positive value may be true, and is not flagged.

    The flags are a filter and no certificate: points cannot tell what happens where there are none, so that an
    eigenfunction which bends in the gap between two wells, under too small a bandwidth, may pass.
    """
    condition = pairs.diagnostics.get("eigenvector_condition", 1.0)
    shared = f"eigenvectors have condition number {condition:.1e}" if condition > _ILL_CONDITIONED else ""
    ridge = ridge_shares(pairs).tolist()
    values, residuals, constant = pairs.values.tolist(), measured.trimmed.tolist(), measured.constant.tolist()
    first = min((k for k, flat in enumerate(constant) if flat), key=lambda k: abs(values[k]), default=None)
    positive = [
        value.real > residual and not flat for value, residual, flat in zip(values, residuals, constant, strict=True)
    ]
    invariant = any(positive) and moments_are_invariant(fit)
    flags = []
    for index, (value, residual) in enumerate(zip(values, residuals, strict=True)):
        reason = pairs.flags[index] or shared
        if not reason and constant[index] and index != first:
            reason = "cannot be told from the constant function"
        if not reason and not constant[index] and not residual <= _TRUSTED * abs(value):
            reason = f"residual {residual:.2g} exceeds {_TRUSTED:g} |value|"
        if not reason and ridge[index] > _RIDGE_SHARE:
            reason = f"the ridge makes {ridge[index]:.0%} of its norm"
        if not reason and positive[index] and invariant:
            reason = "positive real part, though the density is invariant"
        flags.append(reason)
    return tuple(flags)


def ridge_shares(pairs: Eigenpairs) -> Tensor:
    """1 - ||phi||^2 / (v^H B v) (K,): what part of each norm is the ridge's; 0 without a ridge."""
    mass = pairs.mass
    if mass is None:
        return torch.zeros_like(pairs.values.real)
    norm = (pairs.weights[:, None] * (pairs.on_points.to(pairs.right.dtype) @ pairs.right).abs().square()).sum(0)
    ridged = (mass[:, None] * pairs.right.abs().square()).sum(0)
    return 1.0 - norm / ridged.clamp_min(torch.finfo(ridged.dtype).tiny)


def moments_are_invariant(pencil: GalerkinPencil) -> bool:
    """Whether E[L x_s] = E[b_s] and E[L x_s^2] = E[2 x_s b_s + 2 a_ss] vanish to four standard errors for every s.

    Necessary for the points' density to be invariant, not sufficient. Cost O(N d), memory that of a tile of points.
    """
    origin = pencil.weights @ pencil.points
    tiles = [slice(start, start + _TILE) for start in range(0, len(pencil.points), _TILE)]

    def images(rows: slice) -> Tensor:  # (n, 2 d)
        x, drift = pencil.points[rows] - origin, pencil.drift[rows]
        a = pencil.diffusion.rows(rows).to(x)
        spread = a.values.diagonal(dim1=-2, dim2=-1) if a.kind == "matrix" else a.values
        spread = spread[..., None] if a.kind == "scalar" else spread  # a_ss: broadcasts to (n, d)
        return torch.cat([drift, 2.0 * (x * drift + spread)], dim=1)

    mean = torch.stack([pencil.weights[rows] @ images(rows) for rows in tiles]).sum(0)
    largest = max(float(images(rows).abs().max()) for rows in tiles)
    squares = [pencil.weights[rows].square() @ (images(rows) - mean).square() for rows in tiles]
    error = torch.stack(squares).sum(0).sqrt()  # of a weighted mean of independent terms
    return bool((mean.abs() <= _STANDARD_ERRORS * error.clamp_min(1e-12 * largest)).all())
