"""A planted defect moves the metric that should see it beyond its interval, and the findings name it."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kfpbench.data.cifar10 import Cifar10
from kfpbench.data.dataset import Dataset
from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import RingMixture
from kfpbench.metrics.class_entropy import most_probable_component
from kfpbench.protocols import MetricInput
from kfpbench.registry import find
from kfpbench.report.findings import findings_as_json
from kfpbench.store.records import measurement_entry

METRICS = (
    "nearest_train",
    "authenticity",
    "data_copying",
    "precision_recall",
    "density_coverage",
    "class_entropy",
)
SEEN_BY_FEATURES = ("precision_recall", "density_coverage", "class_entropy")
Rows = NDArray[np.float32]


@dataclass
class Planted:
    """A data set, n reference rows, and sets of n samples by the name of what is wrong with them.

    ``features`` are those of the metrics that look at classes and at the support; None: each metric's own.
    """

    dataset: Dataset
    reference: Rows
    samples: dict[str, Rows]
    features: str | None = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def record(self, defect: str) -> dict[str, Any]:
        """These samples as the record of a cell, measured with ``METRICS``."""
        if defect not in self.records:
            self.records[defect] = self._measure(defect)
        return self.records[defect]

    def interval(self, defect: str, metric: str) -> tuple[float, float]:
        """The interval of one metric of these samples."""
        return next((m["ci_low"], m["ci_high"]) for m in self.record(defect)["measurements"] if m["metric"] == metric)

    def findings(self, defect: str) -> set[str]:
        """The kinds of finding that the report makes."""
        return {one["kind"] for one in findings_as_json([self.record(defect)])}

    def _measure(self, defect: str) -> dict[str, Any]:
        name = self.dataset.name
        data = MetricInput(self.samples[defect], self.reference, self.dataset.train, self.dataset, f"{name}/test", 0)
        seen = {} if self.features is None else {one: {"features": self.features} for one in SEEN_BY_FEATURES}
        metrics = [find("metrics", one).load()(**seen.get(one, {})) for one in METRICS]
        return {
            "cell": f"{name}-{defect}",
            "label": defect,
            "kind": "sample",
            "status": "ok",
            "spec": {"data": {"name": name, "reference": "test"}, "n_samples": len(self.reference)},
            "measurements": [
                measurement_entry(measured, metric.outputs[measured.metric])
                for metric in metrics
                for measured in metric.evaluate(data)
            ],
        }


def of_images(dataset: Dataset, n: int, *, seed: int = 0) -> Planted:
    """Defects of labelled images: n reference rows from the test split, samples from the other held-out rows."""
    rng = np.random.default_rng(seed)
    assert dataset.test_labels is not None
    order = rng.permutation(len(dataset.test))
    reference, held_out = dataset.test[order[:n]], dataset.test[order[n:]]
    labels = dataset.test_labels[order[n:]]
    if dataset.validation_labels is not None and len(dataset.validation):
        held_out, labels = (
            np.concatenate([held_out, dataset.validation]),
            np.concatenate([labels, dataset.validation_labels]),
        )
    control, kept = held_out[:n], held_out[labels >= 3][:n]
    assert len(control) == len(kept) == n
    invented = control.copy()
    invented[: 3 * n // 10] *= -1  # negatives: no image of the data is one
    noise = rng.uniform(-1, 1, reference.shape).astype(np.float32)
    samples = {"control": control, "three classes missing": kept, "mode invention": invented, "noise": noise}
    return Planted(dataset, reference, samples | _of_training_rows(dataset.train, n, rng))


def of_points(dataset: Dataset, n: int, *, seed: int = 0) -> Planted:
    """Defects of a Gaussian mixture in the plane, drawn from its law."""
    rng = np.random.default_rng(seed)
    law = dataset.law
    assert law is not None
    reference, control = law.sample(n, rng), law.sample(n, rng)
    many = law.sample(4 * n, rng)
    kept = many[most_probable_component(law, many) >= 3][:n]
    invented = control.copy()
    invented[: 3 * n // 10] = 0.05 * rng.standard_normal((3 * n // 10, 2))  # the middle of the ring is empty
    noise = rng.uniform(-20, 20, reference.shape).astype(np.float32)
    samples = {"control": control, "three classes missing": kept, "mode invention": invented, "noise": noise}
    return Planted(dataset, reference, samples | _of_training_rows(dataset.train, n, rng))


def _of_training_rows(train: Rows, n: int, rng: np.random.Generator) -> dict[str, Rows]:
    chosen = rng.permutation(len(train))[:n]
    copies = train[chosen]
    squared = np.square(copies).sum(axis=1)[:, None] - 2 * copies @ train.T + np.square(train).sum(axis=1)
    squared[np.arange(n), chosen] = np.inf
    near = np.argsort(squared, axis=1)[:, :5]
    partner = near[np.arange(n), rng.integers(5, size=n)]
    any_partner = (chosen + 1 + rng.integers(len(train) - 1, size=n)) % len(train)
    return {
        "copies": copies.copy(),
        "blends of neighbours": (copies + train[partner]) / 2,
        "blends of any two": (copies + train[any_partner]) / 2,
    }


@functools.cache
def planted(name: str) -> Planted:
    """The defects of a data set, measured once."""
    if name == "digits":
        return of_images(Digits().load(), 250)
    if name == "gmm_ring":
        return of_points(RingMixture().load(), 250)
    if name == "cifar10 as a classifier sees it":
        made = of_images(Cifar10().load().for_reference("test").with_train_size(5000), 1000)
        return replace(made, features="cifar_cnn")
    return of_images(Cifar10().load().for_reference("test").with_train_size(5000), 200)


# What each defect moves, in which direction from the control, and what the report must and must not say of it.
TRUTHS: dict[str, tuple[dict[str, str], set[str], set[str]]] = {
    "copies": (
        {
            "nearest_train_ratio": "down",
            "copied_fraction": "up",
            "memorised_fraction": "up",
            "authenticity": "down",
            "data_copying": "down",
        },
        {"copies"},
        {"blends", "noise", "off_data", "misses_classes"},
    ),
    "blends of neighbours": (
        {"blended_fraction": "up"},
        {"blends"},
        {"copies", "noise", "off_data", "misses_classes"},
    ),
    "three classes missing": (
        {"effective_class_ratio": "down", "missing_class_share": "up", "coverage": "down"},
        {"misses_classes", "misses_data"},
        {"copies", "blends", "near_training", "noise", "off_data"},
    ),
    "mode invention": (
        {"precision": "down"},
        {"off_data"},
        {"copies", "blends", "near_training", "noise"},
    ),
    "noise": (
        {"nearest_train_ratio": "up", "coverage": "down"},
        {"noise"},
        {"copies", "blends", "near_training", "off_data", "misses_classes", "misses_data"},
    ),
}
FAST = ("digits", "gmm_ring")


def check(data: Planted, defect: str) -> None:
    """The metrics' intervals lie beyond those of the control, and the findings are right."""
    moves, told, untold = TRUTHS[defect]
    for metric, direction in moves.items():
        (low, high), (control_low, control_high) = data.interval(defect, metric), data.interval("control", metric)
        moved = high < control_low if direction == "down" else low > control_high
        assert moved, (metric, direction, (low, high), (control_low, control_high))
    found = data.findings(defect)
    assert told <= found
    assert not found & untold


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("defect", TRUTHS)
def test_a_planted_defect_is_found(name: str, defect: str) -> None:
    check(planted(name), defect)


def test_blends_of_any_two_images_are_found() -> None:
    """Of digits, not of points on a ring: the middle of two of its far points is near other points, or near none."""
    data = planted("digits")
    assert data.interval("blends of any two", "blended_fraction")[0] > 0.5
    assert "blends" in data.findings("blends of any two")
    assert "copies" not in data.findings("blends of any two")
    assert "off_data" in planted("gmm_ring").findings("blends of any two")


@pytest.mark.parametrize("name", FAST)
def test_nothing_is_found_in_held_out_rows(name: str) -> None:
    assert planted(name).findings("control") == set()


@pytest.mark.parametrize("seed", range(1, 6))
def test_nothing_is_found_in_other_draws_of_the_law(seed: int) -> None:
    data = of_points(RingMixture().load(), 150, seed=seed)
    assert data.findings("control") == set()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_a_share_of_copies(share: float) -> None:
    """30 % of copies are named; 2 % are not more than the interval allows to say."""
    data = planted("digits")
    count = round(share * len(data.reference))
    mixed = np.concatenate([data.samples["copies"][:count], data.samples["control"][count:]])
    found = Planted(data.dataset, data.reference, {"mixed": mixed}).findings("mixed")
    assert found == ({"copies"} if share > 0.05 else set())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KFPBENCH_DATA_DIR"), reason="set KFPBENCH_DATA_DIR to a folder with CIFAR-10")
def test_planted_defects_in_photographs() -> None:
    """In pixels and their principal components, without the missing classes, which these features do not tell apart.

    Negatives of photographs are no invention there, and noise has the precision of the mean image.
    """
    data = planted("cifar10")
    assert data.findings("control") == set()
    check(data, "copies")
    check(data, "blends of neighbours")
    assert "blends" in data.findings("blends of any two")
    assert "noise" in data.findings("noise")


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KFPBENCH_DATA_DIR"), reason="set KFPBENCH_DATA_DIR to a folder with CIFAR-10")
@pytest.mark.parametrize("defect", ["three classes missing", "noise"])
def test_planted_defects_in_photographs_as_a_classifier_sees_them(defect: str) -> None:
    data = planted("cifar10 as a classifier sees it")
    assert data.findings("control") == set()
    check(data, defect)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KFPBENCH_DATA_DIR"), reason="set KFPBENCH_DATA_DIR to a folder with CIFAR-10")
def test_a_foreign_class_among_photographs_moves_the_frechet_distance() -> None:
    """Handwritten digits in 30 % of the rows. A classifier puts them among the classes it knows: precision stays."""
    data = planted("cifar10 as a classifier sees it")
    mixed = data.samples["control"].copy()
    foreign = Digits().load().train[: 3 * len(mixed) // 10].reshape(-1, 1, 8, 8)
    mixed[: len(foreign)] = foreign.repeat(3, axis=1).repeat(4, axis=2).repeat(4, axis=3).reshape(len(foreign), -1)
    frechet = find("metrics", "frechet").load()(features="cifar_cnn")
    measured = {}
    for name, rows in (("control", data.samples["control"]), ("mixed", mixed)):
        given = MetricInput(rows, data.reference, data.dataset.train, data.dataset, "cifar10/test", 0)
        (measured[name],) = frechet.evaluate(given)
    assert measured["mixed"].ci_low > measured["control"].ci_high
