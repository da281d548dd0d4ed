"""Links and paths that the documentation names are there, and its index names every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@every_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(page))
    missing = [t for t in targets if not re.match(r"\w+:", t) and not (page.parent / t).exists()]
    assert not missing


@every_page
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:kfpbench|baselines|suites|examples|tests|docs)/[\w./-]*)`", prose(page))
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
    shared = (ROOT / "docs" / "extending" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs" / "extending").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in shared, page.name
