"""A network that trains in milliseconds a step, and the digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.digits import Digits
from kfpbench.training.options import TrainingOptions

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits"},
    "network": {"patch": 1, "channels": [8, 16], "attention": [1]},
    "images": 80,
    "batch_size": 8,
    "warmup_images": 16,
    "precision": "float32",
}


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return Digits().load()


@pytest.fixture
def options() -> Callable[..., TrainingOptions]:
    def make(**changes: Any) -> TrainingOptions:
        return TrainingOptions.model_validate({**TINY, **changes})

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order: runs are compared bit by bit, also with those of another process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
