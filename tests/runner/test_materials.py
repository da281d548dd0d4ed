from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from kfpbench import registry
from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import RingMixture
from kfpbench.errors import CapabilityError
from kfpbench.protocols import ProblemSize
from kfpbench.runner.materials import Materials, choose_device, predict_memory, reference_rows
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create
from kfpbench.suite.load import suite_from_mapping

BASE: dict[str, Any] = {
    "name": "materials",
    "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
    "score": "mixture",
    "process": "ve",
    "samplers": ["gaussian"],
    "device": "cpu",
}


def cells(**changes: Any) -> tuple[Cell, ...]:
    return suite_from_mapping({**BASE, **changes}).cells


def cell(**changes: Any) -> Cell:
    (only,) = cells(**changes)
    return only


def data(**changes: Any) -> dict[str, Any]:
    return {**BASE["data"], **changes}


@pytest.mark.parametrize(("reference", "train", "validation"), [("test", 400, 0), ("validation", 300, 100)])
def test_the_training_rows_depend_on_the_reference(reference: str, train: int, validation: int) -> None:
    dataset = Materials().dataset(cell(data=data(reference=reference)).spec)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (train, validation, 200)


def test_the_training_size_cuts_rows_and_leaves_the_test_rows() -> None:
    whole = Materials().dataset(cell().spec)
    small = Materials().dataset(cell(data=data(train_size=50)).spec)
    np.testing.assert_array_equal(small.train, whole.train[:50])
    np.testing.assert_array_equal(small.test, whole.test)


def test_data_and_score_are_shared_as_long_as_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = RingMixture.load
    monkeypatch.setattr(RingMixture, "load", lambda self: loads.append(self.seed) or load(self))
    materials = Materials()
    heun = ["gaussian", {"name": "pf_ode_heun", "steps": 2}]
    first, second = (materials.problem(one) for one in cells(samplers=heun))
    assert first.dataset is second.dataset
    assert first.score is second.score
    assert loads == [0]

    other_score = materials.problem(cell(score="gaussian"))
    assert other_score.dataset is first.dataset
    assert other_score.score is not first.score
    other_dtype = materials.problem(cell(score="gaussian", dtype="float64"))
    assert other_dtype.score is not other_score.score
    assert other_dtype.dtype == torch.float64
    assert loads == [0]

    other_data = materials.problem(cell(score="gaussian", data=data(seed=1)))
    assert other_data.dataset is not first.dataset
    assert other_data.score is not other_score.score
    assert loads == [0, 1]


def test_a_score_is_bound_to_the_rows_of_its_cell() -> None:
    materials = Materials()
    whole, small = cells(score="empirical", grid={"data.train_size": [400, 50]})
    assert materials.problem(whole).score.rows.shape == (400, 2)
    assert materials.problem(small).score.rows.shape == (50, 2)


def test_the_seed_of_the_fit_is_that_of_the_cell() -> None:
    materials = Materials()
    assert [materials.problem(one).seed for one in cells(seed=5, repeats=3)] == [5, 6, 7]


def test_choose_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(CapabilityError, match="no such CUDA device"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


def test_reference_rows_are_drawn_once_and_without_replacement() -> None:
    dataset = RingMixture(train=10, validation=30, test=40).load()
    rows = reference_rows(dataset, "test", 25, seed=3)
    assert rows.shape == (25, 2)
    known = {tuple(row) for row in dataset.test.tolist()}
    drawn = [tuple(row) for row in rows.tolist()]
    assert len(set(drawn)) == 25
    assert set(drawn) <= known
    np.testing.assert_array_equal(rows, reference_rows(dataset, "test", 25, seed=3))
    assert not np.array_equal(rows, reference_rows(dataset, "test", 25, seed=4))
    np.testing.assert_array_equal(reference_rows(dataset, "test", 99, seed=3), dataset.test)
    np.testing.assert_array_equal(reference_rows(dataset, "validation", 30, seed=3), dataset.validation)


def test_every_reference_row_is_equally_likely() -> None:
    dataset = RingMixture(train=10, validation=10, test=20).load()
    place = {tuple(row): number for number, row in enumerate(dataset.test.tolist())}
    counts = np.zeros(20)
    for seed in range(400):
        for row in reference_rows(dataset, "test", 5, seed).tolist():
            counts[place[tuple(row)]] += 1
    assert counts.sum() == 2000
    assert np.abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)  # five standard deviations


def test_the_prediction_is_the_sum_of_its_parts() -> None:
    one = cell(data={"name": "digits"}, score="empirical", n_samples=70, batch_size=30)
    size = ProblemSize(train=1297, dimension=64, batch=30, itemsize=4)  # the test reference trains on validation rows
    score, sampler = (
        create(kind, one.spec[key]).working_memory(size) for kind, key in (("scores", "score"), ("samplers", "sampler"))
    )
    assert predict_memory(one) == score + sampler + 4 * 1297 * 64 + 8 * 70 * 64


def test_the_prediction_follows_what_costs_memory() -> None:
    base = predict_memory(cell(score="empirical"))
    assert predict_memory(cell(score="empirical", dtype="float64")) > base
    assert predict_memory(cell(score="empirical", data=data(reference="validation"))) < base
    assert predict_memory(cell(score="empirical", data=data(train_size=20))) < base
    assert predict_memory(cell(score="empirical", n_samples=5000)) > base
    assert predict_memory(cell(score="empirical", batch_size=1)) < base
    koopman = [{"name": "koopman", "operator": {"points": 500}}]
    assert predict_memory(cell(samplers=koopman)) > 8 * 500**2
    spectrum = [{"label": "modes", "operator": {"points": 500}}]
    assert predict_memory(cell(samplers=[], spectrum=spectrum)) > 8 * 500**2


def test_the_prediction_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(Digits, "load", refuse)
    assert predict_memory(cell(data={"name": "digits"}, score="empirical")) > 0


def test_predicted_memory_counts_the_data_and_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_local", dict(registry._local))

    @registry.register("datasets", "plain_size")
    class PlainSize:
        def load(self) -> None:
            raise AssertionError("loaded")

        def size(self, reference: str = "validation") -> tuple[int, int]:
            return 1000, 10

    small, large = cells(data="plain_size", score="gaussian", grid={"n_samples": [10, 11]}, batch_size=5)
    assert predict_memory(large) - predict_memory(small) == 80
    assert predict_memory(small) > 4 * 1000 * 10
    assert json.loads(json.dumps(small.spec))["data"]["name"] == "plain_size"
