"""Principal functions within the span of finitely many features, by one pass over row tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.regularised import Regularised, linear_share
from kfpbench.errors import NumericalError

_TILE = 2048  # rows whose features are made at a time


@dataclass(frozen=True)
class FeatureAxes:
    """Principal functions F = Z axes - offset of features Z = z(x).

    Shapes: axes (p, r - 1), offset (r - 1,), strengths (r - 1,) descending, on_points (N, r) = [1, F] at the points.
    """

    axes: Tensor
    offset: Tensor
    strengths: Tensor
    on_points: Tensor
    diagnostics: dict[str, Any]


def principal_axes(
    features: Callable[[slice], Tensor], count: int, points: Tensor, weights: Tensor, solver: Regularised
) -> FeatureAxes:
    """Eigenvectors V and eigenvalues Lam of C = sum_i W_i (z_i - m)(z_i - m)^T, z_i = z(x_i), m = sum_i W_i z_i.

    ``features`` gives z at some of the points, rows -> (n, count), and is orthonormal in the RKHS: z(x) . z(y) is the
    kernel within the span. Then F = (z - m) V Lam^(-1/2) is orthonormal in L2 of the weighted points with RKHS energies
    1 / Lam. The triangular factor R of W^(1/2) (z - m), from QR factors of row blocks, gives V and Lam^(1/2) by its
    singular values: C = R^T R is not formed, which would square the condition number and blur functions below Lam =
    1e-10 max Lam. Cost O(N p^2 + p^3) beside one evaluation of the features; memory O(N p + p^2): the features are
    overwritten by F. Raises NumericalError for features that are not finite, or when LAPACK fails.
    """
    wide = torch.float64
    held = points.new_empty((len(points), count + 1))  # column 0 becomes the constant
    mean = points.new_zeros(count, dtype=wide)
    height = max(_TILE, 4 * count)
    tiles = [slice(start, start + _TILE) for start in range(0, len(points), _TILE)]
    for rows in tiles:
        held[rows, 1:] = features(rows)
        mean += (weights[rows] @ held[rows, 1:]).to(wide)
    if not bool(torch.isfinite(mean).all()):
        raise NumericalError("the kernel's features are not finite on the points")
    for rows in tiles:
        held[rows, 1:] -= mean.to(held)
    try:
        with threads_for(count):
            factor = points.new_empty((0, count), dtype=wide)
            for block, part in zip(held.split(height), weights.split(height), strict=True):
                weighted = part[:, None].to(wide).sqrt() * block[:, 1:].to(wide)
                factor = torch.linalg.qr(torch.cat([factor, weighted]), mode="r")[1]
            _, singular, right = torch.linalg.svd(factor, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"the features could not be decomposed: {error}") from error
    strengths = singular.square()
    eps = torch.finfo(points.dtype).eps
    # of the decomposition, and of the mean, which is all that is left where the points are equal
    rounding = (eps * (count * float(singular[0]) + len(points) * float(mean.norm()))) ** 2
    rank = solver.kept(strengths.to(points), rounding)  # the features are in that precision
    scaled = right[:rank].T / singular[:rank]
    share = linear_share(strengths, points.shape[1])
    strengths = strengths[:rank]
    offset = (mean @ scaled).to(held)
    held[:, 0] = 1.0
    for rows in tiles:
        held[rows, 1 : rank + 1] = held[rows, 1:] @ scaled.to(held)
    on_points = held[:, : rank + 1]
    if 2 * rank < count:
        on_points = on_points.clone()  # lets go of the columns that are not needed
    return FeatureAxes(scaled.to(held), offset, strengths.to(held), on_points, share)
