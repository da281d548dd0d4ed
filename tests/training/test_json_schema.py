"""The schema of training files accepts what load_training accepts and refuses what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from kfpbench.cli import main
from kfpbench.errors import SuiteError
from kfpbench.suite.json_schema import DIALECT
from kfpbench.training.json_schema import training_json_schema
from kfpbench.training.load import load_training
from kfpbench.training.options import TrainingOptions

SUITES = Path(__file__).parents[2] / "suites"
FILE = """\
schema_version: 1
name: small
data: {name: digits}
network: {patch: 1, channels: [8, 16]}
images: 1000
seed: 0
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    made = training_json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def accepted(schema: dict[str, Any], text: str) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("data: {name: digits}", "data: digits"),
        ("data: {name: digits}", "data: {name: gmm_ring, modes: 3}"),
        ("network: {patch: 1, channels: [8, 16]}\n", ""),
        ("patch: 1", "patch: 1, blocks: 2, attention: [], dropout: 0.1"),
        ("seed: 0", "precision: bfloat16\nflips: false\ncooldown_images: 0\nema_ramp: 1"),
    ],
)
def test_it_accepts_what_can_be_trained(schema: dict[str, Any], tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "file.yaml").write_text(text := FILE.replace(old, new, 1))
    load_training(tmp_path / "file.yaml")
    assert accepted(schema, text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: small\n", ""),
        ("data: {name: digits}\n", ""),
        ("data: {name: digits}", "data: {name: digitz}"),
        ("data: {name: digits}", "data: {name: digits, reference: test}"),  # training takes the training split
        ("data: {name: digits}", "data: {name: gmm_ring, modes: 0}"),
        ("patch: 1", "patch: 3"),
        ("patch: 1", "path: 1"),
        ("images: 1000", "images: 0"),
        ("images: 1000", "images: '1000'"),
        ("images: 1000", "image: 1000"),
        ("schema_version: 1", "schema_version: 2"),
        ("seed: 0", "precision: float16"),
        ("seed: 0", "samplers: [gaussian]"),
    ],
)
def test_it_refuses_what_cannot(schema: dict[str, Any], tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "file.yaml").write_text(text := FILE.replace(old, new, 1))
    assert text != FILE
    with pytest.raises(SuiteError):
        load_training(tmp_path / "file.yaml")
    assert not accepted(schema, text)


def test_a_file_that_includes_the_rest_is_accepted(schema: dict[str, Any]) -> None:
    assert accepted(schema, "include: [base.yaml]\nimages: 5")
    assert not accepted(schema, "include: [base.yaml]\nimages: 0")


def test_the_shipped_training_file_is_accepted(schema: dict[str, Any]) -> None:
    assert accepted(schema, (SUITES / "train_cifar10.yaml").read_text(encoding="utf-8"))
    assert not accepted(schema, (SUITES / "quickstart.yaml").read_text(encoding="utf-8"))


def test_the_command_prints_it(schema: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schema", "--training"])
    printed = json.loads(capsys.readouterr().out)
    assert not end.value.code
    assert printed == json.loads(json.dumps(schema))
    assert printed["$schema"] == DIALECT
    keys = printed["$defs"]["complete.training.score"]["properties"]
    assert set(keys) == {*TrainingOptions.model_fields, "include"}
    assert keys["ema_images"]["description"] == "Half-life of the weights' average."
    assert set(keys["network"]["properties"]) >= {"patch", "channels", "attention"}
