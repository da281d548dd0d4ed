"""`kfpbench score`: the table, JSON, files, and every error with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kfpbench.cli import main
from kfpbench.scoring.command import data_block
from kfpbench.store.samples import to_levels

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--data", "digits", "--metrics", "frechet,nearest_train")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("test.npz", samples=to_levels(digits.test).reshape(-1, 8, 8))
    np.save("copies.npy", digits.train[:60].reshape(-1, 8, 8))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def make(*arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `kfpbench score`."""
        code = 0
        try:
            main(["score", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return make


def test_the_table(call: Call) -> None:
    code, out, err = call("test.npz", *QUICK, "--n", "100")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "test.npz: array 'samples' of an npz; (n, H, W), grey; uint8 from 0 to 255: levels 0 to 255"
    assert lines[1] == "100 samples against 100 rows of digits/test, 1,297 training rows, seed 0"
    assert lines[2] == "floor: 100 other rows of digits/test"
    assert lines[3:5] == [
        "note: 100 of 500 samples were drawn under the seed",
        "note: 500 of 500 samples are rows of test themselves; such rows were left out of the reference",
    ]
    head = next(index for index, line in enumerate(lines) if line.startswith("metric"))
    assert re.split(r"\s{2,}", lines[head]) == [
        *("metric", "value", "95 % interval", "floor", "its interval", "better", "features", "n")
    ]
    first = re.split(r"\s{2,}", lines[head + 1])
    assert (first[0], first[5:]) == ("Fréchet distance", ["lower", "pca-64", "100"])
    assert float(first[1]) > 0


def test_json_and_files_agree_and_are_reproducible(call: Call) -> None:
    options = ("copies.npy", *QUICK, "--seed", "3")
    code, out, _ = call(*options, "--json", "--out", "a.json")
    assert code == 0
    content = json.loads(out)
    assert Path("a.json").read_text() == out
    assert (content["schema_version"], content["kind"]) == (1, "score")
    assert content["rows"]["equal_to_training_rows"] == 60
    assert call(*options, "--json")[1] == out
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        assert call(*options, "--out", name)[0] == 0
        frame = read(name)
        assert list(frame["metric"]) == [entry["metric"] for entry in content["measurements"]]
        np.testing.assert_allclose(frame["value"], [entry["value"] for entry in content["measurements"]])
        np.testing.assert_allclose(frame["floor_value"], [entry["floor"]["value"] for entry in content["measurements"]])
        assert set(frame["reference"]) == {"digits/test"}
    copied = frame.set_index("metric").loc["copied_fraction"]
    assert (copied["value"], copied["better"]) == (1.0, "lower")


def test_copies_are_shouted_first(call: Call) -> None:
    code, out, _ = call("copies.npy", *QUICK)
    assert code == 0
    assert out.startswith("COPIES OF TRAINING ROWS: ")
    assert "note: 60 of 60 samples equal training rows, value for value" in out.splitlines()


def test_reference_and_training_size(call: Call) -> None:
    _, out, _ = call("copies.npy", *QUICK, "--reference", "validation", "--json")
    content = json.loads(out)
    assert (content["data"]["reference"], content["data"]["train_rows"]) == ("digits/validation", 1097)
    Path("suite.yaml").write_text("name: mine\ndata: {name: digits, reference: validation, train_size: 400}\n")
    _, out, _ = call("copies.npy", "--data", "suite.yaml", "--metrics", "nearest_train", "--json")
    content = json.loads(out)
    assert (content["data"]["reference"], content["data"]["train_rows"]) == ("digits/validation", 400)


def test_data_blocks() -> None:
    digits = {"name": "digits", "reference": "test", "train_size": None}
    assert data_block("digits", []) == digits
    assert data_block("{name: digits}", ["train_size=50"]) == {**digits, "train_size": 50}
    Path("data.yaml").write_text("name: cifar10\n")
    assert data_block("data.yaml", ["data_dir=/elsewhere"])["data_dir"] == "/elsewhere"
    Path("data.yaml").write_text("name: suite\ndata: cifar10\n")
    assert data_block("data.yaml", ["data.data_dir=there"])["data_dir"] == "there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npz", *QUICK], "there is no such file or folder; got 'none.npz'"),
        (["test.npz", "--data", "digit"], "--data: no component of datasets.*Did you mean 'digits'"),
        (["test.npz", "--data", "{name: digits"], "--data:1:.*not valid YAML"),
        (["test.npz", "--data", "none.yaml"], "none.yaml"),
        (["test.npz", *QUICK, "--set", "nonsense"], "--set nonsense: an override is parameter=value"),
        (["test.npz", *QUICK, "--set", "nothing=1"], "--set nothing=1: .*got 'data.nothing'"),
        (["test.npz", *QUICK, "--reference", "all"], "--reference: no such split; got 'all'"),
        (["test.npz", *QUICK, "--range", "0"], "--range: not a range"),
        (["test.npz", *QUICK, "--range", "0,1"], "test.npz: the values do not lie in the range"),
        (["test.npz", *QUICK, "--n", "5000"], "got 5000; allowed: n from 8 to 250"),
        (["test.npz", *QUICK, "--features", "pcaa"], "--metrics: .*Did you mean 'pca'|no component of features"),
        (["test.npz", "--data", "digits", "--metrics", "fid"], "--metrics: no component of metrics"),
        (["test.npz", *QUICK, "--out", "a.txt"], "--out: this format is not written; got 'a.txt'"),
        (["test.npz", *QUICK, "--out", "none/a.json"], "--out: the file cannot be written there"),
        (["test.npz"], "--data"),
    ],
)
def test_errors_have_their_place(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call(*arguments)
    assert code == 2
    assert re.search(message, err), err
    assert "Traceback" not in err + out


def test_the_documented_code_runs(call: Call) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "scoring.md", "exec"), names)
    assert names["result"].value("copied_fraction") == 1.0
    options = set(re.findall(r"`(--[a-z]+)", page))
    assert options >= {"--data", "--reference", "--metrics", "--features", "--n", "--range", "--resize", "--out"}
    _, out, _ = call("--help")
    assert all(option in out for option in options)
