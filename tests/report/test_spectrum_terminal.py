from __future__ import annotations

import io
from typing import Any

import made_up_run as made_up
from rich.console import Console

from kfpbench.report.spectrum_terminal import render_spectra

MINUS = "\N{MINUS SIGN}"


def rendered(records: list[dict[str, Any]]) -> list[str]:
    stream = io.StringIO()
    render_spectra(records, Console(file=stream, width=60))
    return stream.getvalue().splitlines()


def test_a_table_of_modes_with_residuals_errors_and_flags() -> None:
    record = made_up.spectrum_record(0)
    record["details"]["matches"] = [None, {"exact": [-1.0, 0.0], "error": 0.0013}, *[None] * 5]
    record["details"]["status"] = "not converged"
    lines = rendered([record])
    assert lines[0] == "ou_2d: OU, matern52, N 1000"
    assert lines[1].split() == ["mode", "eigenvalue", "exact", "error", "residual", "flag"]
    assert lines[3].split() == ["2", f"{MINUS}0.9987", f"{MINUS}1.0000", "0.0013", "0.0040"]
    assert lines[7].endswith("0.80  residual above 0.5")
    assert lines[9] == "  status: not converged"
    assert len({line.index("residual") + len("residual") for line in lines[1:2]} | {len(lines[3])}) == 1  # aligned


def test_what_no_cell_has_is_no_column() -> None:
    record = made_up.spectrum_record(0)
    record["details"]["flags"] = []
    assert rendered([record])[1].split() == ["mode", "eigenvalue", "residual"]


def test_a_cell_without_a_spectrum_says_why() -> None:
    record = made_up.spectrum_record(0)
    record.update(status="skipped", reason="matern32 is too rough", measurements=[], details={})
    assert rendered([record]) == ["ou_2d: OU, matern52, N 1000", "  skipped: matern32 is too rough", ""]


def test_samplers_are_left_out() -> None:
    assert [line for line in rendered(made_up.records()) if "digits" in line] == []
