"""The verb spectrum: the spectrum cells of a suite alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfpbench.cli import main
from kfpbench.store.run_folder import RunFolder

SUITE: dict[str, Any] = {
    "name": "cli_spectrum",
    "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": ["gaussian"],
    "spectrum": [{"n_eigs": 3, "at": 1.0, "operator": {"points": 50}}],
    "n_samples": 30,
    "batch_size": 30,
    "latency_repeats": 1,
    "device": "cpu",
}
OWN = {"data": "ornstein_uhlenbeck", "score": None, "process": None, "samplers": [], "dtype": "float64"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str, **changes: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the verb on a suite."""
    Path("suite.yaml").write_text(json.dumps({**SUITE, **changes}))
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["spectrum", "suite.yaml", "--out", "out", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_only_the_spectra_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "1 cells"
    assert "gmm_ring: spectrum" in lines[1]
    assert lines[2] == "gmm_ring: spectrum"
    assert lines[3].split()[:2] == ["mode", "eigenvalue"]
    assert lines[-1] == "report: out/report.html"
    assert [record.kind for record in RunFolder.open("out").records()] == ["spectrum"]


def test_a_problem_of_its_own_dynamics_shows_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, **OWN)
    assert code == 0
    head = next(line for line in out.splitlines() if line.split()[:1] == ["mode"])
    assert head.split()[:5] == ["mode", "eigenvalue", "exact", "error", "residual"]
    assert 'id="part-1-functions-0"' in Path("out/report.html").read_text(encoding="utf-8")


def test_a_run_goes_on_where_the_spectra_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys)[0] == 0
    with pytest.raises(SystemExit) as caught:
        main(["run", "suite.yaml", "--out", "out"])
    assert caught.value.code == 0
    assert "2 cells, 1 finished already" in capsys.readouterr().out


def test_a_selection_narrows_the_spectra(capsys: pytest.CaptureFixture[str]) -> None:
    two = [{"label": "a", "n_eigs": 2}, {"label": "b", "n_eigs": 3}]
    code, out, _ = call(capsys, "--select", "label=b", "--dry-run", spectrum=two)
    assert code == 0
    assert out.startswith("1 cells;")
    assert "gmm_ring: b" in out
    assert not Path("out").exists()


def test_json_is_that_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--json", **OWN)
    said = json.loads(out)
    assert code == said["exit_code"] == 0
    (cell,) = said["cells"]
    assert {"eigenvalue_1_re", "eigenvalue_error_1"} <= {entry["metric"] for entry in cell["measurements"]}


@pytest.mark.parametrize(
    ("arguments", "changes", "says"),
    [
        ((), {"spectrum": []}, "the suite has no spectrum cells"),
        (("--select", "kind=sample"), {}, "no cell has this value; got 'sample'; allowed: spectrum"),
        (("--select", "label=gaussian"), {}, "no cell has this value; got 'gaussian'; allowed: spectrum"),
    ],
)
def test_nothing_to_run_is_an_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], changes: dict[str, Any], says: str
) -> None:
    code, out, err = call(capsys, *arguments, **changes)
    assert (code, out) == (2, "")
    assert says in err
    assert not Path("out").exists()
