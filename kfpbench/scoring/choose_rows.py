"""Which rows are compared: equally many samples, reference rows and held-out rows for the floor, none of them twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError
from kfpbench.scoring.read_samples import LEAST_ROWS, Samples
from kfpbench.store.samples import to_levels

Split = Literal["test", "validation", "train"]
Indices = NDArray[np.int64]

_BLOCK = 512
# Independent orders from one seed. The reference's is that of runs, so that the same rows are compared as there.
_OF_REFERENCE, _OF_SAMPLES = 0, 1


@dataclass(frozen=True)
class Overlap:
    """How many of all samples equal a row of the reference split, a training row, or an earlier sample.

    Images are equal when all their 8-bit levels are, points when all their float32 are.
    """

    reference: int
    train: int
    repeated: int


@dataclass(frozen=True)
class Floor:
    """Held-out rows (n, d) in the place of samples, the training rows without them, and words for what they are."""

    rows: NDArray[np.float32]
    train: NDArray[np.float32]
    what: str


@dataclass(frozen=True)
class ChosenRows:
    """n rows each of samples and reference, the training rows (N, d), and the floor or None.

    ``left_out`` counts the rows of the reference split that equal a chosen sample.
    """

    samples: NDArray[np.float32]
    reference: NDArray[np.float32]
    train: NDArray[np.float32]
    overlap: Overlap
    left_out: int
    floor: Floor | None

    @property
    def n(self) -> int:
        """How many rows are compared."""
        return len(self.samples)


def split_for(dataset: Dataset, split: Split) -> Dataset:
    """A data set as loaded with the training rows that a measurement against the split may use: all but the test rows,
    or, for "validation", but the validation rows too.
    """
    return dataset.for_reference("validation" if split == "validation" else "test")


def choose_rows(samples: Samples, dataset: Dataset, split: Split, *, n: int | None = None, seed: int = 0) -> ChosenRows:
    """Choose from the samples and from a data set that is `split_for` the reference.

    - Samples: the first n of a random order under the seed, left in the order of the file.
    - Reference: n rows of the split, the same that a run with this seed takes, but for rows that equal a chosen sample:
      they would be at distance 0 from themselves. n None is the largest that samples and reference allow.
    - Training rows: those of the data set. For "train" the reference is taken out of them.
    - Floor: n further rows of the split that equal no chosen sample; where it has not as many left, the last n training
      rows. Both are taken out of the training rows; where fewer than n of these would be left there is no floor.

    Cost O((m + N) d). Raises ParameterError for an n that the rows do not allow.
    """
    pool = {"test": dataset.test, "validation": dataset.validation, "train": dataset.train}[split]
    images = dataset.image_shape is not None
    keys = [key for start in range(0, len(samples), _BLOCK) for key in _keys(samples.rows(_part(start)), images)]
    train_keys = _keys(dataset.train, images)
    pool_keys = train_keys if split == "train" else _keys(pool, images)
    known, trained = Counter(pool_keys), set(train_keys)
    overlap = Overlap(
        reference=sum(key in known for key in keys),
        train=sum(key in trained for key in keys),
        repeated=len(keys) - len(set(keys)),
    )
    order = _order(len(samples), seed, _OF_SAMPLES)
    usable = len(pool) // 2 if split == "train" else len(pool)  # some training rows must stay training rows
    most = _most([keys[index] for index in order], known, usable)
    if (most if n is None else n) < LEAST_ROWS or (n is not None and n > most):
        raise ParameterError(
            f"that many samples cannot be compared with as many rows of {dataset.name}/{split}",
            got=most if n is None else n,
            allowed=f"n from {LEAST_ROWS} to {most}" if most >= LEAST_ROWS else f"n >= {LEAST_ROWS}",
            remedy=f"There are {len(samples)} samples and {len(pool)} rows of {split}; {overlap.reference} are both.",
        )
    n = most if n is None else n
    chosen = np.sort(order[:n])
    taken = {keys[index] for index in chosen}
    free = np.array([key not in taken for key in pool_keys])
    candidates = _order(len(pool), seed, _OF_REFERENCE)
    candidates = candidates[free[candidates]]
    reference, rest = np.sort(candidates[:n]), candidates[n:]
    return ChosenRows(
        samples=samples.rows(chosen),
        reference=pool[reference],
        train=_without(dataset.train, reference) if split == "train" else dataset.train,
        overlap=overlap,
        left_out=int(np.count_nonzero(~free)),
        floor=_floor(dataset, split, n, reference, np.sort(rest[:n])),
    )


def _most(keys: Sequence[bytes], known: Counter[bytes], usable: int) -> int:
    """The largest n for which n reference rows are left when those that equal one of the first n samples are not."""
    seen: set[bytes] = set()
    blocked = np.empty(len(keys), dtype=np.int64)
    for position, key in enumerate(keys):
        blocked[position] = 0 if key in seen else known[key]
        seen.add(key)
    needed = np.arange(1, len(keys) + 1) + np.cumsum(blocked)
    return int(np.searchsorted(needed, usable, side="right"))


def _floor(dataset: Dataset, split: Split, n: int, reference: Indices, rest: Indices) -> Floor | None:
    train = dataset.train
    if split == "train":
        if len(rest) < n or len(train) - 2 * n < n:
            return None
        left = _without(train, np.concatenate([reference, rest]))
        return Floor(train[rest], left, f"{n:,} other rows of {dataset.name}/train, taken out of the training rows")
    if len(rest) == n:
        rows = dataset.test if split == "test" else dataset.validation
        return Floor(rows[rest], train, f"{n:,} other rows of {dataset.name}/{split}")
    if len(train) < 2 * n:
        return None
    what = (
        f"the last {n:,} training rows of {dataset.name}, taken out of the training rows, since {split} has not as "
        "many rows left; features that were trained or fitted on training rows have seen them"
    )
    return Floor(train[-n:], train[:-n], what)


def _order(count: int, seed: int, purpose: int) -> Indices:
    return np.random.Generator(np.random.Philox(key=seed + (purpose << 64))).permutation(count)


def _without(rows: NDArray[np.float32], index: Indices) -> NDArray[np.float32]:
    kept = np.ones(len(rows), dtype=bool)
    kept[index] = False
    return rows[kept]


def _part(start: int) -> slice:
    return slice(start, start + _BLOCK)


def _keys(rows: NDArray[np.float32], images: bool) -> list[bytes]:
    """A hash of each row: of its levels for images, of its float32 for points."""
    return list(_hashes(rows, images))


def _hashes(rows: NDArray[np.float32], images: bool) -> Iterator[bytes]:
    for start in range(0, len(rows), _BLOCK):
        part = rows[_part(start)]
        for row in to_levels(part) if images else part + np.float32(0):  # + 0: -0.0 equals 0.0
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()
