"""The verb doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.cli import main


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["--json", "--quick", "--data", "digits"], capsys)
    said = json.loads(out)
    assert err == ""
    assert said["exit_code"] == code == 0, [one for one in said["findings"] if one["status"] == "problem"]
    found = {one["check"]: one for one in said["findings"]}
    assert {"Python", "packages", "torch", "CUDA", "threads", "clock", "run folders", "cache", "KeOps"} <= found.keys()
    assert {"CIFAR-10", "weights of unet", "plugins"} <= found.keys()
    assert found["data digits"]["status"] == "ok"
    assert all(one["fix"] for one in said["findings"] if one["status"] != "ok")
    assert sum(said["counts"].values()) == len(said["findings"])


def test_text_and_a_plugin_that_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    registry.available("kernels")
    broken = registry.Entry("kernels", "theirs", "no_such_module:Kernel", "theirs 1.0")
    monkeypatch.setitem(registry._installed["kernels"], "theirs", broken)
    code, out, err = call(["--quick"], capsys)
    assert (code, err) == (1, "")
    assert "problem  plugin kernels/theirs" in out
    assert "theirs 1.0" in out
    assert "fix:" in out
    assert "Traceback" not in out
    assert out.splitlines()[-1].startswith("1 problem(s), ")
    assert list(Path().iterdir()) == []


def test_data_that_nobody_knows_are_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["--data", "digitz"], capsys)
    assert (code, out) == (2, "")
    assert "Did you mean 'digits'?" in err
