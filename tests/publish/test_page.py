"""Pages whose tables are written from runs."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from made_up_cells import make_cell, make_run
from typer.testing import CliRunner

from kfpbench.cli import app
from kfpbench.errors import StoreError
from kfpbench.publish.page import fill_page, write_page
from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.numbers import format_value
from kfpbench.statistics.paired_difference import paired_difference
from kfpbench.store.run_folder import RunFolder

PUBLISHED = Path(__file__).parents[2] / "reports"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page beside two runs."""
    make_run(tmp_path / "first", [make_cell("ours", 1.0), make_cell("theirs", 1.5)])
    make_run(tmp_path / "second", [make_cell("late", 2.0)])
    return tmp_path / "page.md"


def block(options: str, kind: str = "table", body: str = "") -> str:
    return f"Before.\n\n<!-- kfpbench {kind}\n{options}\n-->\n{body}<!-- end -->\n\nAfter.\n"


def rows(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_a_table_holds_what_the_records_say(page: Path) -> None:
    page.write_text(block("runs: [first, second]\nmetrics: {frechet: distance}\nsort_by: frechet"))
    head, _, *body = rows(fill_page(page).text)
    assert head == ["cell", "distance"]
    assert [row[0] for row in body] == ["ours", "theirs", "late"]
    for row, value in zip(body, (2.0, 3.0, 4.0), strict=True):
        shown, low, high = (float(one) for one in re.findall(r"[\d.]+", row[1]))
        assert abs(shown - value) < 0.1
        assert low < shown < high


def test_a_written_page_is_its_own_fixed_point_and_keeps_the_text_around(page: Path) -> None:
    page.write_text(block("runs: first\nmetrics: [frechet]", body="| an old | table |\n"))
    assert write_page(page).changed == (3,)
    once = page.read_text()
    assert once.startswith("Before.\n\n<!--")
    assert once.endswith("<!-- end -->\n\nAfter.\n")
    assert "an old" not in once
    assert write_page(page).changed == ()
    assert page.read_text() == once


def test_rows_are_chosen_ordered_and_renamed(page: Path) -> None:
    page.write_text(block('runs: [first, second]\nmetrics: [frechet]\ncells: {late: null, ours: "a | b"}\nheading: x'))
    text = fill_page(page).text
    assert r"a \| b" in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("|")][2:] == ["| late", r"| a \| b"]


def test_differences_are_the_paired_ones(page: Path) -> None:
    page.write_text(block("runs: [first, second]\nmetrics: [frechet]\nagainst: ours", kind="differences"))
    _, _, *body = rows(fill_page(page).text)
    made = paired_difference(make_cell("theirs", 1.5), make_cell("ours", 1.0), "frechet")
    shown, low, high = (float(one) for one in re.findall(r"\d[\d.]*", body[0][1]))
    assert body[0][0] == "theirs"
    assert body[0][1].endswith(", worse")
    assert shown == pytest.approx(made.value, abs=0.01)
    assert (low, high) == pytest.approx((made.low, made.high), abs=0.01)


def test_each_cell_is_read_against_its_own(page: Path) -> None:
    against = "{theirs: ours, ours: theirs}"
    page.write_text(block(f"runs: [first, second]\nmetrics: [frechet]\nagainst: {against}", kind="differences"))
    _, _, *body = rows(fill_page(page).text)
    assert [row[0] for row in body] == ["theirs less ours", "ours less theirs"]
    assert body[0][1].startswith("+")
    assert body[0][1].endswith(", worse")
    assert body[1][1].startswith("\N{MINUS SIGN}")
    assert body[1][1].endswith(", better")
    page.write_text(block("runs: first\nmetrics: [frechet]\nagainst: {ours: nobody}", kind="differences"))
    with pytest.raises(StoreError, match="no cell has that label; got 'nobody'"):
        fill_page(page)
    page.write_text(
        block("runs: first\nmetrics: [frechet]\nagainst: {ours: theirs}\ncells: [ours]", kind="differences")
    )
    with pytest.raises(StoreError, match="names the rows already"):
        fill_page(page)


def test_cells_that_may_not_be_compared_say_why(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [make_cell("ours"), make_cell("few", n=50)])
    page = tmp_path / "page.md"
    page.write_text(block("runs: run\nmetrics: [frechet]\nagainst: ours", kind="differences"))
    assert "not compared: " in fill_page(page).text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("runs: first\nmetrics: [frechet]", kind="tabel"), "unknown kind of table"),
        (block("runs: first\nmetric: [frechet]"), "metric: Extra inputs"),
        (block("runs: first\nmetrics: [kid]"), "no cell of the table has that metric"),
        (block("runs: first\nmetrics: [frechet]\ncells: [nobody]"), "no cell has that label"),
        (block("runs: nowhere\nmetrics: [frechet]"), "no manifest.json"),
        (block("runs: ../other\nmetrics: [frechet]"), "below its own folder"),
        (block("runs: [first\nmetrics: [frechet]"), "page.md:3"),
        (block("runs: first\nmetrics: [frechet]\nagainst: late", kind="differences"), "no cell has that label"),
        (block("run: first", kind="claim"), "makes no claim"),
        ("<!-- kfpbench table\nruns: first\nmetrics: [frechet]\n-->\n", "a table has no end"),
        ("<!-- kfpbench table -->\n<!-- end -->\n", "no opening comment"),
    ],
)
def test_what_cannot_be_written_is_located_and_changes_nothing(page: Path, text: str, message: str) -> None:
    page.write_text(text)
    with pytest.raises(StoreError) as caught:
        write_page(page)
    assert message in str(caught.value)
    assert "page.md:" in str(caught.value)
    assert page.read_text() == text


def test_check_tells_a_stale_page_and_writes_nothing(page: Path) -> None:
    text = block("runs: first\nmetrics: [frechet]")
    page.write_text(text)
    stale = CliRunner().invoke(app, ["publish", str(page), "--check"])
    assert stale.exit_code == 1
    assert "page.md:3" in stale.output
    assert page.read_text() == text
    assert CliRunner().invoke(app, ["publish", str(page)]).exit_code == 0
    assert CliRunner().invoke(app, ["publish", str(page), "--check"]).exit_code == 0


def test_the_published_pages_are_what_their_runs_say() -> None:
    pages = sorted(PUBLISHED.glob("*/README.md"))
    assert pages, "no page is published"
    for published in pages:
        assert fill_page(published).changed == ()


@pytest.mark.parametrize("folder", sorted(PUBLISHED.glob("*/data/*")), ids=lambda folder: folder.name)
def test_the_published_data_make_their_report_again(folder: Path, tmp_path: Path) -> None:
    """From records and manifest alone: every cell that ended well is in it, with the mean distance of its repeats."""
    records = [record for record in RunFolder.open(folder).log.read().records if record.status == "ok"]
    assert records
    result = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = tmp_path / "report.html"
    assert report.stat().st_size < 10e6
    page = html.unescape(report.read_text(encoding="utf-8"))
    shown = re.findall(r"<tr\b.*?</tr>", page, re.DOTALL)
    for group in group_repeats(read_cells(records)):
        distance = group.estimates["frechet"]
        text = format_value(distance.value, distance.half_width)
        label = group.first.label  # of several cells of one label the axes stand apart
        assert any(label in row and f">{text}<" in row for row in shown), (label, text)


def test_a_cell_of_two_runs_is_no_repeat_of_itself(tmp_path: Path) -> None:
    for name in ("before", "after"):
        make_run(tmp_path / name, [make_cell("ours")])
    page = tmp_path / "page.md"
    page.write_text(block("runs: [before, after]\nmetrics: [frechet]"))
    with pytest.raises(StoreError, match="two runs hold the same cell"):
        fill_page(page)
    page.write_text(block("runs: [before, after]\nmetrics: [frechet]\nduplicates: first"))
    _, _, *body = rows(fill_page(page).text)
    page.write_text(block("runs: before\nmetrics: [frechet]"))
    assert rows(fill_page(page).text)[2:] == body
    assert len(body) == 1


def test_rows_of_different_n_make_no_table(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [make_cell("ours"), make_cell("few", n=50)])
    page = tmp_path / "page.md"
    page.write_text(block("runs: run\nmetrics: [frechet]"))
    with pytest.raises(StoreError, match="different n"):
        fill_page(page)


def test_a_failed_repeat_leaves_the_others_compared(tmp_path: Path) -> None:
    cells = [make_cell(label, value, seed=seed) for label, value in (("a", 1.0), ("b", 1.5)) for seed in (0, 1, 2)]
    make_run(tmp_path / "run", [*cells, make_cell("b", seed=3, status="failed")])
    page = tmp_path / "page.md"
    page.write_text(block("runs: run\nmetrics: [frechet]\nagainst: a", kind="differences"))
    assert "not compared" not in fill_page(page).text


def test_a_name_cannot_end_the_table(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [make_cell("a\n<!-- end -->"), make_cell("b")])
    page = tmp_path / "page.md"
    page.write_text(block("runs: run\nmetrics: [frechet]"))
    write_page(page)
    assert page.read_text().count("<!-- end -->") == 1
    assert write_page(page).changed == ()
