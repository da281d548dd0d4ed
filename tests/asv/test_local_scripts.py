"""The published site takes no script from the network where copies are installed, and says which it takes where not."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

REMOTE = re.compile(r'(?:src|href)="(https?://[^"]+\.(?:js|css))"')


@pytest.fixture
def site(tmp_path):
    """A folder with the page of the asv that is installed: a new version that names other files is found by this."""
    found = find_spec("asv")
    if found is None:
        pytest.skip("asv is not installed: pip install kfpbench[dev]")
    page = Path(found.submodule_search_locations[0]) / "www" / "index.html"
    folder = tmp_path / "html"
    folder.mkdir()
    (folder / "index.html").write_text(page.read_text())
    return folder


@pytest.fixture
def copies(tmp_path, local_scripts):
    """Debian's folders, each file with its own name as content."""
    for name, (folder, _) in local_scripts.COPIES.items():
        (tmp_path / "debian" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "debian" / folder / name).write_text(name)
    return tmp_path / "debian"


def test_every_script_of_the_page_is_copied(site, copies, local_scripts):
    before = (site / "index.html").read_text()
    assert local_scripts.localize(site, copies) == []
    text = (site / "index.html").read_text()
    assert [Path(address).name for address in REMOTE.findall(text)] == list(local_scripts.OPTIONAL)
    named = re.findall(r'"scripts/([^"]+)"', text)
    assert len(named) == len(REMOTE.findall(before)) - len(local_scripts.OPTIONAL)
    assert all((site / "scripts" / name).read_text() == name for name in named)
    # a hash of the remote file would make a browser refuse the copy, and a missing optional one would end in error.html
    assert "integrity=" not in text
    assert "onerror=" not in text
    assert "jquery.flot.axislabels.js" in text  # Flot 0.8 needs it


def test_a_missing_copy_is_named_and_its_element_untouched(site, copies, local_scripts):
    (copies / "bootstrap" / "css" / "bootstrap.min.css").unlink()
    element = next(line for line in (site / "index.html").read_text().splitlines() if "bootstrap.min.css" in line)
    (left,) = local_scripts.localize(site, copies)
    assert "bootstrap.min.css" in left
    assert "apt-get install libjs-bootstrap" in left
    assert element in (site / "index.html").read_text()


def test_no_copies_leave_the_page_to_the_network(site, tmp_path, local_scripts):
    before = set(REMOTE.findall((site / "index.html").read_text()))
    left = local_scripts.localize(site, tmp_path / "nothing")
    assert len(left) == len(local_scripts.COPIES)
    assert set(REMOTE.findall((site / "index.html").read_text())) == before
    assert not (site / "scripts").exists()


def test_flot_3_labels_its_axes_itself(site, copies, local_scripts):
    (copies / "jquery-flot" / "jquery.flot.min.js").write_text('plugins.push({name:"axisLabels"})')
    local_scripts.localize(site, copies)
    text = (site / "index.html").read_text()
    assert "jquery.flot.axislabels.js" not in text
    assert text.count("<style>") == 1
    assert local_scripts.localize(site, copies) == []
    assert (site / "index.html").read_text() == text


def test_the_command_prints_what_is_left(site, tmp_path, local_scripts, capsys, monkeypatch):
    monkeypatch.setattr(local_scripts.localize, "__defaults__", (tmp_path / "nothing",))
    assert local_scripts.main([str(site)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("no local copy") == len(local_scripts.COPIES)
    assert "needs the network" in printed
