"""A whole small suite, from its file to the folder: from Python, from the command line, and once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kfpbench
from kfpbench import registry
from kfpbench.cli import main
from kfpbench.errors import SuiteError
from kfpbench.runner.execute import RunResult
from kfpbench.store.run_folder import RunFolder
from kfpbench.store.samples import read_samples

SUITE = """\
schema_version: 1
name: tiny
seed: 3
repeats: 2
data: {name: digits, train_size: 300}
score: empirical
process: {name: ve, sigma_min: 0.05, sigma_max: 10.0}
samplers:
  - name: koopman
    label: spectral
    kernel: {name: rbf, factor: 0.3}
    operator: {segments: 3, points: 40}
  - gaussian
  - {name: pf_ode_heun, label: heun, steps: 3}
  - {name: euler_maruyama, label: em, steps: 3}
spectrum:
  - {label: modes, n_eigs: 3, operator: {points: 40, eta: 1.0, time: frozen}, at: 1.0}
grid:
  "data.name, score.name": [[digits, empirical], [gmm_ring, mixture]]
  samplers.spectral.operator.points: [30, 40]
metrics: [energy_distance, {name: frechet, features: identity}]
n_samples: 60
batch_size: 25
latency_repeats: 3
device: cpu
"""
COLUMNS = {
    *("cell", "status", "reason", "dataset", "score", "process", "sampler", "kernel", "operator", "eta", "time"),
    *("frame", "rank", "eigensolver", "backend", "device", "dtype", "seed", "metric", "value", "ci_low", "ci_high"),
    *("n", "unit", "schema_version"),
}
COSTS = {"seconds_per_image", "seconds_per_image_batch1", "nfe", "setup_seconds", "setup_nfe", "peak_memory_mib"}
MEASURED = {"seconds_per_image", "seconds_per_image_batch1", "setup_seconds", "peak_memory_mib"}  # differ between runs
EXAMPLE = Path(__file__).parents[1] / "examples" / "my_kernel.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end_to_end")
    (folder / "tiny.yaml").write_text(SUITE)
    (folder / "home").mkdir()
    return folder


@pytest.fixture(scope="module")
def result(place: Path) -> RunResult:
    """The suite run from Python."""
    return kfpbench.run(place / "tiny.yaml", out=place / "python")


@pytest.fixture(scope="module")
def command(place: Path) -> subprocess.CompletedProcess[str]:
    """The suite run by the installed command, in a process of its own with an empty home."""
    home = str(place / "home")
    environment = {**os.environ, "HOME": home, "XDG_CACHE_HOME": f"{home}/cache", "TMPDIR": str(place / "cwd")}
    (place / "cwd").mkdir()
    script = Path(sys.executable).with_name("kfpbench")
    return subprocess.run(
        [str(script), "run", str(place / "tiny.yaml"), "--out", str(place / "command")],
        cwd=place / "cwd",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_cell_is_ok(result: RunResult) -> None:
    assert {record.label: record.status for record in result.records} == dict.fromkeys(
        ("spectral", "gaussian", "heun", "em", "modes"), "ok"
    )
    assert len(result.records) == 2 * 2 * 6  # data sets, repeats, and spectral twice
    assert result.exit_code == 0


def test_the_command_ends_well_and_plainly(command: subprocess.CompletedProcess[str]) -> None:
    assert (command.returncode, command.stderr) == (0, "")
    assert command.stdout.startswith("24 cells\n[1/24] ok")
    assert "\x1b" not in command.stdout
    assert command.stdout.rstrip().endswith("report.html")


@pytest.mark.parametrize("folder", ["python", "command"])
def test_the_folder_holds_what_it_should(
    place: Path, folder: str, result: RunResult, command: subprocess.CompletedProcess[str]
) -> None:
    run = place / folder
    assert {path.name for path in run.iterdir()} == {
        "manifest.json",
        "cells.jsonl",
        "results.parquet",
        "samples",
        "statistics.json",
        "eigenfunctions",
        "report.html",
    }
    lines = [json.loads(line) for line in (run / "cells.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(24))
    stems = {line["cell"] for line in lines if line["kind"] == "sample"}
    assert len(stems) == 20
    pairs = {line["files"]["nearest"] for line in lines if "nearest" in line["files"]}
    assert len(pairs) == sum(line["spec"]["data"]["name"] == "digits" for line in lines if line["kind"] == "sample")
    assert {path.name for path in (run / "samples").iterdir()} == {
        f"{stem}{suffix}" for stem in stems for suffix in (".npz", ".png")
    } | {Path(name).name for name in pairs}
    grids = {line["files"]["eigenfunctions"] for line in lines if "eigenfunctions" in line["files"]}
    assert grids
    assert all(line["kind"] == "spectrum" for line in lines if "eigenfunctions" in line["files"])
    assert {f"eigenfunctions/{path.name}" for path in (run / "eigenfunctions").iterdir()} == grids
    for path in (run / "samples").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert (run / "report.html").read_text().lower().startswith("<!doctype html>")


def test_nothing_is_written_elsewhere(place: Path, command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 0
    assert list((place / "cwd").iterdir()) == []
    assert {path.name for path in (place / "home").iterdir()} <= {"cache"}  # of fits that took long on a busy machine
    assert {path.name for path in place.iterdir()} <= {"tiny.yaml", "home", "cwd", "python", "command", "batch"}


def test_the_manifest_says_how_it_was_run(place: Path, result: RunResult) -> None:
    manifest = RunFolder.open(result.folder).read_manifest()
    assert manifest["suite"]["text"] == SUITE
    assert manifest["plan"] == [record.cell for record in result.records]
    assert (manifest["seeds"], manifest["dtypes"]) == ([3, 4], ["float32"])
    environment = manifest["environment"]
    assert environment["kfpbench"] == kfpbench.__version__
    assert {"packages", "git", "cpu", "gpu", "threads", "torch", "load_average"} <= set(environment)
    assert manifest["started"] < manifest["finished"]
    assert str(place) not in json.dumps(manifest)


def test_the_table_has_the_columns_of_the_contract(result: RunResult) -> None:
    table = pd.read_parquet(result.folder / "results.parquet")
    assert set(table.columns) >= COLUMNS
    assert set(table["status"]) == {"ok"}
    assert not table["metric"].isna().any()
    assert not table.duplicated(["cell", "metric"]).any()
    spectral = table[table["label"] == "spectral"]
    row = spectral.iloc[0]
    assert (row["sampler"], row["kernel"], row["eigensolver"], row["backend"]) == ("koopman", "rbf", "dense", "dense")
    assert (row["eta"], row["time"], row["frame"], row["device"], row["dtype"]) == (
        0.0,
        "piecewise",
        "whitened",
        "cpu",
        "float32",
    )
    assert set(spectral["axis:samplers.spectral.operator.points"]) == {30, 40}
    assert set(table["reference"]) == {"test"}


def test_load_run_gives_the_same_table(result: RunResult) -> None:
    pd.testing.assert_frame_equal(kfpbench.load_run(result.folder), result.frame)
    pd.testing.assert_frame_equal(pd.read_parquet(result.folder / "results.parquet"), result.frame)


def test_every_sampler_cell_has_its_costs(result: RunResult) -> None:
    samplers = result.frame[result.frame["kind"] == "sample"]
    for _, cell in samplers.groupby("cell"):
        assert set(cell["metric"]) == COSTS | {"energy_distance", "frechet"}
        values = cell.set_index("metric")["value"]
        assert (values[["seconds_per_image", "seconds_per_image_batch1", "setup_seconds"]] > 0).all()
        assert values["peak_memory_mib"] >= 0  # the increase, which may be freed memory used again
        compared = cell[cell["metric"].isin(["energy_distance", "frechet"])]
        assert (compared["n"] == 60).all()
        assert (compared["ci_low"] <= compared["ci_high"]).all()


def test_evaluations_are_those_of_the_methods(result: RunResult) -> None:
    table = result.frame.set_index(["label", "metric"])["value"]
    for label, nfe in (("heun", 6), ("em", 3), ("gaussian", 0), ("spectral", 0)):
        assert set(table.loc[label, "nfe"]) == {float(nfe)}
        if label != "spectral":
            assert set(table.loc[label, "setup_nfe"]) == {0.0}
    spectral = result.frame[(result.frame["label"] == "spectral") & (result.frame["metric"] == "setup_nfe")]
    points = spectral["axis:samplers.spectral.operator.points"].astype(float)
    assert (spectral["value"].to_numpy() == 3 * points.to_numpy()).all()


def test_spectra_have_values_and_residuals(result: RunResult) -> None:
    for record in result.records:
        if record.kind == "spectrum":
            flags = record.details["flags"]
            assert flags.count("") == 3 or len(flags) == 6 or len(flags) == record.details["solver"]["rank"]
            metrics = {entry["metric"] for entry in record.measurements}
            assert {"eigenvalue_2_re", "eigenvalue_2_im", "residual_2", "setup_nfe", "setup_seconds"} <= metrics


def test_repeats_differ_and_samples_are_of_their_cell(result: RunResult) -> None:
    for dataset, dimension in (("digits", 64), ("gmm_ring", 2)):
        rows = [
            read_samples(result.folder / record.files["samples"])
            for record in result.records
            if record.label == "heun" and record.spec["data"]["name"] == dataset
        ]
        assert [part.shape for part in rows] == [(60, dimension)] * 2
        assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_two_runs_agree(place: Path, result: RunResult, command: subprocess.CompletedProcess[str]) -> None:
    """Another folder and another process: equal noise, and samples and metrics but for the rounding of GEMMs."""
    again = RunFolder.open(place / "command").records()
    assert [record.cell for record in again] == [record.cell for record in result.records]
    for first, second in zip(result.records, again, strict=True):
        assert first.files.keys() == second.files.keys()
        if "samples" in first.files:
            one, other = (
                read_samples(result.folder / first.files["samples"]),
                read_samples(place / "command" / second.files["samples"]),
            )
            assert one.shape == (60, 64 if first.spec["data"]["name"] == "digits" else 2)
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 + _level(first.spec))
        for one, other in zip(first.measurements, second.measurements, strict=True):
            assert one["metric"] == other["metric"]
            if one["metric"] not in MEASURED:
                assert one["value"] == pytest.approx(other["value"], rel=1e-4, abs=1e-6)


def _level(spec: dict[str, Any]) -> float:
    """Images are stored as 256 levels: rounding may move a value by one."""
    return 1.01 / 127.5 if spec["data"]["name"] == "digits" else 0.0


def test_another_batch_size_gives_the_same_samples(place: Path, result: RunResult) -> None:
    other = kfpbench.run(
        place / "tiny.yaml", out=place / "batch", overrides=["batch_size=17", "repeats=1"], select=["kind=sample"]
    )
    assert other.exit_code == 0
    compared = 0
    for record in other.records:
        (same,) = [one for one in result.records if (one.label, one.axes, one.repeat) == (record.label, record.axes, 0)]
        assert same.cell != record.cell
        mine, theirs = (
            read_samples(folder / one.files["samples"])
            for folder, one in ((other.folder, record), (result.folder, same))
        )
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 + _level(record.spec))
        for one, two in zip(record.measurements, same.measurements, strict=True):
            if one["metric"] not in MEASURED:
                assert one["value"] == pytest.approx(two["value"], rel=1e-3, abs=1e-3)
        compared += 1
    assert compared == 10


def test_a_second_run_runs_nothing(place: Path, result: RunResult) -> None:
    log = (result.folder / "cells.jsonl").read_bytes()
    again = kfpbench.run(str(place / "tiny.yaml"), out=str(result.folder))
    assert (result.folder / "cells.jsonl").read_bytes() == log
    assert again.records == result.records


# -- the example that README shows -----------------------------------------------------------------


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    return EXAMPLE


def test_the_example_needs_consent(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SuiteError, match="allow-plugins"):
        kfpbench.run(example, out=tmp_path / "out")
    with pytest.raises(SystemExit) as caught:
        main(["run", str(example), "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "--allow-plugins" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    small = ["samplers.koopman.operator.points=150", "samplers.koopman.operator.segments=8", "n_samples=200"]
    result = kfpbench.run(
        example, out=tmp_path / "out", allow_plugins=True, overrides=[*small, "repeats=1", "data.test=2000"]
    )
    assert [record.status for record in result.records] == ["ok"] * 3
    table = result.frame
    assert set(table["kernel"].dropna()) == {"rbf", "my_rational_quadratic"}
    energies = table[table["metric"] == "energy_distance"]
    energy = dict(zip(energies["kernel"].fillna("gaussian"), energies["value"], strict=True))
    assert energy["my_rational_quadratic"] < 0.5 * energy["gaussian"]  # it does model what is not Gaussian
    mine = next(record for record in result.records if record.axes and "my_rational" in str(record.axes))
    assert mine.details["sampler"]["segments"][0]["kernel"]["a"] == 2.0


def test_the_kernel_of_the_example_is_right(example: Path) -> None:
    """Its derivatives are those of its value, by automatic differentiation, and its Gram matrix is positive."""
    registry.load_plugin_file(example.with_name("my_kernel.py"))
    points = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = registry.find("kernels", "my_rational_quadratic").load()(a=1.7, factor=0.6).fit(points)
    assert kernel.length == pytest.approx(0.6 * float(torch.pdist(points).median()))
    s = torch.linspace(0, 9, 50, dtype=torch.float64).requires_grad_()
    value, first, second = kernel.profile(s)
    torch.testing.assert_close(value, (1 + s / (2 * 1.7 * kernel.length**2)) ** -1.7)

    def derivative(of: Tensor) -> Tensor:
        return torch.autograd.grad(of.sum(), s, create_graph=True)[0]

    torch.testing.assert_close(first, derivative(value))
    torch.testing.assert_close(second, derivative(derivative(value)))
    gram = kernel.profile(torch.cdist(points, points) ** 2)[0]
    assert float(torch.linalg.eigvalsh(gram).min()) > -1e-12
