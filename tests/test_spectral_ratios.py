"""The command that prints what eigensolvers cost: its parts on tiny sizes, and its arithmetic."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "suites" / "asv" / "spectral_ratios.py"


@pytest.fixture(scope="module")
def ratios() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spectral_ratios", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(ratios: ModuleType, tmp_path: Path, *words: str) -> list[dict]:
    target = tmp_path / "rows.json"
    assert ratios.main([*words, "--json", str(target)]) == 0
    return json.loads(target.read_text())["rows"]


def test_the_exponent_is_that_of_a_power_law(ratios):
    timed = [(n, 3e-6 * n**1.7) for n in (1000, 2000, 4000, 50_000)]
    found = ratios.exponent(timed)
    assert found["exponent"] == pytest.approx(1.7, rel=1e-12)
    assert found["standard_error"] < 1e-12
    assert math.isnan(ratios.exponent(timed[:1])["exponent"])
    assert math.isnan(ratios.exponent(timed[:2])["standard_error"])


def test_the_standard_error_is_that_of_least_squares(ratios):
    """Against the covariance that numpy.polyfit scales by the residuals."""
    generator = np.random.default_rng(0)
    timed = [(n, math.exp(2 * math.log(n) + 0.1 * generator.standard_normal())) for n in (100, 300, 700, 2000, 5000)]
    found = ratios.exponent(timed)
    fitted, covariance = np.polyfit(*np.log(np.array(timed)).T, 1, cov=True)
    assert found["exponent"] == pytest.approx(fitted[0])
    assert found["standard_error"] == pytest.approx(math.sqrt(covariance[0, 0]))


def test_peers(ratios, tmp_path, capsys):
    pytest.importorskip("kooplearn.kernel", reason="kooplearn is not installed: pip install kfpbench[peers]")
    rows = rows_of(ratios, tmp_path, "peers", "--points", "80", "--dimension", "1", "--repeats", "2")
    by_name = {row["solver"]: row for row in rows}
    assert set(by_name) == {"kooplearn", "kooplearn, auto length", "dense", "nystrom"}
    for row in rows:
        assert row["least"] <= row["ratio"] <= row["most"]
        assert row["error"] < 1.0
    assert max(row["most"] for row in rows if row["solver"].startswith("kooplearn")) == 1.0
    for name, needed in ratios.NEEDED.items():
        assert by_name[name]["needed"] == needed
        assert by_name[name]["met"] in (True, False)
    assert "ratio" in capsys.readouterr().out


def test_large_runs_in_a_process_of_its_own(ratios, tmp_path, capsys):
    words = ["large", "--points", "1500", "--dimension", "40", "--centres", "80", "--n-eigs", "3"]
    (row,) = rows_of(ratios, tmp_path, *words)
    assert row["status"] == "ok"
    assert row["error"] < 0.15
    assert 0 < row["seconds"] < 60
    assert row["peak_gib"] is None or 0.05 < row["peak_gib"] < 6
    assert row["met"] is (row["peak_gib"] is not None)
    assert "peak_gib" in capsys.readouterr().out


def test_krylov_is_held_against_nystrom(ratios, tmp_path):
    words = ["krylov", "--points", "600", "--dimension", "2", "--centres", "400", "--n-eigs", "3"]
    rows = rows_of(ratios, tmp_path, *words, "--backend", "tiled")
    assert [row["solver"] for row in rows] == ["krylov", "nystrom"]
    assert rows[0]["difference"] < 0.05
    assert rows[0]["whole_gram_gib"] == 8 * 600**2 / 2**30


def test_scaling_says_what_is_left_out(ratios, tmp_path, capsys):
    words = ["scaling", "--sizes", "200", "400", "5000", "--solvers", "dense", "rff", "--backends", "dense"]
    rows = rows_of(ratios, tmp_path, *words, "--memory", "2.0", "--limit", "0.0")
    reasons = {(row["solver"], row["points"]): row["left_out"] for row in rows if "left_out" in row}
    assert "4000 points" in reasons["dense", 5000]
    assert "expected to take" in reasons["rff", 400]
    timed = {(row["solver"], row["backend"], row["points"]) for row in rows if "seconds" in row}
    assert timed == {("dense", "dense", 200), ("rff", "-", 200)}
    assert sum(row["points"] == "exponent" for row in rows) == 2
    assert "left_out" in capsys.readouterr().out


def test_what_needs_too_much_memory_is_left_out(ratios):
    assert ratios._too_large("krylov", "dense", 50_000, 2, 6, 6.0).startswith("predicted to need")
    assert ratios._too_large("krylov", "tiled", 50_000, 2, 6, 24.0) == ""
    assert ratios._too_large("nystrom", "dense", 50_000, 2, 6, 6.0) == ""
