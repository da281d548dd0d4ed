"""CITATION.cff is valid CFF 1.2.0 as far as it goes, and says what the package says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import kfpbench

ROOT = Path(__file__).parents[2]
# the keys that the schema of CFF 1.2.0 requires, and those that it knows for what is used here
REQUIRED = {"cff-version", "message", "title", "authors"}
KNOWN = REQUIRED | {"abstract", "type", "version", "license", "keywords", "references", "repository-code", "url", "doi"}
REFERENCE = {"type", "title", "authors", "journal", "year", "volume", "issue", "start", "doi"}


@pytest.fixture
def citation():
    return YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_its_keys_are_those_of_the_schema(citation):
    assert citation["cff-version"] == "1.2.0"
    assert set(citation) >= REQUIRED
    assert set(citation) <= KNOWN
    assert citation["type"] == "software"
    assert all(isinstance(word, str) for word in citation["keywords"])
    for author in citation["authors"]:
        assert set(author) <= {"name"} or set(author) <= {"family-names", "given-names", "orcid", "affiliation"}


def test_it_cites_this_version_under_its_licence(citation):
    assert citation["version"] == kfpbench.__version__
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert citation["license"] == re.search(r'^license = "(.*)"', pyproject, re.MULTILINE).group(1)
    assert citation["title"] == re.search(r'^name = "(.*)"', pyproject, re.MULTILINE).group(1)


def test_it_cites_the_paper(citation):
    (paper,) = citation["references"]
    assert set(paper) == REFERENCE
    assert [author["family-names"] for author in paper["authors"]] == ["Wu", "Kawahara"]
    assert (paper["journal"], paper["year"], paper["volume"]) == ("Entropy", 2026, 28)
    assert (paper["issue"], paper["start"], paper["doi"]) == ("3", "290", "10.3390/e28030290")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["doi"] in readme
