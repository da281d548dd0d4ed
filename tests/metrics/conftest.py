from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.protocols import MetricInput


@pytest.fixture
def make_input() -> Callable[..., MetricInput]:
    """Builds a MetricInput from samples, reference and (optionally) training rows."""

    def make(
        samples: NDArray,
        reference: NDArray,
        train: NDArray | None = None,
        *,
        seed: int = 0,
        fingerprint: str = "",
    ) -> MetricInput:
        samples, reference = np.asarray(samples, np.float32), np.asarray(reference, np.float32)
        train = reference if train is None else np.asarray(train, np.float32)
        dataset = Dataset("toy", train, reference, reference, fingerprint=fingerprint)
        return MetricInput(samples, reference, train, dataset, "test", seed)

    return make
