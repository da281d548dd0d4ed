"""The verbs run, report and data fetch; what needs a process of its own (a signal, a pipe) has one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kfpbench
from kfpbench import registry
from kfpbench.cli import main
from kfpbench.store.run_folder import RunFolder

PLUGIN = """
import time
from pathlib import Path
import kfpbench

class Fitted:
    def sample(self, noise):
        return noise.normal(0)

    def describe(self):
        return {}

@kfpbench.register("datasets", "unreadable")
class Unreadable:
    def load(self):
        raise AssertionError("read")

    def size(self, reference="validation"):
        return 100, 2

@kfpbench.register("samplers", "slow")
class Slow:
    # Waits until a file is there.
    def __init__(self, gate: str):
        self.gate = Path(gate)

    def fit(self, problem):
        self.gate.with_suffix(".waiting").touch()
        while not self.gate.exists():
            time.sleep(0.05)
        return Fitted()

    def working_memory(self, size):
        return 1

@kfpbench.register("samplers", "raises")
class Raises:
    def fit(self, problem):
        raise ValueError("no way")

    def working_memory(self, size):
        return 1
"""
SUITE: dict[str, Any] = {
    "name": "cli_run",
    "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": ["gaussian", {"name": "pf_ode_heun", "label": "heun", "steps": 2}],
    "metrics": ["energy_distance"],
    "n_samples": 30,
    "batch_size": 30,
    "latency_repeats": 1,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder with the plugin file; registrations are undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return


def write(**changes: Any) -> str:
    """A suite file in the working folder."""
    Path("suite.yaml").write_text(json.dumps({**SUITE, **changes}))
    return "suite.yaml"


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    registry._local.clear()  # as the end of a process would
    return int(caught.value.code or 0), out, err


def test_a_run_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["run", write(), "--out", "out"], capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "2 cells"
    assert re.fullmatch(r"\[1/2\] ok \d+\.\d s  gmm_ring: gaussian", lines[1])
    assert re.fullmatch(r"\[2/2\] ok \d+\.\d s  gmm_ring: heun", lines[2])
    assert lines[3] == "gmm_ring"
    assert {"cell", "NFE", "status"} <= set(lines[4].split())
    assert lines[-1] == "report: out/report.html"
    assert "\x1b" not in out
    assert Path("out/report.html").is_file()


def test_the_default_folder_has_the_name_of_the_suite(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", write(samplers=["gaussian"])], capsys)[0] == 0
    assert RunFolder.is_run("reports/runs/cli_run")


def test_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    suite = write(plugins=["plugin.py"], samplers=["gaussian", "raises"])
    code, out, err = call(["run", suite, "--out", "out", "--json", "--allow-plugins"], capsys)
    said = json.loads(out)
    assert code == said["exit_code"] == 1
    assert (said["folder"], said["report"]) == ("out", "out/report.html")
    good, bad = said["cells"]
    assert (good["label"], good["status"], bad["label"], bad["status"]) == ("gaussian", "ok", "raises", "failed")
    assert bad["reason"] == "ValueError: no way"
    assert {entry["metric"] for entry in good["measurements"]} >= {"nfe", "seconds_per_image", "energy_distance"}
    assert "[2/2] failed" in err  # progress goes to the other stream


def test_exit_code_0_when_cells_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["run", write(budget={"memory_gib": 1e-6}), "--out", "out"], capsys)
    assert code == 0
    assert "[1/2] skipped" in out
    assert "more memory than its budget" in out


def test_set_and_select(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", write(), "--out", "out", "--set", "n_samples=20", "--set", "samplers.heun.steps=5"]
    code, out, _ = call([*arguments, "--select", "sampler=heun"], capsys)
    assert code == 0
    assert out.startswith("1 cells\n")
    frame = kfpbench.load_run("out")
    assert set(frame["label"]) == {"heun"}
    values = frame.set_index("metric")
    assert values.loc["nfe", "value"] == 10
    assert values.loc["energy_distance", "n"] == 20
    manifest = RunFolder.open("out").read_manifest()
    assert manifest["suite"]["overrides"] == ["n_samples=20", "samplers.heun.steps=5"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--set", "n_sample=20"], "Did you mean 'n_samples'?"),
        (["--set", "n_samples=0"], "n_samples"),
        (["--select", "sampler=hoin"], "Did you mean 'heun'?"),
        (["--select", "hoin"], "a selection is key=value"),
    ],
)
def test_bad_options_have_exit_code_2_and_make_nothing(
    extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(["run", write(), "--out", "out", *extra], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert not Path("out").exists()


def test_a_plugin_needs_consent(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plugin.py").write_text("raise AssertionError('the plugin was run')\n")
    code, out, err = call(["run", write(plugins=["plugin.py"]), "--out", "out"], capsys)
    assert (code, out) == (2, "")
    assert "--allow-plugins" in err
    assert not Path("out").exists()


def test_dry_run_reads_no_data_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    suite = write(plugins=["plugin.py"], data="unreadable", score="gaussian")
    code, out, _ = call(["run", suite, "--out", "out", "--dry-run", "--allow-plugins"], capsys)
    assert code == 0
    assert out.startswith("2 cells; predicted peak memory of each:\n")
    code, out, _ = call(["run", suite, "--dry-run", "--json", "--allow-plugins", "--select", "label=heun"], capsys)
    (cell,) = json.loads(out)["cells"]
    assert cell["label"] == "heun"
    assert cell["predicted_memory_bytes"] > 0
    assert sorted(path.name for path in Path().iterdir()) == ["plugin.py", "suite.yaml"]


def test_retry_failed_and_force(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["run", write(plugins=["plugin.py"], samplers=["gaussian", "raises"]), "--out", "out", "--allow-plugins"]
    lines = []
    for extra in ([], [], ["--retry-failed"], ["--force"]):
        code, out, _ = call([*base, *extra], capsys)
        assert code == 1
        lines.append((out.splitlines()[0], len(Path("out/cells.jsonl").read_text().splitlines())))
    assert lines == [
        ("2 cells", 2),
        ("2 cells, 2 finished already", 2),
        ("2 cells, 1 finished already", 3),
        ("2 cells", 5),
    ]


def test_another_suite_in_the_folder_has_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    call(["run", write(samplers=["gaussian"]), "--out", "out"], capsys)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    code, out, err = call(["run", write(name="other"), "--out", "out"], capsys)
    assert (code, out) == (2, "")
    assert "the folder holds a run of another suite; got 'cli_run'; allowed: other" in err
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_report_is_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    call(["run", write(samplers=["gaussian"]), "--out", "out"], capsys)
    report = Path("out/report.html")
    first = report.read_text()
    report.unlink()
    code, out, err = call(["report", "out"], capsys)
    assert (code, out, err) == (0, "out/report.html\n", "")
    assert report.read_text() == first


@pytest.mark.parametrize("folder", ["absent", "."])
def test_report_of_no_run_has_exit_code_2(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["report", folder], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: this is not a run folder")
    assert not Path("absent").exists()


def test_fetching_an_unknown_data_set_has_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["data", "fetch", "other"], capsys)
    assert (code, out) == (2, "")
    assert err == "error: no such data set to fetch; got 'other'; allowed: cifar10\n"


def test_an_interrupt_keeps_the_finished_cells(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    samplers = ["gaussian", {"name": "slow", "gate": str(tmp_path / "gate")}]
    command = ["run", write(plugins=["plugin.py"], samplers=samplers), "--out", "out", "--allow-plugins"]
    # Started in the background by a shell, the tests ignore SIGINT, and so would the command.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "kfpbench.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[1].startswith("[1/2] ok")
        while not (tmp_path / "gate.waiting").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "interrupted; finished cells are kept, run the same command again to go on\n"
    log = Path("out/cells.jsonl").read_text()
    assert len(log.splitlines()) == 1
    assert set(kfpbench.load_run("out")["label"]) == {"gaussian"}
    assert "gaussian" in Path("out/report.html").read_text()

    (tmp_path / "gate").touch()
    code, out, _ = call(command, capsys)
    assert code == 0
    assert out.startswith("2 cells, 1 finished already\n[2/2] ok")
    assert Path("out/cells.jsonl").read_text().startswith(log)
    assert set(kfpbench.load_run("out")["label"]) == {"gaussian", "slow"}
