"""What every metric promises: validated input, declared outputs, seeded intervals, a readable signature."""

from __future__ import annotations

import inspect
import json
import typing

import numpy as np
import pytest

from kfpbench.errors import NumericalError, ParameterError, ShapeError, UnknownComponentError
from kfpbench.features.identity import Identity
from kfpbench.protocols import MetricPlugin
from kfpbench.registry import find

NAMES = [
    "energy_distance",
    "sliced_wasserstein",
    "frechet",
    "kid",
    "vendi",
    "pairwise_diversity",
    "wasserstein",
    "precision_recall",
    "density_coverage",
    "nearest_train",
]


@pytest.fixture(params=NAMES)
def component(request):
    return find("metrics", request.param).load()


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 5)), rng.standard_normal((60, 5)) + 0.2, rng.standard_normal((200, 5))


def test_measurements(component, clouds, make_input):
    metric = component()
    assert isinstance(metric, MetricPlugin)
    results = metric.evaluate(make_input(*clouds))
    assert [r.metric for r in results] == list(component.outputs)
    assert set(component.outputs.values()) <= {"lower", "higher", "neither"}
    for r in results:
        assert r.n == 60
        assert r.ci_low <= r.value <= r.ci_high
        assert {"features", "features_version", "reference", "interval", "replicates", "sd"} <= set(r.details)
        assert r.details["reference"] == "test"
        json.dumps(r.details)


def test_is_a_function_of_its_input(component, clouds, make_input):
    metric, data = component(), make_input(*clouds, seed=3)
    copies = data.samples.copy(), data.reference.copy()
    assert metric.evaluate(data) == metric.evaluate(data) == component().evaluate(data)
    np.testing.assert_array_equal(data.samples, copies[0])
    np.testing.assert_array_equal(data.reference, copies[1])


@pytest.mark.parametrize("n", [2, 3, 6, 7, 8])
def test_small_n(component, make_input, n):
    rng = np.random.default_rng(n)
    data = make_input(*(rng.standard_normal((m, 3)) for m in (n, n, 20)))
    metric = component(k=1) if "k" in inspect.signature(component).parameters else component()
    for r in metric.evaluate(data):
        assert np.isfinite(r.value)
        assert (r.ci_low is None) == (n < 8)


def test_refuses_bad_rows(component, clouds, make_input):
    x, y, train = clouds
    with pytest.raises(ShapeError, match="equally many rows"):
        component().evaluate(make_input(x[:-1], y, train))
    with pytest.raises(ShapeError, match="different numbers of columns"):
        component().evaluate(make_input(x[:, :-1], y, train))
    with pytest.raises(ShapeError, match="training rows do not match"):
        component().evaluate(make_input(x, y, train[:, :-1]))
    with pytest.raises(ShapeError, match="at least 2 rows"):
        component().evaluate(make_input(x[:1], y[:1], train))
    for bad in (np.nan, np.inf, -np.inf):
        broken = x.copy()
        broken[7, 1:3] = bad, -bad
        with pytest.raises(NumericalError, match="1 of 60 rows, the first is row 7"):
            component().evaluate(make_input(broken, y, train))


def test_features_parameter(component, clouds, make_input):
    by_name, by_object = component(features="identity"), component(features=Identity())
    data = make_input(*clouds)
    assert by_name.evaluate(data) == by_object.evaluate(data)
    with pytest.raises(UnknownComponentError, match="Did you mean 'identity'"):
        component(features="identiti")
    with pytest.raises(ParameterError, match="not a feature extractor"):
        component(features=Identity)


def test_signature_resolves(component):
    hints = typing.get_type_hints(component.__init__, include_extras=True)
    for name, parameter in inspect.signature(component).parameters.items():
        assert name in hints
        assert parameter.default is not inspect.Parameter.empty
