from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from kfpbench import register
from kfpbench.protocols import KINDS
from kfpbench.suite.json_schema import DIALECT, suite_json_schema
from kfpbench.suite.loaded import Suite

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]


@pytest.fixture(scope="module")
def cached() -> dict[str, Any]:
    return {}


@pytest.fixture
def validator(cached: dict[str, Any]) -> jsonschema.Draft202012Validator:
    if not cached:
        cached.update(suite_json_schema())
        jsonschema.Draft202012Validator.check_schema(cached)
    return jsonschema.Draft202012Validator(cached)


def parsed(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


ACCEPTED = [
    ("", ""),
    ("data: {name: toy, size: 20}", "data: toy"),
    ("data: {name: toy, size: 20}", "data: {name: toy, size: 20, reference: validation, train_size: 5}"),
    ("data: {name: toy, size: 20}", "data: {name: toy, train_size: null, folder: null}"),
    ("name: bridge", "name: bridge, t_max: 1e-3"),
    ("eta: 0.5", "eta: 1"),
    ("eta: 0.5", "eta: 1\n    kernel: rough"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: gauss, bandwidth: median}"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: gauss, bandwidth: 2}"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: summed, kernels: [gauss, {name: rough, scales: [1, 2]}]}"),
    ("eta: 0.5", "eta: 1\n    refiner: null\n    cutoff: null"),
    ("eta: 0.5", "eta: 1\n    refiner: {name: steps, steps: 3}"),
    ("[distance]", "[]"),
    (
        "[distance]",
        "[{name: distance, features: projected}]\nspectrum: [{points: 5, at: null}, {label: eig}]",
    ),
    ("[distance]", "[]\nbudget: {seconds: null, memory_gib: 2}\ndevice: cuda:1\ndtype: float64\nrepeats: 3"),
    ("steps: 5}", "}\ngrid: {samplers.heun.steps: [1, 2]}"),
]
OWN = "name: own\ndata: diffusion\nspectrum: [{points: 5}]\n"  # a reference problem's own dynamics
OWN_ACCEPTED = [
    OWN,
    OWN.replace("diffusion", "{name: diffusion, beta: 2}"),
    OWN + "score: null\nprocess: null\nsamplers: []\n",
    OWN + "score: exact\nprocess: bridge\n",
    OWN.replace("diffusion", "toy") + "grid: {data: [diffusion, {name: diffusion, beta: 3}]}\n",
]
OWN_REFUSED = [
    OWN.replace("diffusion", "toy"),
    OWN.replace("diffusion", "{name: toy}"),
    OWN + "score: exact\n",
    OWN + "process: bridge\n",
    OWN + "process: bridge\nscore: null\n",
    OWN + "samplers: [{name: steps, steps: 3}]\n",
]
REFUSED = [
    ("name: demo", "nam: demo"),
    ("name: demo\n", ""),
    ("name: demo", "name: my demo"),
    ("score: exact\n", ""),
    ("name: demo", "name: demo\nseed: -1"),
    ("name: demo", "name: demo\nrepeats: true"),
    ("name: demo", "name: demo\ndevice: gpu"),
    ("name: demo", "name: demo\nschema_version: 2"),
    ("name: demo", "name: demo\ngrid: {data.size: []}"),
    ("name: demo", "name: demo\nbudget: {second: 1}"),
    ("name: toy", "name: toi"),
    ("size: 20", "sise: 20"),
    ("size: 20", "size: 0"),
    ("size: 20", "size: '20'"),
    ("size: 20", "label: x"),
    ("eta: 0.5", "eta: -1"),
    ("eta: 0.5", "eta: true"),
    ("eta: 0.5", "etaa: 1"),
    ("eta: 0.5", "eta: 1\n    kernel: gaus"),
    ("eta: 0.5", "eta: 1\n    kernel: null"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: gauss, nu: 1}"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: gauss, bandwidth: mean}"),
    ("eta: 0.5", "eta: 1\n    kernel: {name: summed, kernels: gauss}"),
    ("eta: 0.5", "eta: 1\n    refiner: {name: steps, steps: 3, label: x}"),
    (", steps: 5}", "}"),
    ("[distance]", "[distanse]"),
    ("[distance]", "[]\nspectrum: [{label: 3}]"),
    ("[distance]", "[]\nspectrum: [{name: dense}]"),
    ("eta: 0.5", "eta: 1\n    label: a.b"),
]


@pytest.mark.parametrize(("old", "new"), ACCEPTED)
def test_the_schema_accepts_what_load_suite_accepts(
    load: Load, base: str, validator: jsonschema.Draft202012Validator, old: str, new: str
) -> None:
    text = base.replace(old, new, 1) if old else base
    load(text)
    validator.validate(parsed(text))


@pytest.mark.parametrize("text", OWN_ACCEPTED)
def test_the_schema_accepts_a_problem_with_dynamics_of_its_own(
    load: Load, validator: jsonschema.Draft202012Validator, text: str
) -> None:
    load(text)
    validator.validate(parsed(text))


@pytest.mark.parametrize("text", OWN_REFUSED)
def test_the_schema_refuses_what_has_no_dynamics(
    refused: Refused, validator: jsonschema.Draft202012Validator, text: str
) -> None:
    assert refused(text)
    assert not validator.is_valid(parsed(text))


@pytest.mark.parametrize(("old", "new"), REFUSED)
def test_the_schema_refuses_what_load_suite_refuses(
    refused: Refused, base: str, validator: jsonschema.Draft202012Validator, old: str, new: str
) -> None:
    text = base.replace(old, new, 1)
    assert text != base
    assert refused(text)
    assert not validator.is_valid(parsed(text))


def test_an_empty_plan_is_refused(base: str, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(parsed(re.sub(r"samplers:(.|\n)*(?=metrics)", "samplers: []\n", base)))


def test_a_fragment_that_includes_the_rest_is_accepted(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate({"include": ["base.yaml"], "data": {"train_size": 3}})
    assert not validator.is_valid({"include": ["base.yaml"], "data": {"train_size": 0}})
    assert not validator.is_valid({"include": ["base.yaml"], "n_sample": 3})


def test_it_describes_every_component_of_every_kind(validator: jsonschema.Draft202012Validator) -> None:
    schema: Any = validator.schema
    assert schema["$schema"] == DIALECT
    for kind in KINDS:
        assert f"complete.{kind}" in schema["$defs"]
    toy = schema["$defs"]["complete.datasets.in_place.toy"]
    assert toy["description"] == "Points."
    assert list(toy["properties"]) == ["name", "reference", "train_size", "size", "folder"]
    assert schema["$defs"]["complete.samplers.spectral"]["properties"]["kernel"]["default"] == {"name": "gauss"}
    json.dumps(schema, allow_nan=False)


def test_a_component_that_cannot_be_described_says_so() -> None:
    @register("kernels", "odd")
    class Odd:
        def __init__(self, *scales: float) -> None:
            pass

    schema = suite_json_schema()
    assert "'scales'" in schema["$defs"]["complete.kernels.odd"]["description"]
    jsonschema.Draft202012Validator.check_schema(schema)
