"""-v, --log-file, --pdb and --profile: what is said where, and that nothing is said unasked."""

from __future__ import annotations

import io
import json
import logging
import pstats
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfpbench import registry
from kfpbench.cli import main
from kfpbench.runner.profiling import NOTE
from kfpbench.store.run_folder import RunFolder

PLUGIN = """
import warnings
import kfpbench
from kfpbench.errors import CapabilityError

@kfpbench.register("samplers", "raises")
class Raises:
    def fit(self, problem):
        treasure = "found"
        warnings.warn("mind\\x1b the gap")
        raise ValueError("no way")

    def working_memory(self, size):
        return 1

@kfpbench.register("samplers", "cannot")
class Cannot(Raises):
    def fit(self, problem):
        raise CapabilityError("not with these data")
"""
SUITE: dict[str, Any] = {
    "name": "logged",
    "plugins": ["plugin.py"],
    "data": {"name": "gmm_ring", "train": 200, "validation": 50, "test": 100},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": ["raises", "cannot", "gaussian"],
    "metrics": ["energy_distance"],
    "n_samples": 20,
    "batch_size": 20,
    "latency_repeats": 1,
    "device": "cpu",
}

pytestmark = pytest.mark.filterwarnings("always:mind")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    before = logging.getLogger("kfpbench").handlers[:]
    yield
    assert logging.getLogger("kfpbench").handlers == before


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["run", "suite.yaml", "--out", "out", "--allow-plugins", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_nothing_is_logged_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert code == 1
    assert "kfpbench.runner" not in out + err
    assert {path.name for path in Path().iterdir()} >= {"out", "plugin.py", "suite.yaml"}
    assert not list(Path().rglob("*.log"))
    assert not Path("out/profiles").exists()


def test_a_log_file_has_times_versions_and_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kfpbench", "run", "a suite.yaml"])
    code, out, _ = call(capsys, "--log-file", "logs/run.log")
    assert code == 1
    assert "kfpbench.runner" not in out
    text = Path("logs/run.log").read_text()
    head = text.splitlines()[:3]
    assert re.fullmatch(r"# kfpbench \S+, Python 3\.\d+\.\d+\S*, .+", head[0])
    assert "torch " in head[1]
    assert head[2] == "# kfpbench run 'a suite.yaml'"
    line = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING) +kfpbench\.[\w.]+: .+")
    starts = [one for one in text.splitlines()[3:] if re.match(r"\d{4}-", one)]
    assert all(line.fullmatch(one) for one in starts)
    for said in (
        "suite.yaml: 3 cells, includes none",
        "plugin plugin.py was run, sha256 ",
        "run logged into out: 3 cells, 3 to do",
        "data gmm_ring: 250 rows of 2 numbers",
        "phase setup begins",
        "UserWarning: mind? the gap (plugin.py:",
        "failed in ",
        "Traceback (most recent call last)",
        "skipped in ",
        "not with these data",
        "ok in ",
        "metrics 0.",
        "finished: 3 records, report out/report.html",
    ):
        assert said in text, said
    assert "\x1b" not in text
    call(capsys, "--log-file", "logs/run.log")
    assert Path("logs/run.log").read_text().startswith(text)  # it is appended to
    assert Path("logs/run.log").read_text().count("# kfpbench run") == 2


def test_verbose_shows_more_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    _, once, _ = call(capsys, "-v")
    assert "INFO    kfpbench.runner.execute: cell " in once
    assert "WARNING kfpbench.runner.logs: UserWarning: mind? the gap" in once
    assert "DEBUG" not in once
    assert "\x1b" not in once
    registry._local.clear()
    _, twice, _ = call(capsys, "-vv", "--force")
    assert "phase setup begins" in twice


def test_json_stays_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = call(capsys, "-v", "--json")
    assert json.loads(out)["exit_code"] == 1
    assert "kfpbench.runner.execute" in err


def test_a_log_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--log-file", "plugin.py/run.log")
    assert (code, out) == (2, "")
    assert err.startswith("error: the log file cannot be written")
    assert not Path("out").exists()


def test_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--profile")[0] == 1
    run = RunFolder.open("out")
    for record in run.records():
        stats = pstats.Stats(f"out/profiles/{record.cell}.pstats")
        text = Path(f"out/profiles/{record.cell}.txt").read_text()
        functions = {name for _, _, name in stats.stats}  # type: ignore[attr-defined]
        assert ("run_sample_cell" in functions) == (record.label != "nobody")
        assert text.startswith(f"cell {record.cell}, {record.label}\n")
        assert "Ordered by: internal time" in text
        assert "Ordered by: cumulative time" in text
        assert str(Path.cwd()) not in text
        assert record.details["notes"][-1] == NOTE
    assert any(NOTE in note for note in run.read_manifest()["notes"])


@pytest.mark.parametrize(("typed", "code", "labels"), [("c\n", 1, 3), ("q\n", 130, 0), ("", 130, 0)])
def test_the_debugger_opens_on_a_failure_alone(
    typed: str, code: int, labels: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"p treasure\n{typed}"))
    found, out, err = call(capsys, "--pdb")
    assert found == code
    assert "ValueError: no way" in err
    assert "'found'" in err  # the frame is that of the failure
    assert err.count("(Pdb)") == 2  # not opened for the cell that was skipped
    assert len(RunFolder.open("out").records()) == labels
    assert ("[3/3] ok" in out) == (code == 1)
