"""How well eigenpairs solve the eigenproblem itself, measured apart from the solver that made them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.pencil import GalerkinPencil

_CONSTANT = 1e-12  # share of variance in a squared norm below which a function is the constant
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
    functions = pairs.eigenfunctions(pencil.points)
    weights = pencil.weights[:, None]
    mean = (weights * functions).sum(0)
    tiny = torch.finfo(mean.real.dtype).tiny
    norm = (weights * functions.abs().square()).sum(0).clamp_min(tiny)
    variance = (weights * (functions - mean).abs().square()).sum(0).clamp_min(tiny)
    constant = variance <= _CONSTANT * norm  # the constant function has no variance to divide by
    if pencil.reversible:
        energy = _dirichlet_energy(pairs, pencil)
        trimmed = energy / torch.where(constant, norm, variance)
        return Residuals((energy / norm + pairs.values).abs(), (trimmed + pairs.values).abs(), constant)
    images = pairs.basis.images(pencil.points, pencil.drift, pencil.diffusion).to(pairs.right.dtype) @ pairs.right
    defect = (images - functions * pairs.values).abs().square()  # (n, K)
    full = ((weights * defect).sum(0) / norm).sqrt()
    draws = bool((pencil.weights == pencil.weights[0]).all())
    kept = len(defect) - (math.ceil(_TRIMMED * len(defect)) if draws and len(defect) > 1 else 0)
    smallest = defect.topk(kept, dim=0, largest=False, sorted=False).values  # any of them where the weights are equal
    total = smallest.sum(0) / len(defect) if draws else (weights * defect).sum(0)
    return Residuals(full, (total / torch.where(constant, norm, variance)).sqrt(), constant)


def _dirichlet_energy(pairs: Eigenpairs, pencil: GalerkinPencil) -> Tensor:
    """E[grad phi . a grad conj phi] (K,)."""
    transport = Diffusion.constant(pencil.points.new_zeros(()))
    energy = pencil.points.new_zeros(len(pairs.values))
    for field in pencil.diffusion.to(pencil.points).root_fields(pencil.points):
        slopes = pairs.basis.images(pencil.points, field, transport).to(pairs.right.dtype) @ pairs.right
        energy += (pencil.weights[:, None] * slopes.abs().square()).sum(0)
    return energy
