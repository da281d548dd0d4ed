"""`kfpbench train` with `kind: classifier`: parts, signals, export with a measured card, errors and the schema."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
from ruamel.yaml import YAML

from kfpbench.cli import main
from kfpbench.data.dataset import Dataset
from kfpbench.errors import DataError, SuiteError
from kfpbench.features.cifar_cnn import CifarCNN
from kfpbench.networks.checkpoint import load_checkpoint
from kfpbench.networks.classifier_checkpoint import load_classifier, read_classifier_record
from kfpbench.training.classifier_trainer import ClassifierTrainer, accuracy, measure
from kfpbench.training.json_schema import training_json_schema
from kfpbench.training.load import load_training
from kfpbench.training.options import ClassifierOptions

FILE = """\
kind: classifier
name: tiny
data: digits
channels: [8, 16]
width: 6
epochs: 3
batch_size: 100
shift: 1
"""
ROOT = Path(__file__).parents[2]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(FILE)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def make(*arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `kfpbench train`."""
        code = 0
        try:
            main(["train", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return make


def test_a_run_in_parts_and_its_export(call: Call, monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    code, out, err = call("tiny.yaml", "--minutes", "0")
    assert (code, err) == (0, "")
    assert "0 of 3,000 images are seen and the state is saved: the same command goes on" in out
    code, _, err = call("tiny.yaml", "--export", "net.safetensors")
    assert (code, "nothing to export" in err) == (2, True)

    honest = ClassifierTrainer._next_step

    def stopped_at_step_4(self: ClassifierTrainer) -> torch.Tensor:
        if self.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return honest(self)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTrainer, "_next_step", stopped_at_step_4)
        code, out, _ = call("tiny.yaml")
    assert code == 143
    assert "stopped by a signal; 500 of 3,000 images" in out
    code, out, err = call("tiny.yaml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "500 of 3,000 images"
    assert re.fullmatch(r"2,500 of 3,000 images  loss \d+\.\d{4}  \d+/s  \d:\d\d:\d\d left", lines[1])
    assert lines[-1] == "checkpoint: reports/runs/tiny/checkpoint.safetensors"
    folder = Path("reports/runs/tiny")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in log] == [500, 2500, 3000]
    record = read_classifier_record(folder / "checkpoint.safetensors")
    assert (record.training.images, record.training.command) == (3000, "kfpbench train tiny.yaml")
    assert record.accuracy == {}
    assert str(Path.cwd()) not in record.model_dump_json()

    code, out, err = call("tiny.yaml", "--export", "weights/net.safetensors")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "model card: weights/net.md"
    exported, card = load_classifier(Path("weights/net.safetensors")), Path("weights/net.md").read_text()
    measured = read_classifier_record(Path("weights/net.safetensors")).accuracy
    assert measured == measure(exported.network, digits)
    share = accuracy(exported.network, torch.tensor(digits.test).view(-1, 1, 8, 8), torch.tensor(digits.test_labels))
    assert 0.2 < measured["test"].share == share < 1.0
    assert f"accuracy on the test images: {share:.4f} (n = {len(digits.test):,})" in card
    assert exported.sha256 in card
    assert "command: `kfpbench train tiny.yaml`" in card
    assert CifarCNN(weights="weights/net.safetensors").fit(digits).transform(digits.test[:4]).shape == (4, 6)


def test_an_export_is_at_most_four_mebibytes(call: Call) -> None:
    large = ("--set", "width=4096", "--set", "channels=[4, 512]", "--set", "epochs=1")
    assert call("tiny.yaml", *large)[0] == 0
    code, _, err = call("tiny.yaml", *large, "--export", "n.safetensors")
    assert (code, "too large to ship" in err, "at most 4 MiB" in err) == (2, True, True)
    assert not Path("n.safetensors").exists()


def test_a_classifier_is_no_score(call: Call) -> None:
    assert call("tiny.yaml", "--set", "epochs=1")[0] == 0
    with pytest.raises(DataError, match="no score network; got 'classifier'"):
        load_checkpoint(Path("reports/runs/tiny/checkpoint.safetensors"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("epochs: 3", "epochs: 0"), "tiny.yaml:6:9: epochs cannot have this value; got 0"),
        (FILE.replace("epochs", "epoch"), "tiny.yaml:6:1: unknown key; got 'epoch'; allowed: .* Did you mean 'epochs'"),
        (FILE + "images: 5\n", "tiny.yaml:9:1: unknown key; got 'images'"),
        (FILE.replace("classifier", "clasifier"), "tiny.yaml:1:7: nothing of that kind is trained; got 'clasifier'"),
        (FILE.replace("classifier", "3"), "nothing of that kind is trained; got 3; allowed: score, classifier"),
        (FILE.replace("digits", "digit"), "tiny.yaml:3:7: no component of datasets.* Did you mean 'digits'"),
        (FILE + "samplers: [jump]\n", "this is a suite, not a training file"),
        (FILE.replace("digits", "gmm_ring"), "a classifier needs labelled images"),
        (FILE.replace("[8, 16]", "[8, 16, 8]"), "too small to be halved so often"),
    ],
)
def test_errors_have_their_place(call: Call, text: str, message: str) -> None:
    Path("tiny.yaml").write_text(text)
    code, out, err = call("tiny.yaml")
    assert code == 2
    assert re.search(message, err), err
    assert "Traceback" not in err + out


def test_the_shipped_file_states_the_defaults() -> None:
    shipped = load_training(ROOT / "suites" / "train_classifier.yaml")
    assert isinstance(shipped, ClassifierOptions)
    assert (shipped.name, shipped.data) == ("cifar_cnn", {"name": "cifar10"})
    defaults = ClassifierOptions(name="cifar_cnn", data={"name": "cifar10"}, description=shipped.description)
    assert shipped == defaults


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        FILE.replace("data: digits", "data: {name: digits}"),
        FILE.replace("kind: classifier\n", ""),
        FILE.replace("epochs: 3", "epochs: 0"),
        FILE.replace("channels: [8, 16]", "channels: []"),
        FILE + "momentum: 1.0\n",
        FILE + "images: 5\n",
        FILE.replace("kind: classifier", "kind: other"),
        FILE.replace("name: tiny\n", ""),
        "kind: score\nname: small\ndata: digits\nimages: 5\n",
        "kind: score\nname: small\ndata: digits\nepochs: 5\n",
    ],
)
def test_the_schema_accepts_what_can_be_trained(text: str) -> None:
    Path("file.yaml").write_text(text)
    try:
        load_training("file.yaml")
        allowed = True
    except SuiteError:
        allowed = False
    schema = training_json_schema()
    assert jsonschema.Draft202012Validator(schema).is_valid(YAML(typ="safe", pure=True).load(text)) == allowed


def test_the_schema_of_a_file_whose_kind_is_elsewhere() -> None:
    validator = jsonschema.Draft202012Validator(training_json_schema())
    assert validator.is_valid({"include": ["base.yaml"], "epochs": 5})
    assert validator.is_valid({"include": ["base.yaml"], "images": 5})
    assert not validator.is_valid({"include": ["base.yaml"], "epochs": 5, "images": 5})
    assert not validator.is_valid({"include": ["base.yaml"], "kind": "score", "epochs": 5})
