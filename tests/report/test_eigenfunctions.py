"""Eigenfunctions in the report: lines, maps, the choice of a cell, and files that cannot be shown."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import made_up_run as made_up
import numpy as np
import plotly.graph_objects as go
import pytest

from kfpbench.report.eigenfunctions import MOST_CELLS
from kfpbench.report.html import render_report
from kfpbench.report.spectrum_section import MOST_IN_FIGURES
from kfpbench.store.eigenfunctions import FunctionGrid, write_function_grid

FLAGGED = 5  # the made-up spectrum's sixth mode is flagged


def stored(folder: Path, name: str, dimension: int, modes: tuple[int, ...], density: bool = True) -> str:
    axes = tuple(np.linspace(-2.0, 2.0, 11 + axis) for axis in range(dimension))
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    values = np.stack([at.sum(0) * (mode + 1) + at[0] ** 2 for mode in modes])
    write_function_grid(folder / name, FunctionGrid(axes, modes, values, np.exp(-(at**2).sum(0)) if density else None))
    return name


def cell(number: int, file: str, **details: Any) -> dict[str, Any]:
    record = copy.deepcopy(made_up.spectrum_record(number))
    record.update(cell=f"c{number}", label=f"cell {number}", files={"eigenfunctions": file})
    record["axes"] = {}
    record["spec"]["spectrum"] = {"n_eigs": number}
    record["details"].update(details)
    return record


def payload(html: str) -> dict[str, Any]:
    found = re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    made: dict[str, Any] = json.loads(found.group(1))
    large = re.search(r'id="functions">(.*?)</script>', html, re.DOTALL)
    made["choices"] = json.loads(gzip.decompress(base64.b64decode(large.group(1)))) if large else {}
    return made


def text_of(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_one_dimension_is_one_panel_of_lines(tmp_path: Path) -> None:
    record = cell(1, stored(tmp_path, "a.npz", 1, (1, FLAGGED)))
    html = render_report({}, [record], tmp_path)
    ((panel,),) = payload(html)["choices"]["part-1-functions"]
    density, sound, flagged = panel["data"]
    assert density["fill"] == "tozeroy"
    assert max(density["y"]) == pytest.approx(0.8 * max(map(abs, flagged["y"])), rel=0.01)
    assert sound["name"] == "mode 2: \N{MINUS SIGN}0.9987"
    assert sound["line"]["dash"] == "solid"
    assert flagged["name"].endswith("(flagged)")
    assert flagged["line"]["dash"] == "dot"
    x = np.array(sound["x"])
    np.testing.assert_allclose(sound["y"], 2 * x + x**2, atol=0.01 * 8)
    go.Figure(data=panel["data"], layout=panel["layout"])
    assert 'id="part-1-functions-0"' in html
    assert "not to scale" in text_of(html)


def test_two_dimensions_are_maps_with_the_second_coordinate_upwards(tmp_path: Path) -> None:
    record = cell(1, stored(tmp_path, "a.npz", 2, (1, 2, FLAGGED)), frame="whitened")
    html = render_report({}, [record], tmp_path)
    (panels,) = payload(html)["choices"]["part-1-functions"]
    assert [panel["caption"][:6] for panel in panels] == ["Mode 2", "Mode 3", "Mode 6"]
    assert "flagged: residual above 0.5" in panels[2]["caption"]
    heat, contour = panels[0]["data"]
    assert (len(heat["x"]), len(heat["y"])) == (11, 12)
    assert np.shape(heat["z"]) == (12, 11)
    assert heat["z"][11][0] == pytest.approx(2 * (-2 + 2) + 4, abs=0.1)  # x_1 = -2, x_2 = 2
    assert heat["zmin"] == -heat["zmax"]  # zero is white
    assert contour["type"] == "contour"
    assert "whitened" in panels[0]["layout"]["xaxis"]["title"]["text"]
    for panel in panels:
        go.Figure(data=panel["data"], layout=panel["layout"])
    assert html.count('class="plot"') == 2 + 3


def test_every_cell_can_be_chosen_up_to_a_number(tmp_path: Path) -> None:
    count = MOST_CELLS + 3
    records = [cell(k, stored(tmp_path, f"{k}.npz", 1, (1,))) for k in range(count)]
    for k, record in enumerate(records):  # the last are the most accurate
        record["measurements"].append(made_up.measurement("max_eigenvalue_error", 1.0 - k / 100, None, "lower"))
    html = render_report({}, records, tmp_path)
    assert len(payload(html)["choices"]["part-1-functions"]) == MOST_CELLS
    options = re.findall(r'<option value="\d+">([^<]+)</option>', html)
    assert options[:2] == [f"cell {count - 1}", f"cell {count - 2}"]
    assert f"{MOST_CELLS} of {count} cells" in text_of(html)
    # the figures above show the most accurate, the tables all
    planes = {trace["name"].split(" (")[0] for trace in payload(html)["figures"]["part-1-plane"]["data"]}
    assert len(planes - {"exact"}) == MOST_IN_FIGURES
    assert f"{MOST_IN_FIGURES} of {count} cells" in text_of(html)
    assert text_of(html).count("cell 0") >= 2


def test_the_exact_values_are_drawn_once(tmp_path: Path) -> None:
    records = [cell(k, "") for k in range(3)]
    records[0]["details"]["exact"] = records[0]["details"]["exact"][:3]  # of a cell with fewer modes
    traces = payload(render_report({}, records, tmp_path))["figures"]["part-1-plane"]["data"]
    (exact,) = [trace for trace in traces if trace["name"] == "exact"]
    assert exact["x"] == [0, -1, -1, -2, -2, -2]


@pytest.mark.parametrize(
    ("file", "says"), [("../outside.npz", "leaves the run folder"), ("gone.npz", "not a file of eigenfunctions")]
)
def test_a_file_that_cannot_be_shown_is_named(tmp_path: Path, file: str, says: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    stored(tmp_path, "outside.npz", 1, (1,))
    html = render_report({}, [cell(1, file)], folder)
    assert payload(html)["choices"] == {}
    assert says in text_of(html)


def test_errors_status_and_missing_score_are_shown(tmp_path: Path) -> None:
    matches = [None, {"exact": [-1.0, 0.0], "error": 0.0013}, *[None] * 5]
    record = cell(1, "", matches=matches, status="too few sound modes")
    record["spec"] |= {"score": None, "process": None}
    words = text_of(render_report({}, [record], tmp_path))
    assert "error 0.0013" in words
    assert "too few sound modes" in words
    assert "score: \N{EN DASH}" in words
    assert "Exact values: 0, \N{MINUS SIGN}1.0000, \N{MINUS SIGN}1.0000" in words
    assert "samples per cell" not in words
