"""The verb init: what it writes is complete, valid, runs, and is never written over unasked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kfpbench.cli import main
from kfpbench.suite.load import load_suite
from kfpbench.suite.starter import DATA, starter_text


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("data", DATA)
def test_every_line_is_valid(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["init", "new/first.yaml", "--data", data], capsys)
    assert (code, err) == (0, "")
    assert out == "wrote new/first.yaml; next:\n  kfpbench run new/first.yaml\n"
    suite = load_suite("new/first.yaml")
    assert suite.model.name == "first"
    assert {cell.label for cell in suite.cells} == {"spectral", "gaussian", "heun"}
    assert {cell.spec["data"]["name"] for cell in suite.cells} == {data}
    text = Path("new/first.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "{" not in re.sub(r"\{\w+: [^{}]*\}", "", text)  # no placeholder is left
    code, out, _ = call(["run", "new/first.yaml", "--dry-run"], capsys)
    assert (code, out.splitlines()[0]) == (0, "4 cells; predicted peak memory of each:")


def test_digits_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init"], capsys)[0] == 0
    small = ["n_samples=20", "batch_size=20", "latency_repeats=1", "samplers.spectral.operator.points=40", "grid={}"]
    small += ["samplers.spectral.operator.segments=2", "metrics=[energy_distance]"]
    overrides = [word for value in small for word in ("--set", value)]
    code, out, _ = call(["run", "suite.yaml", "--out", "out", *overrides], capsys)
    assert code == 0
    assert out.count(" ok ") == 3


def test_a_file_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("suite.yaml").write_text("mine")
    code, out, err = call(["init"], capsys)
    assert (code, out) == (2, "")
    assert err == (
        "error: the file exists; nothing was changed; got 'suite.yaml'. "
        "Name another file, or overwrite this one with --force.\n"
    )
    assert Path("suite.yaml").read_text() == "mine"
    assert call(["init", "--force", "--data", "gmm_ring"], capsys)[0] == 0
    assert load_suite("suite.yaml").cells[0].spec["data"]["name"] == "gmm_ring"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init", "folder", "--force"], "there is a folder of that name"),
        (["init", "folder/file/x.yaml"], "the suite cannot be written"),
        (["init", "--data", "mnist"], "allowed: digits, gmm_ring, cifar10"),
    ],
)
def test_refusals(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    Path("folder/file").touch()
    code, out, err = call(arguments, capsys)
    assert (code, out) == (2, "")
    assert says in err
    assert not Path("suite.yaml").exists()


@pytest.mark.parametrize(
    "name", ["2026.yaml", "null.yaml", "1e5.yml", "my first suite.yaml", "..x.yaml", "a\nb: c.yaml"]
)
def test_any_file_name_gives_a_valid_suite(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["init", name], capsys)
    assert code == 0
    assert shlex.split(out.partition("next:\n")[2]) == ["kfpbench", "run", name]
    assert load_suite(name).model.name


def test_the_text_says_where_things_are() -> None:
    text = starter_text("digits", Path("mine.yaml"))
    for word in ("kfpbench validate mine.yaml", "kfpbench ls", "kfpbench schema", "--allow-plugins", "label"):
        assert word in text
