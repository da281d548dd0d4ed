"""What a data set is: rows of real vectors, split once and for all, and its law where that is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import ParameterError

Reference = Literal["test", "validation"]


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture sum_k w_k N(m_k, C_k): the law of the synthetic data sets.

    Shapes: weights (K,), means (K, d), covariances (K, d, d); float64.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw n points, shape (n, d). Cost O(n d^2)."""
        k, d = self.means.shape
        which = rng.choice(k, size=n, p=self.weights)
        factors = np.linalg.cholesky(self.covariances)  # (K, d, d)
        normal = rng.standard_normal((n, d))
        return (self.means[which] + np.einsum("nij,nj->ni", factors[which], normal)).astype(np.float32)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test rows of one data set.

    ``train`` (N, d), ``validation`` (V, d) and ``test`` (M, d) are float32 and disjoint; images lie in [-1, 1],
    channel first, flattened; ``image_shape`` is (C, H, W) for images and None for points. Labels are int64 or
    None. ``law`` is the exact distribution where it is known. ``fingerprint`` identifies the content (sha256,
    hex) of the three splits as loaded: ``for_reference`` and ``with_train_size`` keep it, so a key for derived
    results names those choices too.
    """

    name: str
    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    image_shape: tuple[int, int, int] | None = None
    train_labels: NDArray[np.int64] | None = None
    validation_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    law: Mixture | None = None
    source: str = ""
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def dimension(self) -> int:
        """Number of coordinates d of one row."""
        return int(self.train.shape[1])

    def reference(self, which: Reference) -> NDArray[np.float32]:
        """The rows against which samples are measured: untouched test rows, or validation rows for tuning.

        Raises ParameterError for validation rows that have been merged into the training rows.
        """
        if which == "validation" and len(self.validation) == 0:
            raise ParameterError(
                f"data set {self.name!r} has no validation rows (any more)",
                remedy="for_reference('test') merges them into train: start from the data set as loaded.",
            )
        return self.test if which == "test" else self.validation

    def for_reference(self, which: Reference) -> Dataset:
        """The data set with the training rows that a measurement against that split may use.

        "validation" (sweeps, tuning) leaves it as it is: the validation rows are not training rows. "test"
        (published numbers) trains on everything but the test rows: the validation rows follow the training
        rows, and the validation split is empty, so that the splits stay disjoint. Call it before
        ``with_train_size``. Rows are not copied when the two splits are neighbours in one array, as those
        of our image sets are.

        Raises ParameterError when the validation rows are asked for and have been merged already.
        """
        if which == "validation":
            self.reference(which)
            return self
        if len(self.validation) == 0:
            return self
        labels, held_labels = self.train_labels, self.validation_labels
        if labels is not None and held_labels is not None:
            labels, held_labels = _joined(labels, held_labels), held_labels[:0]
        return replace(
            self,
            train=_joined(self.train, self.validation),
            validation=self.validation[:0],
            train_labels=labels,
            validation_labels=held_labels,
        )

    def with_train_size(self, size: int | None) -> Dataset:
        """The same data set with its first ``size`` training rows only; None keeps all.

        Raises ParameterError when there are fewer rows than asked for.
        """
        if size is None or size == len(self.train):
            return self
        if not 0 < size <= len(self.train):
            raise ParameterError(
                f"data set {self.name!r} cannot give that many training rows",
                got=size,
                allowed=f"1 to {len(self.train)}",
                remedy="Lower data.train_size.",
            )
        labels = None if self.train_labels is None else self.train_labels[:size]
        return replace(self, train=self.train[:size], train_labels=labels)


def _joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """The rows of both, first then second; a view of their common array where they are neighbours in it."""
    base = first.base
    if (
        isinstance(base, np.ndarray)
        and base is second.base
        and base.dtype == first.dtype
        and base.shape[1:] == first.shape[1:]
        and all(array.flags.c_contiguous for array in (base, first, second))
        and first.ctypes.data + first.nbytes == second.ctypes.data
    ):
        start = (first.ctypes.data - base.ctypes.data) // base[:1].nbytes
        joined: NDArray[Any] = base[start : start + len(first) + len(second)]
        return joined
    return np.concatenate([first, second])
