"""Mean and principal axes of the training rows: the Gaussian part of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kfpbench.cache.code_version import code_version
from kfpbench.cache.key import Key
from kfpbench.cache.use import Stored
from kfpbench.data.dataset import Dataset
from kfpbench.data.row_identity import training_key
from kfpbench.data.shared_cost import ChargedCache

_BLOCK = 4096  # rows of one GEMM of the covariance
_KEPT = 4  # data sets whose moments stay in memory


@dataclass(frozen=True)
class Moments:
    """Mean (d,), principal axes (d, d) as columns, variances (d,) in descending order; float64.

    The covariance is basis @ diag(variances) @ basis.T.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    variances: NDArray[np.float64]


_cache: ChargedCache[Moments] = ChargedCache(_KEPT)


def training_moments(dataset: Dataset) -> Moments:
    """Mean and covariance eigenpairs of the training rows, each axis signed so that its largest entry is positive.

    Blocks of rows are multiplied in float32 and added up in float64. Cost O(N d^2 + d^3), once per data set and
    training size in a process, and on a machine where the cache is in use; a call that reuses them charges what they
    took (`shared_cost`).
    """
    if not dataset.fingerprint:
        return _moments(dataset.train)
    key = (dataset.fingerprint, len(dataset.train))
    return _cache.get(key, lambda: _moments(dataset.train), lambda: _stored(dataset))


def _stored(dataset: Dataset) -> Stored[Moments]:
    parts = {"data": training_key(dataset.fingerprint, dataset.train), "code": code_version(Moments)}
    return Stored(Key("moments", parts), Moments)


def moments_memory(dimension: int) -> int:
    """Bytes that the making takes at its peak: the covariance, LAPACK's workspace, the basis and its copies."""
    return 7 * 8 * dimension**2


def _moments(rows: NDArray[np.float32]) -> Moments:
    mean = rows.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        centred = rows[start : start + _BLOCK] - mean.astype(np.float32)
        covariance += centred.T @ centred
    covariance /= max(len(rows), 1)
    variances, basis = np.linalg.eigh(covariance)
    variances, basis = np.maximum(variances[::-1], 0.0), basis[:, ::-1]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    moments = Moments(mean, np.ascontiguousarray(basis), variances.copy())
    for part in (moments.mean, moments.basis, moments.variances):
        part.setflags(write=False)  # they are shared
    return moments
