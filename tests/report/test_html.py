"""The report as a file: everything in it, nothing from elsewhere, names as text, valid figures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up_run as made_up
import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from kfpbench.report.embed import script_json, script_source
from kfpbench.report.html import render_report, write_report

LIMIT = 10_000_000


class Page(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, and the JSON payload."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.payload: dict[str, Any] = {}
        self.inside = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "payload":
            self.payload = json.loads(data)
        elif not self.inside:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_file_is_below_its_limit(report: Path) -> None:
    assert report.name == "report.html"
    assert report.stat().st_size < LIMIT


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:60])
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in str(policy)


@pytest.mark.parametrize(
    "words",
    ["Operators against solvers", "Does a spectral sampler move", "55 ok", "1 skipped", "0, 1, 2",
     "1 failed", "reference set: test", "n = 500", "matern12 is too rough", "koopman <b>failed</b>",
     "</script><b>name</b>", "<script>alert('no')</script>", "kfpbench run 'suites/operators against solvers.yaml'",
     "3 of 3 repeats not finite", "residual above 0.5", "never", "Example CPU", "14 min 31 s"],
)  # fmt: skip
def test_the_page_says(page: Page, words: str) -> None:
    assert words in page.text


def test_sections_of_every_data_set(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {"part-1", "part-2", "part-3", "omissions", "provenance"} <= ids
    assert set(page.payload["figures"]) | set(page.payload["scatters"]) <= ids


def test_default_axes_are_coverage_against_time(page: Page) -> None:
    inside, chosen = "", []
    for tag, attributes in page.elements:
        inside = str(attributes.get("data-scatter", "")) if tag == "select" else inside
        if tag == "option" and "selected" in attributes and inside:
            chosen.append(attributes["value"])
    assert chosen == ["coverage", "seconds_per_image"] * 2


def test_plotly_accepts_every_figure(page: Page) -> None:
    figures = list(page.payload["figures"].values())
    figures += [f for s in page.payload["scatters"].values() for f in s["variants"].values()]
    assert len(figures) > 20
    for figure in figures:
        go.Figure(data=figure["data"], layout=figure["layout"])  # raises for an unknown property or value


def test_front_of_the_default_figure(page: Page) -> None:
    scatter = page.payload["scatters"]["part-1-front"]
    names = {scatter["labels"][i] for i in scatter["variants"]["seconds_per_image|coverage"]["front"]}
    assert names == {"gaussian", "koopman rank 64", "koopman rank 256", "jump", "dpm-solver++ 8", "heun 18"}
    # A cell whose repeats were all NaN is not shown, and the caption says so.
    caption = scatter["variants"]["seconds_per_image|frechet"]["caption"]
    assert "Not shown" in caption
    assert caption.endswith("ddim 10.")
    assert "No front" in scatter["variants"]["seconds_per_image|nearest_train_ratio"]["caption"]


def test_a_run_without_results_has_no_empty_sections(tmp_path: Path) -> None:
    records = [r for r in made_up.records() if r["status"] != "ok"]
    page = Page(render_report(made_up.manifest(), records, tmp_path))
    assert "No cell of this run has a result." in page.text
    assert "Samples" not in page.text
    empty = Page(render_report({}, [], tmp_path))
    assert "kfpbench run" in empty.text
    assert "without a result" not in empty.text


def test_records_may_be_objects(tmp_path: Path) -> None:
    records = [SimpleNamespace(**record) for record in made_up.records()]
    assert "part-1-front" in Page(render_report(made_up.manifest(), records, tmp_path)).payload["scatters"]


def test_one_label_for_many_cells_gets_the_axes_that_differ(tmp_path: Path) -> None:
    records = []
    for rank in (16, 64):
        made = made_up.sample_record(rank, "digits", "koopman rank 64", 0, np.random.default_rng(0))
        made.update(cell=f"c{rank}", label="koopman", axes={"samplers.koopman.rank": rank})
        made["spec"]["sampler"]["rank"] = rank
        records.append(made)
    page = Page(render_report({}, records, tmp_path))
    assert page.payload["scatters"]["part-1-front"]["labels"] == ["koopman (rank 16)", "koopman (rank 64)"]


def test_different_n_and_the_validation_split_are_pointed_out(tmp_path: Path) -> None:
    records = made_up.records()[:6]
    for record in records:
        record["spec"]["data"]["reference"] = "validation"
    for record in records[3:]:
        record["spec"]["n_samples"] = 1000
    text = Page(render_report({}, records, tmp_path)).text
    assert "different n (500, 1,000)" in text
    assert "validation split" in text


@pytest.mark.parametrize(("copied", "half", "told"), [(1.0, 0.004, True), (0.014, 0.014, False), (0.06, 0.05, False)])
def test_copies_of_training_rows_are_pointed_out(tmp_path: Path, copied: float, half: float, told: bool) -> None:
    record = made_up.sample_record(0, "digits", "heun 18", 0, np.random.default_rng(0))
    record["measurements"].append(made_up.measurement("memorised_fraction", copied, half, "lower"))
    text = Page(render_report({}, [record], tmp_path)).text
    assert ("Copies of training rows" in text) is told


def test_large_grids_are_reduced_until_the_file_fits(tmp_path: Path) -> None:
    records = made_up.records()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (700, 700, 3), dtype=np.uint8))
    (tmp_path / "samples").mkdir()
    for grid in {r["files"]["grid"] for r in records if r["files"].get("grid")}:
        noise.save(tmp_path / grid)
    path = write_report(made_up.manifest(), records, tmp_path)
    assert path.stat().st_size < LIMIT
    page = Page(path.read_text(encoding="utf-8"))
    assert sum(tag == "img" for tag, _ in page.elements) == 18
    assert "smaller copies" in page.text


def test_grids_outside_the_run_folder_or_broken_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    (folder / "broken.png").write_bytes(b"not an image")
    records = made_up.records()[:9:3]
    for record, grid in zip(records, ("../secret.png", "broken.png", "gone.png"), strict=True):
        record["files"]["grid"] = grid
    page = Page(render_report({}, records, folder))
    assert not any(tag == "img" for tag, _ in page.elements)
    for words in ("leaves the run folder", "broken.png cannot be read", "gone.png is missing"):
        assert words in page.text


def test_json_cannot_leave_its_script() -> None:
    value = {"a": "</script><!-- \u2028 & <b>", "b": [float("nan"), 1.23456789e-7]}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": value["a"], "b": [None, 1.23457e-7]}
    assert "</script" not in script_source("x = '</SCRIPT>' + '</script>'").lower()
