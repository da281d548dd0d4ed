"""The data's moments: against numpy in float64, and charged alike to every cell that uses them."""

from __future__ import annotations

import numpy as np

from kfpbench.data.dataset import Dataset
from kfpbench.data.moments import training_moments
from kfpbench.data.shared_cost import billed, charge


def dataset(rows: np.ndarray, fingerprint: str) -> Dataset:
    return Dataset("made", rows, rows[:0], rows[:1], fingerprint=fingerprint)


def rows(seed: int = 0, n: int = 9000, d: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3.0).astype(np.float32)


def test_moments_are_those_of_numpy_in_float64():
    data = rows()
    moments = training_moments(dataset(data, ""))
    expected = np.cov(data.astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(moments.mean, data.mean(axis=0, dtype=np.float64), rtol=1e-12)
    rebuilt = (moments.basis * moments.variances) @ moments.basis.T
    np.testing.assert_allclose(rebuilt, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(moments.basis.T @ moments.basis, np.eye(7), atol=1e-12)
    assert (np.diff(moments.variances) <= 0).all()


def test_the_sign_of_an_axis_does_not_depend_on_the_solver():
    basis = training_moments(dataset(rows(1), "")).basis
    assert (basis[np.abs(basis).argmax(axis=0), np.arange(7)] > 0).all()


def test_reused_moments_are_charged_what_they_took():
    data = dataset(rows(2, n=40_000, d=60), "moments-test")
    with billed() as first:
        computed = training_moments(data)
        training_moments(data)
    with billed() as second:
        reused = training_moments(data)
    assert reused is computed
    assert sum(first.values()) == 0.0
    assert len(second) == 1
    assert sum(second.values()) > 0.0


def test_bills_nest_and_a_charge_without_a_bill_is_lost():
    charge("a", 1.0)
    with billed() as outer:
        charge("a", 2.0)
        with billed() as inner:
            charge("a", 3.0)
        charge("a", 2.0)
        charge("b", 4.0)
    assert outer == {"a": 2.0, "b": 4.0}
    assert inner == {"a": 3.0}


def test_training_sizes_do_not_share_moments():
    data = dataset(rows(3), "sizes-test")
    assert not np.allclose(training_moments(data).mean, training_moments(data.with_train_size(50)).mean)
