"""Colour images, and a data set of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset

Images = Callable[..., NDArray[np.float32]]


@pytest.fixture
def images() -> Images:
    """Rows of uniform colour images, (count, 3 side side)."""

    def make(count: int = 8, seed: int = 0, side: int = 32) -> NDArray[np.float32]:
        return np.random.default_rng(seed).uniform(-1, 1, (count, 3 * side**2)).astype(np.float32)

    return make


@pytest.fixture
def of_images() -> Callable[..., Dataset]:
    """A data set with these training rows."""

    def make(rows: NDArray[np.float32], shape: tuple[int, int, int] = (3, 32, 32)) -> Dataset:
        return Dataset("images", rows, rows[:0], rows[:0], image_shape=shape)

    return make
