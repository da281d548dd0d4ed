"""`kfpbench train`: parts, signals, export, logs, and every error with its place."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfpbench.cli import main
from kfpbench.networks.checkpoint import load_checkpoint
from kfpbench.training.batches import Batch, Batches
from kfpbench.training.command import stated_command
from kfpbench.training.load import load_training
from kfpbench.training.stop import StopSignals

FILE = """\
name: tiny
data: digits
network: {patch: 1, channels: [8, 16], attention: [1]}
images: 96
batch_size: 8
precision: float32
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(FILE)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def make(*arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `kfpbench train`."""
        code = 0
        try:
            main(["train", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return make


Call = Callable[..., tuple[int, str, str]]


def at_step(step: int, do: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something at the beginning of a step."""
    honest = Batches.at

    def at(self: Batches, number: int) -> Batch:
        if number == step:
            do()
        return honest(self, number)

    monkeypatch.setattr(Batches, "at", at)


def test_a_run_in_parts(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = call("tiny.yaml", "--minutes", "0")
    assert (code, err) == (0, "")
    assert "0 of 96 images are seen and the state is saved: the same command goes on" in out
    with monkeypatch.context() as patch:
        at_step(5, lambda: signal.raise_signal(signal.SIGTERM), patch)
        code, out, _ = call("tiny.yaml")
    assert code == 143
    assert "stopped by a signal; 48 of 96 images" in out
    code, out, err = call("tiny.yaml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "48 of 96 images"
    assert re.fullmatch(r"96 of 96 images  loss \d+\.\d{4}  \d+/s  0:00:00 left", lines[1])
    assert lines[2] == "checkpoint: reports/runs/tiny/checkpoint.safetensors"
    folder = Path("reports/runs/tiny")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in log] == [48, 96]
    assert set(log[0]) == {"images", "loss", "speed", "rate", "seconds"}
    assert log[0]["seconds"] < log[1]["seconds"]
    record = load_checkpoint(folder / "checkpoint.safetensors").record
    assert (record.training.images, record.training.command) == (96, "kfpbench train tiny.yaml")
    assert str(Path.cwd()) not in record.model_dump_json()


def test_the_card_states_the_command_with_its_overrides(call: Call) -> None:
    assert call("tiny.yaml", "--set", "images=32", "--set", "learning_rate=1.0e-4", "--out", "run")[0] == 0
    record = load_checkpoint(Path("run/checkpoint.safetensors")).record
    assert record.training.command == "kfpbench train tiny.yaml --set images=32 --set learning_rate=1.0e-4"


def test_a_stated_command_has_no_path_of_this_machine_and_is_quoted_for_a_shell() -> None:
    home = Path.cwd()
    stated = stated_command(home / "tiny.yaml", ["data.data_dir=" + str(home / "my data"), "network.channels=[8, 16]"])
    assert str(home) not in stated
    assert shlex.split(stated)[1:] == [
        "train",
        "tiny.yaml",
        "--set",
        "data.data_dir=my data",
        "--set",
        "network.channels=[8, 16]",
    ]


def test_control_c_saves_and_a_second_one_ends_at_once(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(3, lambda: signal.raise_signal(signal.SIGINT), patch)
        assert call("tiny.yaml", "--out", "run")[0] == 130
    assert json.loads(Path("run/state.json").read_text())["step"] == 4
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_export(call: Call) -> None:
    code, _, err = call("tiny.yaml", "--export", "weights/net.safetensors")
    assert code == 2
    assert "nothing to export" in err
    assert call("tiny.yaml", "--set", "images=16")[0] == 0
    code, out, err = call("tiny.yaml", "--export", "weights/net.safetensors")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "model card: weights/net.md"
    exported = load_checkpoint(Path("weights/net.safetensors"))
    assert exported.record.training.images == 16
    assert exported.sha256 in Path("weights/net.md").read_text()
    code, _, err = call("tiny.yaml", "--export", "net.bin")
    assert (code, "ends in .safetensors" in err) == (2, True)


def test_a_state_of_other_options_is_refused(call: Call) -> None:
    assert call("tiny.yaml", "--set", "images=8")[0] == 0
    code, _, err = call("tiny.yaml", "--set", "seed=1")
    assert code == 2
    assert "reports/runs/tiny: the folder holds the state of another training run; got 'different: seed'" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("images: 96", "images: many"), "tiny.yaml:4:9: images cannot have this value; got 'many'"),
        (FILE + "imags: 3\n", "tiny.yaml:7:1: unknown key; got 'imags'; allowed: .* Did you mean 'images'"),
        (
            FILE.replace("patch: 1", "patch: 3"),
            "tiny.yaml:3:18: network.patch cannot have this value; got 3; allowed: 1, 2",
        ),
        (FILE.replace("patch: 1", "depth: 3"), "tiny.yaml:3:11: unknown key in network; got 'depth'"),
        (FILE.replace("digits", "digit"), "tiny.yaml:2:7: no component of datasets.* Did you mean 'digits'"),
        (
            FILE + "samplers: [jump]\n",
            "tiny.yaml:7:1: this is a suite, not a training file; got \"the key 'samplers'\"",
        ),
        ("name: [", "tiny.yaml:1:8: not valid YAML"),
        (FILE.replace("channels: [8, 16]", "channels: [8, 8, 8, 8, 8]"), "multiples of 16"),
        (FILE.replace("digits", "gmm_ring"), "training needs images"),
    ],
)
def test_errors_have_their_place(call: Call, text: str, message: str) -> None:
    Path("tiny.yaml").write_text(text)
    code, out, err = call("tiny.yaml")
    assert code == 2
    assert re.search(message, err)
    assert "Traceback" not in err + out


def test_the_documented_files_are_valid(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    shipped = load_training(root / "suites" / "train_cifar10.yaml")
    assert (shipped.name, shipped.data) == ("cifar10_unet", {"name": "cifar10"})
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    Path("documented.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    assert load_training("documented.yaml").network.channels == [32, 64]
    names: dict[str, Any] = {}
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "training.md", "exec"), names)
    assert callable(names["publish"])


def test_errors_of_the_command_line(call: Call) -> None:
    for arguments, message in [
        (["none.yaml"], "the training file does not exist; got 'none.yaml'"),
        (["tiny.yaml", "--set", "images"], "--set images: an override is path=value"),
        (["tiny.yaml", "--set", "network.patch.x=1"], "goes on below a value that is no mapping"),
        (["tiny.yaml", "--set", "seed=-1"], "--set seed=-1: seed cannot have this value; got -1"),
        (["tiny.yaml", "--device", "cuda:99"], "no such CUDA device"),
    ]:
        code, _, err = call(*arguments)
        assert (code, message in err) == (2, True), err
