"""The store: hits and misses, damage of every kind, concurrent writers, pruning, folders that cannot be written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from kfpbench.cache.entry_file import About, decode, encode
from kfpbench.cache.key import Key
from kfpbench.cache.state import State
from kfpbench.cache.store import Store
from kfpbench.errors import StoreError

ROWS = np.arange(12.0).reshape(3, 4)


def _write(store: Store, key: Key, rows: np.ndarray = ROWS) -> str:
    about = About(key.kind, key.name, 2.5, "2026-01-01T00:00:00+00:00", key.parts, {})
    return store.write(about, key, State({"new": {"array": "a0"}}, {"a0": rows}))


def _key(number: int = 0) -> Key:
    return Key("features", {"number": number})


def test_an_entry_comes_back_as_it_was_and_other_keys_miss(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert store.read(_key()) is None
    assert _write(store, _key()) == ""
    found = store.read(_key())
    assert found is not None
    about, state = found
    assert (about.seconds, about.parts) == (2.5, {"number": 0})
    np.testing.assert_array_equal(state.arrays["a0"], ROWS)
    assert store.read(_key(1)) is None
    assert Store(tmp_path / "cache", refresh=True).read(_key()) is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int64", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_of_every_kind_come_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    rows = (
        (np.random.default_rng(0).normal(size=shape) + 1j).astype(dtype)
        if "complex" in dtype
        else np.ones(shape, dtype)
    )
    about = About("k", "n", 1.0, "", {}, {})
    _, state = decode(encode(about, State(None, {"a0": rows})))
    assert state.arrays["a0"].dtype == rows.dtype
    assert state.arrays["a0"].shape == shape
    np.testing.assert_array_equal(state.arrays["a0"], rows)


def test_every_flipped_bit_is_noticed_or_changes_nothing() -> None:
    """Flips in the padding of the safetensors header are the only ones that may pass: the content is then the same."""
    content = encode(About("k", "n", 1.0, "", {"a": 1}, {}), State({"x": 1}, {"a0": ROWS}))
    sound = decode(content)
    passed = 0
    for position in range(len(content)):
        for bit in (0, 3, 6):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            try:
                about, state = decode(bytes(damaged))
            except StoreError:
                continue
            passed += 1
            assert about == sound[0]
            assert state.tree == sound[1].tree
            np.testing.assert_array_equal(state.arrays["a0"], ROWS)
    assert passed < 0.02 * 3 * len(content)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 20, 200, -1])
def test_a_file_that_was_cut_off_is_damaged_and_removed(tmp_path: Path, kept: int) -> None:
    store = Store(tmp_path)
    _write(store, _key())
    path = store.path(_key())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError):
        store.read(_key())
    assert store.read(_key()) is None


def test_a_wrong_header_and_the_entry_of_another_key_are_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _write(store, _key(0))
    _write(store, _key(1))
    shutil.copy(store.path(_key(1)), store.path(_key(0)))
    with pytest.raises(StoreError, match="another key"):
        store.read(_key(0))
    store.path(_key(1)).write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(StoreError):
        store.read(_key(1))


def _hammer(folder: Path, seed: int, rounds: int) -> None:
    store = Store(folder)
    for step in range(rounds):
        key = _key((step * (seed + 1)) % 5)
        assert _write(store, key, np.full((200, 50), float(key.parts["number"]))) == ""
        found = store.read(_key((step + seed) % 5))
        if found is not None:  # whole, or none: never a part of one
            rows = found[1].arrays["a0"]
            assert (rows == found[0].parts["number"]).all()


def test_processes_that_write_and_read_the_same_entries_never_see_a_part(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_hammer, args=(tmp_path, seed, 20)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    store = Store(tmp_path)
    assert len(store.entries()) == 5
    assert store.verify() == []
    assert [path.name for path in (tmp_path / "features").iterdir() if path.name.endswith(".tmp")] == []


def _aged(store: Store, numbers: int) -> list[int]:
    """Entries used 0, 1, 2, ... days ago; their sizes."""
    sizes = []
    for number in range(numbers):
        _write(store, _key(number))
        then = time.time() - 86400 * number
        os.utime(store.path(_key(number)), (then, then))
        sizes.append(store.path(_key(number)).stat().st_size)
    return sizes


def test_pruning_by_size_keeps_what_was_used_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sizes = _aged(store, 5)
    store.read(_key(4))  # now it is the one that was used last
    assert len(store.prune(most_bytes=sizes[4] + sizes[0] + sizes[1] - 1)) == 3
    assert {entry.name for entry in store.entries()} == {_key(4).name, _key(0).name}


def test_pruning_by_age(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _aged(store, 5)
    assert len(store.prune(older_than=2.5 * 86400)) == 2
    assert len(store.entries()) == 3


def test_clearing_removes_entries_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _aged(store, 3)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "features" / "mine.safetensors").write_text("mine")
    abandoned, fresh = (tmp_path / "features" / f".x.{name}.tmp" for name in ("old", "new"))
    for path in (abandoned, fresh):
        path.write_bytes(b"")
    os.utime(abandoned, (0, 0))
    assert len(store.clear()) == 3
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".x.new.tmp", "mine.safetensors", "notes.txt"]


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    _write(elsewhere, _key())
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").symlink_to(tmp_path / "elsewhere" / "features")
    assert Store(tmp_path / "cache").clear() == []
    assert len(elsewhere.entries()) == 1


def test_verify_finds_what_is_damaged_and_removes_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _aged(store, 3)
    path = store.path(_key(1))
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(bytes(content))
    ((entry, reason),) = store.verify()
    assert entry.name == _key(1).name
    assert "checksum" in reason
    assert len(store.entries()) == 2
    assert store.verify() == []


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.write_text("a file, not a folder")  # holds for the superuser too, whom no mode keeps out
    store = Store(folder)
    assert "Error" in _write(store, _key())
    assert store.read(_key()) is None
    assert store.entries() == store.clear() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write into any folder")
def test_a_read_only_folder_is_read_and_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _write(store, _key(0))
    (tmp_path / "features").chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert store.read(_key(0)) is not None
        assert "PermissionError" in _write(store, _key(1))
        assert store.clear() == []
    finally:
        (tmp_path / "features").chmod(stat.S_IRWXU)


def test_a_disk_that_fills_up_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    monkeypatch.setattr("kfpbench.cache.store.os.replace", full)
    assert "No space left" in _write(store, _key())
    assert list((tmp_path / "features").iterdir()) == []


def test_the_last_room_of_a_disk_is_left_to_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr("kfpbench.cache.store.shutil.disk_usage", lambda path: usage)
    assert "No space left" in _write(Store(tmp_path), _key())
    assert Store(tmp_path).entries() == []


def test_an_entry_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    assert "more than an entry may have" in _write(Store(tmp_path, largest=ROWS.nbytes - 1), _key())
    assert Store(tmp_path).entries() == []
