"""The report in a real browser: it draws, filters, says nothing to the console and asks the network for nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_run as made_up
import numpy as np
import pytest
import report_browser as driver

from kfpbench.report.html import write_report
from kfpbench.store.eigenfunctions import FunctionGrid, write_function_grid

pytestmark = pytest.mark.skipif(driver.BROWSER is None, reason=driver.WHY_NOT)
ROWS = "[...document.querySelectorAll('#part-1-table tbody tr')].filter(row => !row.hidden)"
SHOWN = f"{ROWS}.map(row => row.cells[0].dataset.sort)"
POINTS = (
    "document.getElementById('part-1-front').data.filter(t => t.meta === 'cells')"
    ".flatMap(t => t.customdata.map(i => JSON.parse(document.getElementById('payload').textContent)"
    ".scatters['part-1-front'].labels[i])).sort()"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = driver.Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def box(axis: str, level: str) -> str:
    """A script that finds a checkbox of the first section's filter by the names beside it."""
    return (
        f"[...document.querySelectorAll('[data-filter=\"part-1\"] fieldset')]"
        f".find(set => set.querySelector('legend').textContent === '{axis}').querySelectorAll('label')"
        f".values().find(label => label.querySelector('span').textContent === '{level}').querySelector('input')"
    )


@pytest.mark.parametrize("width", [1200, 375])
def test_report_draws_silently_offline_and_no_wider_than_its_window(browser: Any, report: Path, width: int) -> None:
    with browser.page(report.as_uri(), width) as page:
        page.drawn()
        assert page.run("document.querySelectorAll('.main-svg').length") >= 10
        assert page.console == []
        assert page.elsewhere == []
        assert page.run("innerWidth") == width  # a telephone would zoom out of a page that is wider
        assert page.excess() == 0
        page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.excess() == 0
        if width > 600:
            labels = page.run("[...document.querySelectorAll('#part-1-front text')].map(text => text.textContent)")
            assert "koopman rank 64" in labels  # a direct label on its point


def test_the_check_sees_a_request_a_message_and_a_wide_page(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        "<meta name=viewport content='width=device-width'><img src='http://example.invalid/a.png'>"
        "<div style='width: 900px'>w</div><script>console.error('oh')</script>",
        encoding="utf-8",
    )
    with browser.page(file.as_uri(), 375) as page:
        page.wait("true")
        assert any("oh" in line for line in page.console)
        assert page.elsewhere == ["http://example.invalid/a.png"]
        assert page.run("innerWidth") > 375 or page.excess() > 0


def test_the_filter_takes_cells_out_of_tables_figures_and_pictures(browser: Any, report: Path) -> None:
    with browser.page(report.as_uri()) as page:
        page.drawn()
        every = page.run(SHOWN)
        assert len(every) == 9
        line = page.run("document.getElementById('part-1-front').data.find(t => t.meta === 'front').x.length")
        page.click('[data-filter="part-1"] summary')
        for label in ("koopman rank 64", "koopman rank 256"):
            page.run(f"{box('cell', label)}.click()")
        page.drawn()
        left = [name for name in every if not name.startswith("koopman")]
        assert page.run(SHOWN) == left
        assert not any(name.startswith("koopman") for name in page.run(POINTS))
        shown = "[...document.querySelectorAll('#part-1 .gallery figure')].filter(f => !f.hidden).length"
        assert page.run(shown) == len(left)
        assert page.run("document.getElementById('part-1-shown').textContent") == "7 of 9 cells shown"
        assert page.run("document.getElementById('part-1-phases').data[0].y.length") == len(left)
        after = page.run("document.getElementById('part-1-front').data.find(t => t.meta === 'front').x.length")
        assert after < line  # the spectral cells were corners of the line
        # the other data set keeps its cells
        assert page.run("[...document.querySelectorAll('#part-2-table tbody tr')].every(row => !row.hidden)")
        address = page.run("location.href")
        assert "only.part-1." in address
        page.click('[data-filter="part-1"] > p button')
        page.drawn()
        assert page.run(SHOWN) == every
        assert "only." not in page.run("location.href")
        assert page.console == []
    with browser.page(address) as page:  # the address brings the state back
        page.drawn()
        assert page.run(SHOWN) == left
        assert page.run("document.querySelector('[data-filter=\"part-1\"]').open")
        page.run("document.querySelector('nav a[href=\"#part-2\"]').click()")  # a link of the page keeps it
        page.wait("location.hash.startsWith('#part-2&only.part-1.')")
        assert page.run(SHOWN) == left


def test_the_line_of_the_page_is_that_of_the_library(browser: Any, report: Path) -> None:
    """Drawn anew from all points, the dashed front is the one that Python wrote."""
    script = """(() => { const div = document.getElementById('part-1-front');
      const drawn = div.data.find(t => t.meta === 'front');
      const written = JSON.parse(document.getElementById('payload').textContent)
        .scatters['part-1-front'].variants['seconds_per_image|coverage'].data.find(t => t.meta === 'front');
      return [drawn.x, written.x, drawn.y, written.y]; })()"""
    with browser.page(report.as_uri()) as page:
        page.drawn()
        drawn_x, written_x, drawn_y, written_y = page.run(script)
    np.testing.assert_allclose(drawn_x, written_x, rtol=1e-5)
    np.testing.assert_allclose(drawn_y, written_y, rtol=1e-5)


def test_nothing_that_is_shown_leaves_an_empty_figure_and_a_word(browser: Any, report: Path) -> None:
    with browser.page(report.as_uri()) as page:
        page.drawn()
        page.run("document.querySelector('[data-filter=\"part-1\"] button[data-set=none]').click()")
        page.drawn()
        assert page.run(SHOWN) == []
        assert "No cell that is shown" in page.run("document.getElementById('part-1-front-caption').textContent")
        assert "No cell that is shown" in page.run("document.getElementById('part-1-multiples-note').textContent")
        assert page.console == []


def test_an_address_that_names_what_is_not_there_is_harmless(browser: Any, report: Path) -> None:
    wrong = "#part-1&only.part-9.x=1&show.part-1-front.metric=no&only.part-1.%E0%A4%A=2&=&x"
    with browser.page(report.as_uri() + wrong) as page:
        page.drawn()
        assert len(page.run(SHOWN)) == 9
        assert page.console == []


def test_small_multiples_follow_their_choices(browser: Any, report: Path) -> None:
    panels = "[...document.querySelectorAll('#part-1-multiples .panel figcaption')].map(one => one.textContent)"
    with browser.page(report.as_uri()) as page:
        page.drawn()
        assert page.run(panels)
        metric = 'select[data-multiples="part-1"][data-part="metric"]'
        page.choose('select[data-multiples="part-1"][data-part="panels"]', "none")
        page.choose('select[data-multiples="part-1"][data-part="along"]', "0")  # the cells
        page.choose(metric, "recall")
        page.wait(f"{panels}.length === 1")
        page.wait("document.getElementById('part-1-multiples-note').textContent.startsWith('recall')")
        drawn = "document.querySelector('#part-1-multiples .canvas').data.reduce((sum, t) => sum + t.x.length, 0)"
        page.wait(f"{drawn} === 9")
        assert "show.part-1-multiples.metric=recall" in page.run("location.hash")
        assert page.console == []


def test_sorting_and_choosing_work(browser: Any, report: Path) -> None:
    with browser.page(report.as_uri()) as page:
        page.drawn()
        page.run("document.querySelectorAll('#part-1-table thead button')[3].click()")
        names = page.run(SHOWN)
        assert (names[0], names[-1]) == ("gaussian", "heun 18")  # by coverage
        page.choose('select[data-part="metric"][data-scatter]', "frechet")
        caption = "document.getElementById('part-1-front-caption').textContent"
        page.wait(f"{caption}.includes('Surely on the front of Fréchet distance')")
        assert page.console == []


def test_the_keyboard_reaches_everything_in_order(browser: Any, report: Path) -> None:
    here = """(() => { const e = document.activeElement, style = getComputedStyle(e);
      const all = [...document.querySelectorAll('*')];
      return [e.tagName, e.textContent.slice(0, 30), all.indexOf(e), e.matches(':focus-visible') &&
        style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
        e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.textContent.trim()]; })()"""
    with browser.page(report.as_uri()) as page:
        page.drawn()
        seen = []
        for _ in range(60):
            page.press("Tab", 9)
            seen.append(page.run(here))
        assert seen[0][1] == "Skip to the results"
        tags = {tag for tag, *_ in seen}
        assert {"A", "SUMMARY", "SELECT", "DIV", "BUTTON"} <= tags  # links, folds, choices, tables, heads
        places = [place for _, _, place, _, _ in seen]
        assert places == sorted(places)  # in the order of the page
        assert len(set(places)) == len(places)
        assert [one for one in seen if not one[3]] == []  # the focus can be seen
        assert [one for one in seen if not one[4]] == []  # and what has it, has a name
    with browser.page(report.as_uri()) as page:
        page.drawn()
        page.press("Tab", 9)
        page.press("Enter", 13, "\r")
        page.wait("document.activeElement.id === 'main'")


def test_the_command_is_copied(browser: Any, report: Path) -> None:
    with browser.page(report.as_uri()) as page:
        page.drawn()
        page.run("""Object.defineProperty(navigator, 'clipboard', {configurable: true,
          value: {writeText: async (text) => { window.kept = text; }}})""")
        page.click("button[data-copy]")
        page.wait("document.getElementById('copied').textContent === 'Copied.'")
        assert "kfpbench run 'suites/operators against solvers.yaml' --seed 0" in page.run("window.kept")
        page.run("""Object.defineProperty(navigator, 'clipboard', {configurable: true, value: undefined})""")
        page.click("button[data-copy]")  # a browser without a clipboard: the text is selected
        page.wait("String(getSelection()).includes('kfpbench run')")


def test_paper_has_no_folded_parts(browser: Any, report: Path, tmp_path: Path) -> None:
    with browser.page(report.as_uri()) as page:
        page.drawn()
        assert not page.run("document.querySelector('#provenance details').open")
        page.pdf(tmp_path / "report.pdf")
        page.drawn()
        page.wait("!document.querySelector('#provenance details').open")  # as before
        assert page.console == []
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on PATH; Debian: apt-get install poppler-utils")
    done = subprocess.run(["pdftotext", "-layout", "report.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
    words = done.stdout.decode()
    assert "Example CPU" in words  # of the folded provenance
    assert "Skip to the results" not in words
    assert "Show all cells" not in words


def test_dark_and_light_are_drawn(browser: Any, report: Path) -> None:
    ink = "getComputedStyle(document.querySelector('#part-1-front .xtick text')).fill"
    found = []
    for dark in (False, True):
        with browser.page(report.as_uri(), dark=dark) as page:
            page.drawn()
            found.append(page.run(ink))
    assert found[0] != found[1]


@pytest.mark.parametrize("width", [1200, 375])
def test_choosing_a_cell_draws_its_eigenfunctions(browser: Any, tmp_path: Path, width: int) -> None:
    """Three maps of the first cell; two of the second, which has no third panel."""
    axis = np.linspace(-1.0, 1.0, 8)
    records = []
    for number, modes in enumerate(((1, 2, 3), (1, 2))):
        record = made_up.spectrum_record(number)
        values = np.stack([(k + 1) * np.add.outer(axis, axis) for k in modes])
        write_function_grid(tmp_path / f"{number}.npz", FunctionGrid((axis, axis), modes, values))
        record.update(cell=f"c{number}", label=f"cell {number}", files={"eigenfunctions": f"{number}.npz"}, axes={})
        record["spec"]["spectrum"] = {"n_eigs": number}
        records.append(record)
    file = write_report({}, records, tmp_path)
    captions = "[0, 1, 2].map(i => document.getElementById(`part-1-functions-${i}-caption`).textContent.slice(0, 6))"
    with browser.page(file.as_uri(), width) as page:
        page.drawn()
        assert page.run(captions) == ["Mode 2", "Mode 3", "Mode 4"]
        assert page.run("document.querySelectorAll('.heatmaplayer .hm').length") == 3
        page.choose("select[data-choice]", "1")
        page.wait(f"{captions}.join() === 'Mode 2,Mode 3,'")
        assert page.run("document.querySelectorAll('figure.plot[hidden]').length") == 1
        assert page.excess() == 0
        assert (page.console, page.elsewhere) == ([], [])


def test_names_stay_text(browser: Any, tmp_path: Path) -> None:
    """A name with markup is shown, never run: in tables, filters, figures and the address."""
    evil = "<img src=x onerror=window.ran=1><b>k</b>$&amp;"
    records = []
    for rank in (16, 64):
        record = made_up.sample_record(rank, "digits", "koopman rank 64", 0, np.random.default_rng(0))
        record.update(cell=f"c{rank}", label=f"{evil}{rank}", axes={f"samplers.x.{evil}": f"{evil}{rank}"}, files={})
        records.append(record)
    with browser.page(write_report({}, records, tmp_path).as_uri()) as page:
        page.drawn()
        page.run("document.querySelector('[data-filter=\"part-1\"] input').click()")
        page.drawn()
        assert page.run("typeof window.ran") == "undefined"
        assert page.run("document.querySelectorAll('main img').length") == 0
        assert page.run("document.querySelector('#part-1-table tbody th').textContent").strip().startswith(evil)
        assert [line for line in page.console if line] == []
        assert page.elsewhere == []
