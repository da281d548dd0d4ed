"""How well eigenpairs solve the eigenproblem itself, measured apart from the solver that made them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

_CONSTANT = 1e-6, 1e3  # and in eps, the larger: what varies by less than this share of its norm is the constant
_FEWEST = 50  # held-out points from which the largest defects are left out
_TILE = 4096  # points whose features are in memory at a time
_TRIMMED = 0.01  # share of drawn points, those of the largest defects, that the trimmed residual leaves out


@dataclass(frozen=True)
class Residuals:
    """Residuals of K pairs, each (K,), in units of the eigenvalues.

    ``full`` is ||L phi - lambda phi|| / ||phi||. ``trimmed`` leaves out the 1 % of drawn points with the largest
    defects (one far point, where phi is extrapolated, would condemn a true mode) and divides by the norm of phi minus
    its mean (a spurious slow mode is nearly constant). Both are in the strong form, or in the weak one, see
    ``residuals``.
    """

    full: Tensor
    trimmed: Tensor
    constant: Tensor  # (K,) bool: phi does not vary over the points


def residuals(pairs: Eigenpairs, pencil: GalerkinPencil) -> Residuals:
    """Residuals in the weights of a pencil of points that the fit has not seen, from the kernel's derivatives.

    Without the ridge. A reversible pencil was solved in the weak form, by first derivatives, and is measured in it: the
    defect |D(phi) / ||phi||^2 + lambda| of the Rayleigh quotient, D(phi) = E[grad phi . a grad conj phi]; ``full`` and
    ``trimmed`` are then that number with the norm of phi and of phi minus its mean. Cost that of the features and their
    images, d images in the weak form.
    """
    tiles = [slice(start, start + _TILE) for start in range(0, len(pencil.points), _TILE)]
    functions = torch.cat([pairs.eigenfunctions(pencil.points[rows]) for rows in tiles])  # (n, K)
    weights = pencil.weights[:, None]
    mean = (weights * functions).sum(0)
    kind = torch.finfo(mean.real.dtype)
    norm = (weights * functions.abs().square()).sum(0).clamp_min(kind.tiny)
    variance = (weights * (functions - mean).abs().square()).sum(0).clamp_min(kind.tiny)
    constant = variance <= max(_CONSTANT[0], _CONSTANT[1] * kind.eps) ** 2 * norm  # no variance to divide by
    spread = torch.where(constant, norm, variance)
    if pencil.reversible:
        energy = torch.stack([_dirichlet_energy(pairs, pencil, rows) for rows in tiles]).sum(0)
        return Residuals((energy / norm + pairs.values).abs(), (energy / spread + pairs.values).abs(), constant)
    defect = torch.cat([_images(pairs, pencil, rows) for rows in tiles])
    defect = (defect - functions * pairs.values).abs().square()
    full = ((weights * defect).sum(0) / norm).sqrt()
    if not pencil.has_draws or len(defect) < _FEWEST:
        return Residuals(full, ((weights * defect).sum(0) / spread).sqrt(), constant)
    kept = len(defect) - math.ceil(_TRIMMED * len(defect))
    total = defect.topk(kept, dim=0, largest=False, sorted=False).values.sum(0) / len(defect)
    return Residuals(full, (total / spread).sqrt(), constant)


def _images(pairs: Eigenpairs, pencil: GalerkinPencil, rows: slice) -> Tensor:
    """L phi (n, K) at some of the points."""
    images = pairs.basis.images(pencil.points[rows], pencil.drift[rows], pencil.diffusion.rows(rows))
    return images.to(pairs.right.dtype) @ pairs.right


def _dirichlet_energy(pairs: Eigenpairs, pencil: GalerkinPencil, rows: slice) -> Tensor:
    """The part of E[grad phi . a grad conj phi] (K,) from some of the points."""
    points, weights = pencil.points[rows], pencil.weights[rows, None]
    transport = Diffusion.constant(points.new_zeros(()))
    energy = points.new_zeros(len(pairs.values))
    for field in pencil.diffusion.rows(rows).to(points).root_fields(points):
        slopes = pairs.basis.images(points, field, transport).to(pairs.right.dtype) @ pairs.right
        energy += (weights * slopes.abs().square()).sum(0)
    return energy
