"""Gaussian-mixture start: the marginal at t_min of a mixture fitted to clusters of the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kfpbench.cache.code_version import code_version
from kfpbench.cache.key import Key
from kfpbench.cache.use import Stored
from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import Moments, moments_memory, training_moments
from kfpbench.data.row_identity import training_key
from kfpbench.data.shared_cost import ChargedCache
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench_baselines.integrator import NOISE_BYTES

_WHERE = "gaussian_mixture"
_BLOCK = 4096  # rows of one GEMM
_RESTARTS = 4  # of k-means; the best inertia is kept
_CHOICES = 2**31  # equally likely integers from which the component is drawn: weights are met to 5e-10
_KEPT = 8  # mixtures that stay in memory, each K (rank^2 + 2 d) numbers


class GaussianMixture:
    """x = alpha x_0 + sigma eps at t_min with x_0 from sum_k w_k N(m_k, C_k): an exact draw, no flow, NFE = 0.

    The clusters are those of k-means (``components``, on the leading ``clustered`` principal components) or the
    classes; w_k, m_k and C_k are their shares, means and covariances. In the principal axes of all training rows C_k is
    kept in full on the leading ``rank`` axes and by its diagonal on the rest, so that mean and trace of the covariance,
    of each cluster and of the whole, are the data's. Fitted to the part of a process before sigma*, it starts a refiner
    there.

    Setup O(N d^2); memory O(K rank^2 + d^2); sampling O(n d^2) (the rotation to pixels) in a fixed number of
    operations. With fewer than about 2 ``rank`` rows a cluster the full block fits their sample noise. Raises
    CapabilityError for classes without labels, ParameterError for more components than rows.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"components": 3, "rank": 1}, {"rank": 0})

    def __init__(
        self,
        components: Annotated[int, Field(ge=1)] = 10,
        rank: Annotated[int, Field(ge=0)] = 256,
        clustered: Annotated[int, Field(ge=1)] = 64,
        by: Literal["kmeans", "class"] = "kmeans",
    ) -> None:
        for name, value, least in (("components", components, 1), ("rank", rank, 0), ("clustered", clustered, 1)):
            if value < least:
                raise ParameterError(f"{name} out of range", got=value, allowed=f"at least {least}", where=_WHERE)
        if by not in ("kmeans", "class"):
            raise ParameterError("unknown clusters", got=by, allowed="kmeans, class", where=_WHERE)
        self.components, self.rank, self.clustered, self.by = components, rank, clustered, by

    def fit(self, problem: Problem) -> FittedGaussianMixture:
        """Fit the mixture, and factorise its covariances at t_min."""
        moments = training_moments(problem.dataset)
        mixture = self.mixture(problem.dataset, problem.seed)
        process, end = problem.process, problem.process.t_min
        alpha, sigma = process.alpha(end), process.sigma(end)

        def put(part: NDArray[Any]) -> Tensor:
            return torch.tensor(part, device=problem.device, dtype=problem.dtype)

        noise = sigma**2 * np.eye(mixture.covariances.shape[1])
        return FittedGaussianMixture(
            mixture=mixture,
            shares=torch.tensor(np.cumsum(mixture.weights) * _CHOICES, device=problem.device)[:-1].contiguous(),
            means=put(alpha * mixture.means),
            factors=put(np.linalg.cholesky(alpha**2 * mixture.covariances + noise)),
            deviations=put(np.sqrt(alpha**2 * mixture.variances + sigma**2)),
            centre=put(alpha * moments.mean),
            basis=put(moments.basis),
        )

    def mixture(self, dataset: Dataset, seed: int) -> ClusterMixture:
        """The mixture of the training rows; a data set and seed that were seen before charge what they took."""
        moments = training_moments(dataset)  # charged apart

        def compute() -> ClusterMixture:
            return _mixture(dataset, moments, self._labels(dataset, moments, seed), self.rank)

        if not dataset.fingerprint:
            return compute()
        data = (dataset.fingerprint, len(dataset.train))
        parameters = (seed, self.by, self.components, self.rank, self.clustered)

        def stored() -> Stored[ClusterMixture]:
            known = training_key(dataset.fingerprint, dataset.train)
            return Stored(
                Key("mixture", {"data": known, "parameters": parameters, "code": code_version(GaussianMixture)}),
                ClusterMixture,
            )

        return _cache.get((_WHERE, *data, *parameters), compute, stored)

    def _labels(self, dataset: Dataset, moments: Moments, seed: int) -> NDArray[np.int64]:
        """The cluster of every training row (N,)."""
        if self.by == "class":
            if dataset.train_labels is None:
                raise CapabilityError(
                    f"gaussian_mixture: data set {dataset.name!r} has no labels", remedy="Take by: kmeans."
                )
            return dataset.train_labels
        if self.components > len(dataset.train):
            raise ParameterError(
                "more components than training rows",
                got=self.components,
                allowed=f"at most {len(dataset.train)}",
                where=_WHERE,
            )
        from sklearn.cluster import KMeans

        axes = moments.basis[:, : self.clustered].astype(np.float32)
        leading = np.concatenate([centred @ axes for centred in _centred(dataset.train, moments)])
        kmeans = KMeans(self.components, n_init=_RESTARTS, random_state=seed % 2**32)
        return kmeans.fit_predict(leading).astype(np.int64)

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the axes, K blocks and their factors, four batches, and what the fit needs."""
        d, rank = size.dimension, min(self.rank, size.dimension)
        count = 10 if self.by == "class" else self.components
        blocks = count * (rank**2 + 2 * d)
        fit = 4 * size.train * (rank + 2 * min(self.clustered, d)) + 20 * _BLOCK * d + 8 * 3 * blocks
        batch = (4 * size.itemsize + NOISE_BYTES) * size.batch * d
        return max(moments_memory(d), size.itemsize * (d**2 + blocks) + 8 * blocks + batch + fit)


@dataclass(frozen=True)
class ClusterMixture:
    """Weights (K,), means (K, d), covariances (K, r, r) of the leading r and variances (K, d - r) of the other
    coordinates, float64, all in the centred principal coordinates (x - mean) @ basis of `training_moments`.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    variances: NDArray[np.float64]


_cache: ChargedCache[ClusterMixture] = ChargedCache(_KEPT)


def _centred(rows: NDArray[np.float32], moments: Moments) -> Any:
    """The rows without their mean, in blocks (b, d), float32."""
    mean = moments.mean.astype(np.float32)
    return (rows[start : start + _BLOCK] - mean for start in range(0, len(rows), _BLOCK))


def _mixture(dataset: Dataset, moments: Moments, labels: NDArray[np.int64], rank: int) -> ClusterMixture:
    """Shares, means and covariances of the clusters; coordinates in float32, sums and covariances in float64."""
    names, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    count, d = len(names), dataset.dimension
    rank, basis = min(rank, d), moments.basis.astype(np.float32)
    leading = np.empty((len(labels), rank), dtype=np.float32)
    means, squares, start = np.zeros((count, d)), np.zeros((count, d)), 0
    for centred in _centred(dataset.train, moments):
        coordinates = centred @ basis
        rows = slice(start, start + len(centred))
        leading[rows] = coordinates[:, :rank]
        member = (which[rows, None] == np.arange(count)).astype(np.float32)  # (b, K)
        means += member.T @ coordinates
        squares += member.T @ np.square(coordinates)
        start = rows.stop
    means /= counts[:, None]
    variances = np.maximum(squares / counts[:, None] - means**2, 0.0)
    covariances = np.empty((count, rank, rank))
    for cluster in range(count):
        members, covariance = np.flatnonzero(which == cluster), np.zeros((rank, rank))
        for start in range(0, len(members), _BLOCK):
            # in float64: rounding to float32 would turn a small variance negative, and sigma^2 at t_min may be less
            rest = leading[members[start : start + _BLOCK]] - means[cluster, :rank]
            covariance += rest.T @ rest
        covariances[cluster] = covariance / counts[cluster]
    mixture = ClusterMixture(counts / counts.sum(), means, covariances, np.ascontiguousarray(variances[:, rank:]))
    for part in (mixture.weights, mixture.means, mixture.covariances, mixture.variances):
        part.setflags(write=False)  # they are shared
    return mixture


@dataclass(frozen=True)
class FittedGaussianMixture:
    """The mixture, and its marginal at t_min on the device: bounds of the components' ``shares`` (K - 1,) in the
    integers of the draw, means (K, d), Cholesky factors (K, r, r), deviations (K, d - r), centre (d,), basis (d, d).
    """

    mixture: ClusterMixture
    shares: Tensor
    means: Tensor
    factors: Tensor
    deviations: Tensor
    centre: Tensor
    basis: Tensor

    def components(self, noise: NoiseStream) -> Tensor:
        """The component of every row (n,), from draw 0 of the stream."""
        drawn = noise.uniform_integers(0, _CHOICES)
        return torch.searchsorted(self.shares, drawn.to(self.shares.dtype), right=True)

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from the draws 0 (the component) and 1 of the stream."""
        rank, which, normal = self.factors.shape[1], self.components(noise), noise.normal(1)
        y = self.means[which]
        y[:, rank:] += self.deviations[which] * normal[:, rank:]
        for component in which.unique().tolist() if rank else ():  # one GEMM each; gathered factors would fill memory
            rows = (which == component).nonzero()[:, 0]
            y[rows, :rank] += normal[rows, :rank] @ self.factors[component].T
        return torch.addmm(self.centre, y, self.basis.T)

    def describe(self) -> dict[str, Any]:
        """Number of components, rank, and the components' weights."""
        return {
            "components": len(self.means),
            "rank": self.factors.shape[1],
            "weights": self.mixture.weights.tolist(),
        }
