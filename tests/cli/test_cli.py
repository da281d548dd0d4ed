from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.cli import main
from kfpbench.errors import DataError
from kfpbench.protocols import KINDS

PLUGIN = """
import kfpbench

class StandIn:  # whatever a protocol asks for is said to be there: nothing is run
    def __getattr__(self, name):
        raise AttributeError(name)

@kfpbench.register("datasets", "cli_data")
class Data(StandIn):
    def __init__(self, size: int = 3):
        self.size = size

@kfpbench.register("scores", "cli_score")
class Score(StandIn):
    pass

@kfpbench.register("processes", "cli_process")
class Process(StandIn):
    pass

@kfpbench.register("samplers", "cli_sampler")
class Sampler(StandIn):
    def __init__(self, steps: int = 3):
        self.steps = steps
"""
SUITE = """\
name: cli
plugins: [plugin.py]
data: cli_data
score: cli_score
process: cli_process
samplers: [{name: cli_sampler, label: ours}]
grid:
  samplers.ours.steps: [1, 2, 3]
repeats: 2
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return path


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_validate(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["validate", str(suite), "--allow-plugins"], capsys)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{suite}: valid, 6 cells",
        "  ours: 6",
        "repeats: 2, seeds 0 and up",
        "axes:",
        "  samplers.ours.steps: 1, 2, 3",
    ]


def test_validate_with_overrides_and_json(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", str(suite), "--allow-plugins", "--json", "--set", "repeats=1", "--set", "grid={}"]
    code, out, _ = run(arguments, capsys)
    said = json.loads(out)
    assert code == 0
    assert (said["valid"], said["name"], said["cells"], said["labels"]) == (True, "cli", 1, {"ours": 1})
    assert said["plan"][0]["label"] == "ours"


def test_validate_refuses(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["validate", str(suite)], capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {suite}:2:1: the suite wants to run Python files of its own")
    assert "--allow-plugins" in err

    suite.write_text(SUITE.replace("[1, 2, 3]", "[1, x]").replace("name: cli\n", "name: cli\nseed: -1\n"))
    code, out, err = run(["validate", str(suite), "--allow-plugins"], capsys)
    assert (code, out) == (2, "")
    assert "2 problems" in err
    assert f"{suite}:2:7: seed" in err
    assert f"{suite}:9:28: steps" in err
    assert "Traceback" not in err

    code, out, err = run(["validate", str(suite), "--allow-plugins", "--json"], capsys)
    said = json.loads(out)
    assert code == 2
    assert said["valid"] is False
    assert [problem["where"] for problem in said["problems"]] == [f"{suite}:2:7", f"{suite}:9:28"]
    assert said["problems"][0]["got"] == "-1"


def test_an_override_that_leads_nowhere(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(["validate", str(suite), "--allow-plugins", "--set", "data.sise=3"], capsys)
    assert code == 2
    assert err.startswith("error: --set data.sise=3: unknown path")
    assert "Did you mean 'data.size'?" in err


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(["validate", "no/such/suite.yaml"], capsys)
    assert code == 2
    assert err.startswith("error: the suite file does not exist; got 'no/such/suite.yaml'")


def test_ls_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["ls", "kernels"], capsys)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    expected = [[e.kind, e.name, e.target, e.origin] for e in registry.available("kernels").values()]
    assert lines == expected
    assert lines  # the built-in ones


def test_ls_as_json_has_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["ls", "--json"], capsys)
    entries = json.loads(out)
    assert code == 0
    assert [entry["kind"] for entry in entries] == [kind for kind in KINDS for _ in registry.available(kind)]
    assert set(entries[0]) == {"kind", "name", "target", "origin"}


def test_ls_on_a_terminal_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(["ls", "datasets"], capsys)
    assert code == 0
    assert "target" in out
    assert "┃" in out


def test_ls_of_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["ls", "kernel"], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown kind of component; got 'kernel'; allowed: datasets, ")
    assert "Did you mean 'kernels'?" in err


def test_schema(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.load_plugin_file(suite.parent / "plugin.py")
    code, out, _ = run(["schema"], capsys)
    schema = json.loads(out)
    assert code == 0
    sampler = schema["$defs"]["complete.samplers.in_place.cli_sampler"]
    assert list(sampler["properties"]) == ["name", "label", "steps"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from kfpbench import __version__

    code, out, _ = run(["--version"], capsys)
    assert (code, out) == (0, f"kfpbench {__version__}\n")


def test_usage_errors_have_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate"], capsys)[0] == 2
    assert run(["no_such_verb"], capsys)[0] == 2


def test_any_error_of_kfpbench_is_a_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("the data are gone", remedy="Fetch them.", where="data/x")

    monkeypatch.setattr("kfpbench.suite.load.load_suite", fail)
    code, _, err = run(["validate", "x.yaml"], capsys)
    assert (code, err) == (2, "error: data/x: the data are gone. Fetch them.\n")


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["validate", "--help"], ["ls", "--json"]])
def test_nothing_heavy_is_imported_for_help_and_ls(arguments: list[str]) -> None:
    program = f"""
import sys
from kfpbench.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "plotly", "numpy", "scipy", "pandas", "sklearn", "ruamel", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_console_script_ends_without_a_traceback(suite: Path) -> None:
    suite.write_text("name: [\n")
    done = subprocess.run(
        [sys.executable, "-m", "kfpbench.cli", "validate", str(suite)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {suite}:2:1: not valid YAML")
    assert "Traceback" not in done.stderr
