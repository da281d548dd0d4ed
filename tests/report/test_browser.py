"""The report in a real browser: it draws, says nothing to the console and asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kfpbench.report.html import write_report
from kfpbench.store.eigenfunctions import FunctionGrid, write_function_grid

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH: {', '.join(BROWSERS)}")

# What the browser asks for on its own account has this instead of an origin.
OWN_ACCOUNT = "not an origin"


def visit(page: Path, folder: Path, width: int = 1200) -> tuple[str, list[str], set[str]]:
    """The page's DOM after its scripts, its console messages, and the addresses that it asked for."""
    log = folder / "net.json"
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},2000", "--virtual-time-budget=8000",
        f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = re.findall(r"CONSOLE.*", done.stderr)
    text = log.read_text(encoding="utf-8").rstrip()
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # a browser that is ended early leaves its log open
        events = json.loads(text.rstrip(",") + "]}")["events"]
    asked = {
        event["params"]["url"]
        for event in events
        if "url" in event.get("params", {}) and event["params"].get("initiator", OWN_ACCOUNT) != OWN_ACCOUNT
    }
    return done.stdout, console, {url for url in asked if not url.startswith(("file:", "data:", "blob:"))}


@pytest.mark.parametrize("width", [1200, 500])
def test_report_draws_silently_and_offline(report: Path, tmp_path: Path, width: int) -> None:
    dom, console, asked = visit(report, tmp_path, width)
    assert 'data-drawn="yes"' in dom
    assert dom.count('class="main-svg"') >= 5
    assert "koopman rank 64</text>" in dom  # a direct label on its point
    assert console == []
    assert asked == set()


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_no_wider_than_its_window(report: Path, tmp_path: Path, width: int) -> None:
    script = """<script>setTimeout(() => { const root = document.documentElement;
      document.body.dataset.excess = root.scrollWidth - root.clientWidth; }, 4000);</script></body>"""
    page = tmp_path / "page.html"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dom, _, _ = visit(page, tmp_path, width)
    assert 'data-excess="0"' in dom, re.findall('data-excess="[^"]*"', dom)


def test_the_check_sees_a_request_and_a_message(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<img src='http://example.invalid/a.png'><script>console.error('oh')</script>", "utf-8")
    _, console, asked = visit(page, tmp_path)
    assert any("oh" in line for line in console)
    assert asked == {"http://example.invalid/a.png"}


def test_sorting_and_choosing_work(report: Path, tmp_path: Path) -> None:
    script = """<script>
      addEventListener("load", () => setTimeout(() => {
        document.querySelectorAll("#part-1-table thead button")[3].click();
        const select = document.querySelector('select[data-part="metric"]');
        select.value = "frechet"; select.dispatchEvent(new Event("change"));
      }, 1500));</script></body>"""
    page = tmp_path / "page.html"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dom, console, _ = visit(page, tmp_path)
    assert console == []
    table = dom[dom.index('id="part-1-table"') :]
    names = re.findall(r'<th scope="row" class="name" data-sort="([^"]+)"', table[: table.index("</table>")])
    assert names[0] == "gaussian"  # the lowest coverage
    assert names[-1] == "heun 18"
    assert 'aria-sort="ascending"' in table
    caption = dom[dom.index('id="part-1-front-caption"') :]
    assert "Surely on the front of Fréchet distance" in caption[: caption.index("</span>")]


@pytest.mark.parametrize("width", [1200, 500])
def test_choosing_a_cell_draws_its_eigenfunctions(made_up: ModuleType, tmp_path: Path, width: int) -> None:
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
    page = write_report({}, records, tmp_path)
    text = page.read_text(encoding="utf-8")

    def panels(dom: str) -> list[str]:
        return [part[:9] for part in re.findall(r'id="part-1-functions-\d-caption">([^<]*)<', dom)]

    dom, console, asked = visit(page, tmp_path, width)
    assert (console, asked) == ([], set())
    assert [caption[:6] for caption in panels(dom)] == ["Mode 2", "Mode 3", "Mode 4"]
    assert dom.count('class="heatmaplayer mlayer"><g class="hm"') == 3
    script = """<script>addEventListener("load", () => setTimeout(() => {
      const select = document.querySelector("select[data-choice]");
      select.value = "1"; select.dispatchEvent(new Event("change"));
      document.body.dataset.excess = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    }, 1500));</script></body>"""
    page.write_text(text.replace("</body>", script), encoding="utf-8")
    dom, console, _ = visit(page, tmp_path, width)
    assert console == []
    assert [caption[:6] for caption in panels(dom)] == ["Mode 2", "Mode 3", ""]
    assert dom.count('<figure class="plot" hidden="">') == 1
    assert 'data-excess="0"' in dom
