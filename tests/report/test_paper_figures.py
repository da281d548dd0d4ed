"""Figures for papers: which files a run gives, their size and fonts, and what is written in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import made_up_run as made_up
import numpy as np
import pytest

from kfpbench.cli import main
from kfpbench.report.paper_figures import write_figures

pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
EXPECTED = [
    "front-digits", "ablation-digits", "phases-digits",
    "front-gmm_ring", "ablation-gmm_ring", "phases-gmm_ring",
    "spectrum-ou_2d",
]  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    paths = write_figures(made_up.records(), folder)
    assert [path.stem for path in paths] == EXPECTED
    return folder


def words_of(path: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on PATH; Debian: apt-get install poppler-utils")
    return subprocess.run(["pdftotext", str(path), "-"], capture_output=True, check=True).stdout.decode()


@pytest.mark.parametrize("name", EXPECTED)
def test_one_page_of_a_column_with_its_fonts_inside(figures: Path, name: str) -> None:
    content = (figures / f"{name}.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", content)) == 1
    found = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert found is not None
    width, height = (float(number) / 72 for number in found.groups())
    assert width in (pytest.approx(3.25, abs=0.01), pytest.approx(6.75, abs=0.01))
    assert height < 9.5
    assert b"/FontFile2" in content  # TrueType, embedded
    assert b"/Type3" not in content
    assert b"/Subtype /Image" not in content  # lines, not pixels


def test_the_front_says_what_it_shows(figures: Path) -> None:
    words = words_of(figures / "front-digits.pdf")
    for text in ("coverage (higher is better)", "seconds per image", "pf_ode_heun", "koopman", "gaussian", "heun 18"):
        assert text in words


def test_the_spectrum_and_the_phases_say_what_they_show(figures: Path) -> None:
    words = words_of(figures / "spectrum-ou_2d.pdf")
    assert "real part" in words
    assert "residual (lower is better)" in words
    assert "OU, matern52, N 1000" in words
    phases = words_of(figures / "phases-digits.pdf")
    assert "sampling at batch 1" in phases
    assert "koopman rank 256" in phases


def test_the_markers_lie_where_the_numbers_are(tmp_path: Path) -> None:
    """The drawing's own commands, unpacked: a marker at each cell, the fastest one on the left."""
    from kfpbench.report.aggregate import group_repeats
    from kfpbench.report.cells import read_cells
    from kfpbench.report.paper_figures import front_figure
    from kfpbench.report.paper_style import styled

    groups = [g for g in group_repeats(read_cells(made_up.records())) if g.ok and g.first.dataset == "digits"]
    with styled():
        figure = front_figure(groups)
    assert figure is not None
    (axes,) = figure.axes
    drawn = {(float(c[0].get_xdata()[0]), float(c[0].get_ydata()[0])) for c in axes.containers}
    wanted = {(g.estimates["seconds_per_image"].value, g.estimates["coverage"].value) for g in groups}
    assert drawn == wanted
    for container in axes.containers:
        (group,) = [g for g in groups if g.estimates["coverage"].value == float(container[0].get_ydata()[0])]
        low, high = sorted(
            axes.transData.inverted().transform(axes.transData.transform(container[2][1].get_segments()[0]))[:, 1]
        )
        np.testing.assert_allclose((low, high), group.estimates["coverage"].bounds, rtol=1e-6)


def test_the_same_numbers_give_the_same_file(figures: Path, tmp_path: Path) -> None:
    again = write_figures([r for r in made_up.records() if r["spec"]["data"]["name"] == "digits"], tmp_path)
    assert again[0].read_bytes() == (figures / "front-digits.pdf").read_bytes()


def test_names_with_dollars_and_slashes_are_text(tmp_path: Path) -> None:
    records = made_up.records()[:6]
    for record in records:
        record["label"] = f"$x_{record['spec']['seed']}$ \\frac"
        record["spec"]["data"]["name"] = "../a/b $"
    paths = write_figures(records, tmp_path / "out", "svg")
    assert {path.parent for path in paths} == {tmp_path / "out"}
    assert paths[0].name == "front-a_b.svg"


def test_the_command_writes_beside_the_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made_up.write_run(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"schema_version": 1, **json.loads(manifest.read_text("utf-8"))}), "utf-8")
    cells = tmp_path / "cells.jsonl"
    kept = {"schema_version": 1, "started": "2026-03-02T10:00:00Z", "finished": "2026-03-02T10:00:01Z"}
    lines = [json.loads(line) | kept for line in cells.read_text("utf-8").splitlines()]
    for line in lines:
        line["measurements"] = [one for one in line["measurements"] if one["value"] is not None]
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with pytest.raises(SystemExit) as done:
        main(["figures", str(tmp_path)])
    assert done.value.code in (0, None)
    assert (tmp_path / "figures" / "front-digits.pdf").is_file()
    assert capsys.readouterr().out.count(".pdf") == len(EXPECTED)


def test_text_is_not_hidden_from_the_check(figures: Path) -> None:
    """The streams of a figure can be read, so that the checks above look at what a reader gets."""
    content = (figures / "front-digits.pdf").read_bytes()
    streams = [
        zlib.decompress(s) for s in re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL) if s[:1] == b"x"
    ]
    assert any(b"Tj" in stream or b"TJ" in stream for stream in streams)
