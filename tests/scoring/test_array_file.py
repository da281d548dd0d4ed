"""Arrays from files of unknown origin: the right one is found, and nothing dangerous or damaged is read."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kfpbench.errors import DataError
from kfpbench.scoring import array_file
from kfpbench.scoring.array_file import read_array_file

IMAGES = np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3)
LABELS = np.arange(10)


@pytest.mark.parametrize(
    ("arrays", "key"),
    [
        ({"samples": IMAGES, "images": IMAGES[:5], "other": IMAGES}, "samples"),
        ({"images": IMAGES, "other": IMAGES[:5]}, "images"),
        ({"arr_0": IMAGES, "arr_1": LABELS}, "arr_0"),  # images and labels, as guided diffusion writes them
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_array_of_an_npz_is_found(tmp_path, arrays, key, save):
    save(tmp_path / "a.npz", **arrays)
    stored = read_array_file(tmp_path / "a.npz")
    assert (stored.key, stored.own) == (key, {})
    np.testing.assert_array_equal(stored.values, IMAGES)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_comes_back(tmp_path, order):
    np.save(tmp_path / "a.npy", np.asarray(IMAGES, order=order))
    stored = read_array_file(tmp_path / "a.npy")
    assert stored.key == ""
    np.testing.assert_array_equal(stored.values, IMAGES)


def test_several_candidates_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", real=IMAGES, fake=IMAGES)
    with pytest.raises(DataError, match=r"not clear which array.*real.*fake.*np\.savez\(path, samples=array\)"):
        read_array_file(tmp_path / "a.npz")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_is_unpickled(tmp_path, suffix):
    objects = np.array([Bomb(tmp_path / "ran")] * 10, dtype=object).reshape(10, 1)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    if suffix == "npz":
        np.savez(tmp_path / "a.npz", samples=objects)
    with pytest.raises(DataError, match=r"Python objects.*run code"):
        read_array_file(tmp_path / f"a.{suffix}")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(DataError, match="not an array in numpy's format"):
        read_array_file(tmp_path / "b.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [5, 100, 300, -1])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_truncated_file_is_an_error(tmp_path, suffix, cut):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, IMAGES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"copy it again"):
        read_array_file(path)


def test_a_damaged_byte_in_an_npz_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, samples=IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_array_file(path)


def test_a_header_cannot_ask_for_the_whole_memory(tmp_path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 4)})
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    with pytest.raises(DataError, match=r"too large; got .*4194304.0 MiB.*; allowed: '?4096 MiB"):
        read_array_file(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", header.getvalue())
    with pytest.raises(DataError, match="too large"):
        read_array_file(tmp_path / "a.npz")
    monkeypatch.setattr(array_file, "MAX_BYTES", IMAGES.nbytes - 1)  # a well compressed array is measured unpacked
    np.savez_compressed(tmp_path / "b.npz", samples=np.zeros_like(IMAGES))
    with pytest.raises(DataError, match="too large"):
        read_array_file(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "text",
    ["{'descr': '|u1', 'shape': (", "{'descr': 3}", "[" * 3000, "{'descr': 'q9', 'fortran_order': 1, 'shape': 5}"],
)
def test_headers_that_are_no_headers(tmp_path, text):
    header = text.encode().ljust(3050) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"a.npy: not an array in numpy's format"):
        read_array_file(tmp_path / "a.npy")


def test_other_files_are_errors(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    (tmp_path / "a.npy").write_bytes(b"")
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match=name):
            read_array_file(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("samples.txt", "text")
    with pytest.raises(DataError, match="not an array"):
        read_array_file(tmp_path / "b.npz")
