"""Partitioned sampler: one fit for each class or cluster of the training rows, drawn from by the parts' shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import moments_memory, training_moments
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import BoundScore, FittedSampler, Problem, ProblemSize, SamplerPlugin
from kfpbench.registry import resolve

_AXES = 64  # leading principal axes in which clusters are sought
_RESTARTS = 3  # of k-means
_CHOICE = 1 << 20  # and the number of rows: the draw that chooses the part; the parts' samplers use those from 0 on
_SMALLEST = 1e-12  # of the largest variance: axes below it have no spread to be whitened


@runtime_checkable
class ClassConditionalScore(Protocol):
    """A score that also knows its classes. ``of_class`` is the denoiser E[x_0 | x_t = x, label].

    It adds the rows that it evaluates to this score's own ``evaluations``.
    """

    def of_class(self, label: int) -> BoundScore:
        """The score of one class."""


class Partitioned:
    """x ~ sum_k n_k / N p_k: p_k is the law of ``sampler`` fitted to the n_k training rows of part k alone.

    ``by`` class takes the labels (``parts`` is not used), by kmeans ``parts`` clusters on the leading 64 whitened
    principal components of the training rows. Each fit sees the part's rows: its moments, its frame, its points. Its
    score is E[x_0 | x, class] where the problem's score has ``of_class`` and the parts are classes, else the common
    score: drifts at the points are then those of the whole law, and so exact coefficients of the common operator, but
    the points and the frame are the part's. With ``gaussian`` inside and any refiner behind (``jump``) it is a start
    from a mixture of Gaussians; a class's samples carry no label.

    Setup: that of the parts' fits, and k-means O(N parts 64) an iteration. Sampling: that of the inner sampler, with
    one selection of rows a part. Sources: mixtures of per-cluster Gaussians as a start, Wang and Vastola (2024); Lloyd,
    "Least squares quantization in PCM" (1982), from k-means++ seeds. Raises CapabilityError where the rows have no
    labels, ParameterError for more clusters than training rows.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"parts": 3},
        {"sampler": "pf_ode_euler", "parts": 2},
    )

    def __init__(
        self,
        sampler: SamplerPlugin | str = "gaussian",
        by: Literal["class", "kmeans"] = "kmeans",
        parts: Annotated[int, Field(ge=1)] = 10,
    ) -> None:
        if by not in ("class", "kmeans"):
            raise ParameterError("partitioned: unknown way to part the rows", got=by, allowed="class, kmeans")
        if parts < 1:
            raise ParameterError("partitioned: parts must be positive", got=parts, allowed="1 and more")
        self.sampler: SamplerPlugin = resolve("samplers", sampler)
        self.by = by
        self.parts = parts

    def fit(self, problem: Problem) -> FittedPartitioned:
        """Part the training rows, then fit the inner sampler to each part."""
        if self.by == "class":
            members = class_members(problem.dataset)
            scores = [_class_score(problem.score, label) for label in members]
        else:
            clusters = cluster_members(problem.dataset, self.parts, problem.seed)
            members, scores = dict(enumerate(clusters)), [problem.score] * len(clusters)
        fitted = []
        for rows, score in zip(members.values(), scores, strict=True):
            fitted.append(self.sampler.fit(replace(problem, dataset=restricted(problem.dataset, rows), score=score)))
        sizes = np.array([len(rows) for rows in members.values()])
        ends = torch.as_tensor(sizes.cumsum(), device=problem.device)
        return FittedPartitioned(fitted, ends, [f"{self.by} {name}" for name in members])

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: all parts' fitted samplers, each as if it had all rows, and one part's rows and moments at a time.

        The number of classes is not known before the data are: ``parts`` stands for it.
        """
        one = self.sampler.working_memory(size)
        made = min(one, moments_memory(size.dimension))  # given back before the next part is fitted
        clusters = 16 * size.train * min(_AXES, size.dimension) if self.by == "kmeans" else 0
        return made + self.parts * (one - made) + clusters + 4 * size.train * size.dimension


def class_members(dataset: Dataset) -> dict[int, NDArray[np.int64]]:
    """Row numbers of each label that occurs. Raises CapabilityError for rows without labels."""
    labels = dataset.train_labels
    if labels is None:
        raise CapabilityError(
            "partitioned: the training rows have no labels",
            got=dataset.name,
            allowed="a data set with labels",
            remedy="Take by: kmeans.",
        )
    return {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def cluster_members(dataset: Dataset, parts: int, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each k-means cluster on the leading 64 whitened principal components.

    In float64 on one thread, so that sums have one order and a seed one result. Cost O(N parts 64) an iteration, and
    that of the training moments. Raises ParameterError for more clusters than rows.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    count = len(dataset.train)
    if parts > count:
        raise ParameterError("partitioned: more parts than training rows", got=parts, allowed=f"at most {count}")
    moments = training_moments(dataset)
    axes = min(_AXES, int((moments.variances > _SMALLEST * moments.variances[0]).sum()))
    scale = moments.basis[:, :axes] / np.sqrt(moments.variances[:axes])
    coordinates = dataset.train @ scale.astype(np.float32) - (moments.mean @ scale).astype(np.float32)
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with threadpool_limits(limits=1):
        labels = KMeans(parts, n_init=_RESTARTS, random_state=state).fit_predict(coordinates.astype(np.float64))
    return [rows for part in range(parts) if len(rows := np.flatnonzero(labels == part))]


def restricted(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The data set with some of its training rows, and a fingerprint of its own: results kept by it are not mixed up.

    The law of a part is not known.
    """
    labels = None if dataset.train_labels is None else dataset.train_labels[rows]
    chosen = hashlib.sha256(f"{dataset.fingerprint} {len(dataset.train)} ".encode() + rows.tobytes()).hexdigest()
    fingerprint = chosen if dataset.fingerprint else ""  # none stays none: nothing is kept by it
    return replace(dataset, train=dataset.train[rows], train_labels=labels, law=None, fingerprint=fingerprint)


def _class_score(score: BoundScore, label: int) -> BoundScore:
    return score.of_class(label) if isinstance(score, ClassConditionalScore) else score


@dataclass(frozen=True)
class FittedPartitioned:
    """Fitted samplers of the parts, the last row number of each part plus one (K,), and the parts' names."""

    parts: Sequence[FittedSampler]
    ends: Tensor
    names: Sequence[str]

    def part_of(self, noise: NoiseStream) -> Tensor:
        """The part (n,) of every sample: that of a training row drawn uniformly, by draw 2^20 + N of the stream.

        N is the number of rows: a part that is parted once more has fewer, and so draws numbers of its own. From the
        same number it would choose again what is chosen already.
        """
        rows = int(self.ends[-1])
        row = noise.uniform_integers(_CHOICE + rows, rows)
        return torch.searchsorted(self.ends, row, right=True)

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d): the rows of each part by its own sampler, in a fixed loop over the parts."""
        part = self.part_of(noise)
        x = torch.empty((noise.size, noise.dimension), device=part.device, dtype=noise.dtype)
        for index, sampler in enumerate(self.parts):
            mask = part == index
            if bool(mask.any()):  # small batches miss most parts
                x[mask] = sampler.sample(noise.select(mask))
        return x

    def describe(self) -> dict[str, Any]:
        """Names and sizes of the parts, and what each part's sampler tells."""
        sizes = torch.diff(self.ends, prepend=self.ends.new_zeros(1)).tolist()
        told = zip(self.names, sizes, self.parts, strict=True)
        return {"parts": [{"part": name, "rows": size, "sampler": each.describe()} for name, size, each in told]}
