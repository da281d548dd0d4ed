"""What takes the place of a file, and what never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kfpbench.errors import StoreError
from kfpbench.store.atomic import write_bytes


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_behind_a_link_is_refused(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link, Path("/dev/stdout"), Path("/dev/null")):
        with pytest.raises(StoreError, match="no ordinary file"):
            write_bytes(path, b"new")
    assert link.is_symlink()
    assert pipe.is_fifo()


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(StoreError, match="cannot be written there") as caught:
        write_bytes(path, b"new")
    assert str(path) in str(caught.value)


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="planted"):
        write_bytes(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
