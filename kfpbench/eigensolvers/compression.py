"""Eigenpairs carried over to the smallest basis that holds them: what a caller who wants a few pairs keeps."""

from __future__ import annotations

from dataclasses import replace

import torch

from kfpbench.eigensolvers.eigenpairs import Eigenpairs, conjugate_partners


def compressed(pairs: Eigenpairs, n_eigs: int | None) -> Eigenpairs:
    """The 4 n_eigs + 16 leading pairs by real part and as many by |value|, in the basis [1, F Q] of their own span.

    Q is an orthonormal basis of the coordinates of both phi_k and psi_k, so that values, functions, adjoints and
    coefficients of observables stay what they are. More pairs than asked for are kept because some may be flagged
    later and passed over; the two orders differ for transport, whose values crowd along the imaginary axis. Conjugate
    pairs are kept whole. All pairs, unchanged, when ``n_eigs`` is None or there are no more than that.

    Shapes: Q (r - 1, s), s at most four times 4 n_eigs + 16. Cost O(r s^2 + N r s); the basis is restricted once.
    """
    if n_eigs is None or 4 * n_eigs + 16 >= len(pairs.values):
        return pairs
    count = 4 * n_eigs + 16
    chosen = {*range(count), *torch.argsort(pairs.values.abs(), stable=True)[:count].tolist()}
    partner = conjugate_partners(pairs.values)
    kept = pairs.take(sorted(chosen | {partner[index] for index in chosen}))
    vectors = torch.cat([kept.right[1:], kept.adjoint[1:]], dim=1)
    parts = torch.cat([vectors.real, vectors.imag], dim=1)
    norms = parts.norm(dim=0)
    parts = parts[:, norms > 0] / norms[norms > 0]
    span, singular, _ = torch.linalg.svd(parts, full_matrices=False)
    rounding = max(parts.shape) * torch.finfo(parts.dtype).eps
    span = span[:, singular > rounding * (singular[0] if len(singular) else 1.0)]  # (r - 1, s)
    if span.shape[1] + 1 >= pairs.basis.size:
        return kept
    mass = None
    if pairs.mass is not None:  # axes of the span in which the ridged Gram matrix is diagonal again
        levels, axes = torch.linalg.eigh(span.T @ (pairs.mass[1:, None] * span))
        span, mass = span @ axes, torch.cat([pairs.mass[:1], levels])
    coordinates = torch.cat([span.new_zeros((1, span.shape[1])), span])
    values = pairs.on_points @ coordinates
    adapted = span.T.to(kept.right.dtype)
    return replace(
        kept,
        right=torch.cat([kept.right[:1], adapted @ kept.right[1:]]),
        adjoint=torch.cat([kept.adjoint[:1], adapted @ kept.adjoint[1:]]),
        basis=pairs.basis.restrict(coordinates),
        on_points=torch.cat([torch.ones_like(pairs.on_points[:, :1]), values], dim=1),
        mass=mass,
    )
