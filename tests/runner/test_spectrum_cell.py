"""Spectrum cells of reference problems: errors against exact values, what is stored, what is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kfpbench
from kfpbench.data.potentials import DoubleWell, OrnsteinUhlenbeck
from kfpbench.errors import NumericalError
from kfpbench.runner.execute import RunResult
from kfpbench.runner.materials import predict_memory
from kfpbench.store.eigenfunctions import read_function_grid
from kfpbench.suite.load import suite_from_mapping


def document(**changes: Any) -> dict[str, Any]:
    spectrum = {
        "kernel": {"name": "rbf", "bandwidth": 6.0},
        "operator": {"points": 400},
        "n_eigs": 4,
        "sampling": "quadrature",
    }
    return {
        "name": "own",
        "data": {"name": "ornstein_uhlenbeck", "dimension": 2},
        "spectrum": [{**spectrum, **changes.pop("spectrum", {})}],
        "device": "cpu",
        "dtype": "float64",
        **changes,
    }


def execute(tmp_path: Path, **changes: Any) -> RunResult:
    return kfpbench.run(document(**changes), out=tmp_path / "run")


def test_errors_are_those_against_the_exact_values(tmp_path: Path) -> None:
    result = execute(tmp_path)
    (record,) = result.records
    assert record.status == "ok", record.reason
    measured = {entry["metric"]: entry for entry in record.measurements}
    values = [complex(*pair) for pair in record.details["eigenvalues"]]
    for number, (value, exact) in enumerate(zip(values[1:], [-1, -1, -2], strict=True), start=1):
        entry = measured[f"eigenvalue_error_{number}"]
        assert entry["value"] == pytest.approx(abs(value - exact) / abs(exact), rel=1e-12)
        assert entry["better"] == "lower"
        assert entry["value"] < 0.01
    assert "eigenvalue_error_4" not in measured
    largest = max(measured[f"eigenvalue_error_{number}"]["value"] for number in (1, 2, 3))
    assert measured["max_eigenvalue_error"]["value"] == largest
    assert measured["sound_modes"]["value"] == 4.0
    assert measured["flagged_modes"]["value"] == 0.0
    assert {"setup_seconds", "peak_memory_mib"} <= set(measured)
    assert "setup_nfe" not in measured  # there is no score
    assert record.details["exact_eigenvalues"] == [[0.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]]
    assert record.details["matches"][0] is None
    assert record.details["matches"][1]["exact"] == [-1.0, 0.0]
    row = result.frame.iloc[0]
    assert row["dataset"] == "ornstein_uhlenbeck"
    assert row[["score", "process", "sampler"]].isna().all()


def test_eigenfunctions_are_stored_in_the_run_folder(tmp_path: Path) -> None:
    result = execute(tmp_path)
    (record,) = result.records
    grid = read_function_grid(result.folder / record.files["eigenfunctions"])
    assert grid.modes == (1, 2, 3)
    assert grid.values.shape == (3, 40, 40)
    assert grid.density is not None
    assert (result.folder / record.files["eigenfunctions"]).stat().st_size < 60_000


def test_the_rows_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(OrnsteinUhlenbeck, "load", refuse)
    (cell,) = suite_from_mapping(document()).cells
    assert predict_memory(cell) > 8 * 400**2
    assert execute(tmp_path).records[0].status == "ok"


def test_what_a_problem_does_not_have_is_skipped(tmp_path: Path) -> None:
    (record,) = execute(tmp_path, data={"name": "rotating_ou"}, spectrum={"reversible": True}).records
    assert record.status == "skipped"
    assert "detailed balance does not hold" in record.reason


def test_fewer_modes_than_three_have_no_maximum(tmp_path: Path) -> None:
    (one,) = execute(tmp_path, spectrum={"n_eigs": 1}).records
    assert not any("error" in entry["metric"] for entry in one.measurements)
    assert one.files == {}  # the constant function is not drawn


def test_a_solver_that_finds_too_few_says_so(tmp_path: Path) -> None:
    eigensolver = {"name": "dense", "max_rank": 2}
    (record,) = execute(tmp_path, spectrum={"eigensolver": eigensolver, "n_eigs": 6}).records
    assert record.status == "ok"
    assert record.details["status"] == "too few sound modes"
    metrics = {entry["metric"] for entry in record.measurements}
    assert "max_eigenvalue_error" not in metrics  # of three; there are no more than two
    assert "too few sound modes" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_exact_values_that_cannot_be_had_leave_the_cell_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, count: int) -> np.ndarray:
        raise NumericalError("lost in rounding")

    monkeypatch.setattr(DoubleWell, "exact_eigenvalues", fail)
    changes: dict[str, Any] = {
        "data": {"name": "double_well"},
        "spectrum": {"kernel": {"name": "rbf", "bandwidth": 1.0}},
    }
    (record,) = execute(tmp_path, **changes).records
    assert record.status == "ok", record.reason
    assert record.details["notes"] == ["no exact eigenvalues: lost in rounding"]
    assert "exact_eigenvalues" not in record.details
    assert not any("error" in entry["metric"] for entry in record.measurements)


def test_a_reverse_process_of_two_dimensions_has_eigenfunctions_too(tmp_path: Path) -> None:
    result = kfpbench.run(
        {
            "name": "ring",
            "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
            "score": "mixture",
            "process": "ve",
            "spectrum": [{"n_eigs": 4, "at": 1.0, "operator": {"points": 60, "eta": 1.0, "frame": "whitened"}}],
            "device": "cpu",
        },
        out=tmp_path / "ring",
    )
    (record,) = result.records
    assert record.status == "ok", record.reason
    assert "setup_nfe" in {entry["metric"] for entry in record.measurements}
    assert record.details["frame"] == "whitened"
    grid = read_function_grid(result.folder / record.files["eigenfunctions"])
    assert grid.density is None
    assert len(grid.axes) == 2
