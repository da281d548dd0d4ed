"""Every measure of memorisation needs held-out rows: one whose reference was trained on is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kfpbench.errors import NumericalError
from kfpbench.metrics.authenticity import Authenticity
from kfpbench.metrics.data_copying import DataCopying
from kfpbench.metrics.nearest_train import NearestTrain

MEASURES = (NearestTrain, Authenticity, DataCopying)


def clouds(d: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(d)
    train, fresh, samples = (rng.standard_normal((m, d)).astype(np.float32) for m in (300, n, n))
    return train, fresh, samples


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("features", ["identity", "pca"])
@pytest.mark.parametrize("d", [2, 30])
def test_a_reference_of_training_rows_is_refused(make_input, measure: Any, features: str, d: int) -> None:
    train, fresh, samples = clouds(d)
    metric = measure(features=features)
    with pytest.raises(NumericalError, match="consists of training rows") as refused:
        metric.evaluate(make_input(samples, train[:60], train))
    assert "100% of the rows" in str(refused.value)
    half = np.concatenate([train[:30], fresh[30:]])
    with pytest.raises(NumericalError, match="not training rows"):
        metric.evaluate(make_input(samples, half, train))
    with pytest.raises(NumericalError):  # copies, which would look as authentic as their reference
        metric.evaluate(make_input(train[:60], train[60:120], train))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("d", [1, 2, 30])
def test_held_out_rows_are_not(make_input, measure: Any, d: int) -> None:
    train, fresh, samples = clouds(d)
    some = np.concatenate([train[:20], fresh[20:]])  # images that occur in both, as blank ones do
    for reference in (fresh, some):
        measured = measure(features="identity").evaluate(make_input(samples, reference, train))
        assert all(np.isfinite(one.value) for one in measured)
