"""What tells arrays of rows apart: the keys of everything that is kept of them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBED_ROWS = 256


def digest(rows: NDArray[np.generic]) -> str:
    """Hash of shape, dtype and every byte of an array (BLAKE2b, 128 bits, hex). Cost O(bytes)."""
    contiguous = np.ascontiguousarray(rows)
    state = hashlib.blake2b(f"{contiguous.shape}{contiguous.dtype}".encode(), digest_size=16)
    state.update(contiguous.data if contiguous.size else b"")
    return state.hexdigest()


def training_key(fingerprint: str, train: NDArray[np.float32]) -> tuple[Hashable, ...]:
    """Identity of training rows: the data set's fingerprint, the shape, and a hash of evenly spaced rows.

    The fingerprint alone is not enough, because a data set cut by ``with_train_size`` keeps it. Without a
    fingerprint every byte is hashed. Cost O(256 d), or O(N d) without a fingerprint.
    """
    if not fingerprint:
        return ("", train.shape, digest(train))
    step = max(1, len(train) // _PROBED_ROWS)
    return (fingerprint, train.shape, digest(train[::step]))
