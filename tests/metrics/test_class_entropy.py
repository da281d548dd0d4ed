from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kfpbench import testing
from kfpbench.data.dataset import Dataset
from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import RingMixture
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.metrics.class_entropy import ClassEntropy, most_probable_component
from kfpbench.protocols import MetricInput
from kfpbench.testing import metrics as contract


def labelled_input(samples, reference, train, labels, seed=0):
    samples, reference, train = (np.asarray(rows, np.float32) for rows in (samples, reference, train))
    dataset = Dataset("toy", train, reference, reference, train_labels=np.asarray(labels, np.int64))
    return MetricInput(samples, reference, train, dataset, "test", seed)


def on_a_circle(classes, per_class, rng, of=10):
    angles = 2 * np.pi * np.repeat(classes, per_class) / of
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.02 * rng.standard_normal((len(angles), 2))


def measure(data, **keywords):
    return {m.metric: m for m in ClassEntropy(features="identity", **keywords).evaluate(data)}


def test_three_of_ten_classes_missing():
    rng = np.random.default_rng(0)
    train, reference = on_a_circle(range(10), 20, rng), on_a_circle(range(10), 14, rng)
    samples = on_a_circle(range(7), 20, rng)
    found = measure(labelled_input(samples, reference, train, np.repeat(range(10), 20)))
    assert found["class_entropy"].value == pytest.approx(math.log(7))
    assert found["effective_class_ratio"].value == pytest.approx(0.7)
    assert found["missing_class_share"].value == pytest.approx(0.3)
    assert found["missing_class_share"].ci_low > 0.2
    assert found["effective_class_ratio"].ci_high < 0.8
    details = found["class_entropy"].details
    assert details["classifier_accuracy"] == 1.0
    assert details["histogram"] == pytest.approx([1 / 7] * 7 + [0.0] * 3)
    good = measure(labelled_input(on_a_circle(range(10), 14, rng), reference, train, np.repeat(range(10), 20)))
    assert good["missing_class_share"].value == 0.0
    assert good["effective_class_ratio"].value == pytest.approx(1.0)


def test_majority_and_ties():
    # at 0 the neighbours are 0.1 (class 1), -0.2 and -0.3 (class 0), 0.4 (class 1), 5 (class 2)
    train, labels = [[0.1], [-0.2], [-0.3], [0.4], [5.0]], [1, 0, 0, 1, 2]
    rows = np.zeros((2, 1))
    seen = {}
    for neighbours in (1, 2, 3, 4, 5):
        found = measure(labelled_input(rows, rows, train, labels), neighbours=neighbours)
        seen[neighbours] = int(np.argmax(found["class_entropy"].details["histogram"]))
    # one: the nearest; two: a tie, the nearer; three: two votes of class 0; four and five: a tie, class 1 is nearer
    assert seen == {1: 1, 2: 1, 3: 0, 4: 1, 5: 1}


def test_classes_of_a_mixture_are_its_components():
    ring = RingMixture(modes=8, train=800, validation=100, test=400).load()
    assert ring.train_labels is None
    angles = np.arctan2(ring.test[:, 1], ring.test[:, 0])
    nearest = np.round(angles / (2 * np.pi / 8)).astype(int) % 8  # modes are 10 standard deviations apart
    np.testing.assert_array_equal(most_probable_component(ring.law, ring.test), nearest)
    data = MetricInput(ring.test[:100], ring.test[100:200], ring.train, ring, "test", 0)
    found = {m.metric: m for m in ClassEntropy().evaluate(data)}
    counts = np.bincount(nearest[:100], minlength=8) / 100
    assert found["class_entropy"].details["histogram"] == pytest.approx(counts.tolist())


def test_digits_are_told_apart_in_pixels():
    digits = Digits().load()
    half = digits.test[:250]
    missing = digits.test[250:][digits.test_labels[250:] < 7]
    n = len(missing)
    found = {
        m.metric: m for m in ClassEntropy().evaluate(MetricInput(missing, half[:n], digits.train, digits, "test", 0))
    }
    assert found["class_entropy"].details["classifier_accuracy"] > 0.96
    truth = np.bincount(digits.test_labels[:n], minlength=10)[7:].sum() / n
    assert found["missing_class_share"].value > truth - 0.05
    assert found["effective_class_ratio"].ci_high < 0.85


def test_needs_classes():
    digits = Digits().load()
    rows = digits.test[:20]
    nameless = replace(digits, train_labels=None)
    with pytest.raises(CapabilityError, match="needs data with classes"):
        ClassEntropy().evaluate(MetricInput(rows, rows, digits.train, nameless, "test", 0))
    for keywords in ({"neighbours": 0}, {"labelled_rows": 0}):
        with pytest.raises(ParameterError):
            ClassEntropy(**keywords)


def test_keeps_the_contract_of_metrics_on_data_with_classes(monkeypatch):
    plain = contract.make_input

    def with_classes(samples, reference, train, seed=0):
        data = plain(samples, reference, train, seed)
        labels = (train[:, 0] > 0).astype(np.int64) + (train[:, 1] > 0)
        return replace(data, dataset=replace(data.dataset, train_labels=labels, fingerprint="contract with classes"))

    monkeypatch.setattr(contract, "make_input", with_classes)
    for finding in testing.report("metrics", ClassEntropy):
        assert finding.passed, str(finding)
