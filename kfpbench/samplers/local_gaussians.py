"""Local low-rank Gaussians of a weighted point set: one for each cluster of particles, none for a particle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kfpbench.data.moments import Moments
from kfpbench.errors import NumericalError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.samplers.smoothing import choose

_RESTARTS = 3  # of k-means, the best of which is kept


@dataclass(frozen=True)
class LocalGaussians:
    """x = shift + U z, z = m_c + [R_c xi_1..k, s_c xi_k+1..d], xi ~ N(0, I), cluster c with its total weight.

    z are the coordinates on the training rows' principal axes U (d, d); in the k leading ones every cluster has a full
    covariance R_c R_c^T, a part of rank k in all, in the others variances s_c^2. Shapes: cumulative (K,), means (K, d),
    factors (K, k, k), scales (K, d - k), basis (d, d), shift (d,). Particles are averaged, not handed on.
    """

    cumulative: Tensor
    means: Tensor
    factors: Tensor
    scales: Tensor
    basis: Tensor
    shift: Tensor
    effective_sizes: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        x: Tensor,
        weights: Tensor,
        moments: Moments,
        alpha: float,
        clusters: int,
        components: int,
        seed: int,
        dtype: torch.dtype,
    ) -> LocalGaussians:
        """From particles x (P, d) and their probabilities (P,), float64.

        Weighted k-means in the k leading coordinates; weighted moments in each cluster. Its covariance, of Kish size
        n_c, is pulled to the mean within-cluster covariance S with k pseudo-counts, (n_c C_c + k S) / (n_c + k), so
        that a cluster of few particles is no copy of them (Fraley and Raftery, "Bayesian Regularization for Normal
        Mixture Estimation", J. Classification 24:155, 2007). Cost O(P d^2 + P K k + P k^2 + K k^3). Raises
        ParameterError for more clusters than particles of positive weight, NumericalError when LAPACK fails.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        alive = weights > 0
        x, weights = x[alive], weights[alive]
        if clusters > len(x):
            raise ParameterError("density: more clusters than particles", got=clusters, allowed=f"at most {len(x)}")
        basis, mean = torch.from_numpy(moments.basis.copy()).to(x), torch.from_numpy(moments.mean.copy()).to(x)
        shift = alpha * mean
        z = (x - shift) @ basis
        rank = min(components, z.shape[1])
        means_of = KMeans(clusters, n_init=_RESTARTS, random_state=seed % 2**32)
        leading = z[:, :rank].cpu().numpy()
        with threadpool_limits(limits=1):  # sums have one order, and a seed one result
            labels = _compact(means_of.fit(leading, sample_weight=weights.cpu().numpy()).labels_)
        member = torch.nn.functional.one_hot(torch.from_numpy(labels).to(x.device)).to(x) * weights[:, None]  # (P, K)
        totals = member.sum(0)
        shares = member / totals
        effective = 1.0 / shares.square().sum(0)
        means = shares.T @ z  # (K, d)
        residual = z - means[torch.from_numpy(labels).to(x.device)]
        tail = shares.T @ residual[:, rank:].square()  # (K, d - k)
        inner = residual[:, :rank]
        # one small GEMM a cluster: all at once would hold K copies of the particles
        covariances = torch.stack([(inner * column[:, None]).T @ inner for column in shares.T])  # (K, k, k)
        trust = effective / (effective + rank)
        covariances = _pooled(covariances, totals, trust)
        scales = _pooled(tail, totals, trust).sqrt()
        try:
            levels, axes = torch.linalg.eigh(covariances)
        except torch.linalg.LinAlgError as error:
            raise NumericalError(f"a cluster's covariance could not be diagonalised: {error}") from error
        factors = axes * levels.clamp_min(0.0).sqrt()[:, None, :]
        return cls(
            totals.cumsum(0),
            means.to(dtype),
            factors.to(dtype),
            scales.to(dtype),
            basis.to(dtype),
            shift.to(dtype),
            tuple(effective.tolist()),
        )

    def sample(self, noise: NoiseStream) -> Tensor:
        """x (n, d): the cluster from draw 0, normal numbers from draw 1. Cost O(n (d^2 + k^2))."""
        chosen, xi = choose(self.cumulative, noise), noise.normal(1)
        rank = self.factors.shape[1]
        # a sum over the last axis, not a batched product: its order is the same for any batch
        low = (self.factors[chosen] * xi[:, None, :rank]).sum(-1)
        z = self.means[chosen] + torch.cat([low, self.scales[chosen] * xi[:, rank:]], dim=1)
        return z @ self.basis.T + self.shift

    def describe(self) -> dict[str, Any]:
        """Number of clusters, rank, and the smallest cluster's effective size."""
        sizes = self.effective_sizes
        return {"clusters": len(sizes), "components": self.factors.shape[1], "smallest_effective_size": min(sizes)}


def _pooled(spreads: Tensor, totals: Tensor, trust: Tensor) -> Tensor:
    """trust_c C_c + (1 - trust_c) sum_c' p_c' C_c', the mean within-cluster spread; (K, ...)."""
    shape = (-1,) + (1,) * (spreads.ndim - 1)
    mean = (spreads * (totals / totals.sum()).view(shape)).sum(0)
    return trust.view(shape) * spreads + (1.0 - trust).view(shape) * mean


def _compact(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Labels 0, 1, ... without gaps: k-means leaves clusters empty where points coincide."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
