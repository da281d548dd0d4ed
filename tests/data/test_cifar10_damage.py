"""Files that are cut short, corrupt, malicious or of another data set: an error names the file and the
numbers."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import tarfile

import numpy as np
import pytest

from kfpbench.data import cifar10_files
from kfpbench.data.cifar10 import Cifar10
from kfpbench.errors import DataError

RECORD = 3073


def load(toy, folder):
    return toy.Cifar10(data_dir=str(folder)).load()


@pytest.fixture
def binary(toy, tmp_path, binary_files):
    return toy.write_files(tmp_path / "cifar-10-batches-bin", binary_files)


@pytest.fixture
def python(toy, tmp_path, python_files):
    return toy.write_files(tmp_path / "cifar-10-batches-py", python_files)


@pytest.mark.parametrize("missing", [1, RECORD - 1, RECORD, 10 * RECORD + 7])
def test_short_binary_file(toy, binary, missing):
    path = binary / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError) as caught:
        load(toy, binary)
    assert caught.value.where == str(path)
    assert f"{40 * RECORD - missing} bytes" in str(caught.value)
    assert f"{40 * RECORD} bytes (40 records of 3073)" in str(caught.value)


def test_long_binary_file(toy, binary):
    path = binary / "test_batch.bin"
    path.write_bytes(path.read_bytes() + bytes(RECORD))
    with pytest.raises(DataError, match="41 records and 0 bytes"):
        load(toy, binary)


def test_official_files_have_ten_thousand_records(binary, python):
    with pytest.raises(DataError, match=r"30730000 bytes \(10000 records of 3073\)"):
        Cifar10(data_dir=str(binary)).load()
    with pytest.raises(DataError, match=r"shape \(40, 3072\), 122880 bytes.*\(10000, 3072\), 30720000 bytes"):
        Cifar10(data_dir=str(python)).load()


def test_impossible_label_byte(toy, binary):
    path = binary / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[3 * RECORD] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: record 3 has an impossible label.*got 10.*0 to 9"):
        load(toy, binary)


def test_empty_file(toy, binary):
    (binary / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_1\.bin: .*0 bytes"):
        load(toy, binary)


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("damage", ["cut", "flip", "not compressed", "empty"])
def test_damaged_compressed_file(toy, binary, ending, pack, damage):
    plain = binary / "data_batch_5.bin"
    packed = pack(plain.read_bytes())
    content = {
        "cut": packed[: len(packed) // 2],
        "flip": packed[:3000] + bytes([packed[3000] ^ 0xFF]) + packed[3001:],
        "not compressed": plain.read_bytes(),
        "empty": b"",
    }[damage]
    plain.unlink()
    path = plain.with_name(plain.name + ending)
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(toy, binary)
    assert caught.value.where == str(path)
    assert f"{40 * RECORD} bytes" in str(caught.value.allowed)
    assert "bytes" in str(caught.value.got)


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_file_that_unpacks_to_too_much(toy, binary, monkeypatch, ending, pack):
    monkeypatch.setattr(cifar10_files, "MEMBER_LIMIT", 2_000_000)
    path = binary / "data_batch_1.bin"
    path.unlink()
    path.with_name(path.name + ending).write_bytes(pack(bytes(50_000_000)))
    with pytest.raises(DataError, match=r"data_batch_1\.bin.*far more.*allowed: 2000000 bytes"):
        load(toy, binary)


def test_an_unreadable_file(toy, binary):
    path = binary / "data_batch_1.bin"
    content = path.read_bytes()
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(content)
    os.mkdir(path)  # not a file: the next form of it is taken
    with pytest.raises(DataError, match=r"data_batch_1\.bin\.gz"):
        load(toy, binary)


def test_the_plain_form_of_a_file_is_preferred(toy, binary, binary_files):
    (binary / "data_batch_1.bin.gz").write_bytes(b"broken")
    (binary / "data_batch_1.bin.xz").write_bytes(b"broken")
    assert len(load(toy, binary).train) == 180


# ---- pickles


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_malicious_pickle(toy, python, tmp_path, name):
    mark = tmp_path / "was-run"
    (python / name).write_bytes(pickle.dumps({b"data": Payload(mark)}, protocol=2))
    with pytest.raises(DataError) as caught:
        load(toy, python)
    assert caught.value.where == str(python / name)
    assert caught.value.got == f"{os.mkdir.__module__}.mkdir"
    assert not mark.exists()


def test_malicious_pickle_in_an_archive(toy, tmp_path, python_files):
    mark = tmp_path / "was-run"
    files = {**python_files, "data_batch_1": pickle.dumps(Payload(mark), protocol=2)}
    archive = toy.write_tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: cifar-10-batches-py/data_batch_1: .*global"):
        load(toy, archive)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({b"data": np.zeros((40, 3071), np.uint8), b"labels": [0] * 40}, r"shape \(40, 3071\), 122840 bytes"),
        ({b"data": np.zeros((40, 3, 32, 32), np.uint8), b"labels": [0] * 40}, "shape"),
        ({b"data": np.zeros((40, 3072)), b"labels": [0] * 40}, "not uint8"),
        ({b"data": np.zeros((40, 3072), np.uint8), b"labels": [0] * 39}, "39 entries"),
        ({b"data": np.zeros((40, 3072), np.uint8), b"labels": [0] * 39 + [b"1"]}, "one integer per image"),
        ({b"data": np.zeros((40, 3072), np.uint8), b"labels": [0] * 39 + [10]}, "record 39.*got 10"),
        (
            {b"data": np.zeros((40, 3072), np.uint8), b"labels": [0] * 39 + [-1]},
            "record 39.*impossible label",
        ),
        ({b"data": np.zeros((40, 3072), np.uint8), b"fine_labels": [0] * 40}, "`labels`"),
        ({b"labels": [0] * 40}, "`data`"),
        ([1, 2], "no dictionary"),
    ],
)
def test_pickle_of_something_else(toy, python, content, complaint):
    (python / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_2: .*" + complaint):
        load(toy, python)


def test_short_pickle(toy, python):
    path = python / "test_batch"
    path.write_bytes(path.read_bytes()[:70_000])
    with pytest.raises(DataError, match=r"test_batch: not a readable pickle.*got '70000 bytes'"):
        load(toy, python)


# ---- archives


@pytest.fixture
def archive(toy, tmp_path, binary_files):
    def write(ending=".tar.gz", files=binary_files, extra=()):
        path = tmp_path / "archive" / f"cifar-10-binary{ending}"
        return toy.write_tar(path, "cifar-10-batches-bin", files, extra)

    return write


def member(name, kind=tarfile.REGTYPE, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("/etc/kfpbench"),
        member("../outside"),
        member("cifar-10-batches-bin/../../outside"),
        member("cifar-10-batches-bin\\..\\outside"),
        member("cifar-10-batches-bin/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("cifar-10-batches-bin/data_batch_1.bin", tarfile.LNKTYPE, "test_batch.bin"),
        member("cifar-10-batches-bin/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_archive_with_a_member_that_leaves_it(toy, archive, evil, tmp_path):
    path = archive(extra=(evil,))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        load(toy, path)
    assert caught.value.where == str(path)
    assert caught.value.got == evil.name
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked to disk


def test_archive_with_a_member_twice(toy, archive):
    twice = member("./cifar-10-batches-bin/data_batch_1.bin", size=5)
    with pytest.raises(DataError, match=r"twice; got 'data_batch_1\.bin'"):
        load(toy, archive(extra=(twice,)))


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz", ".tar"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_archive_cut_short(toy, archive, ending, keep):
    path = archive(ending)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError) as caught:
        load(toy, path)
    assert str(path) in caught.value.where
    assert "bytes" in str(caught.value.got)
    assert "122920 bytes" in str(caught.value.allowed)


def test_archive_whose_checksum_is_wrong_at_the_very_end(toy, archive):
    path = archive(".tar.gz")
    content = path.read_bytes()
    path.write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])
    with pytest.raises(DataError, match="CRC"):
        load(toy, path)


def test_archive_without_a_batch(toy, archive, binary_files):
    files = {name: content for name, content in binary_files.items() if name != "data_batch_2.bin"}
    with pytest.raises(DataError, match=r"lacks data_batch_2\.bin"):
        load(toy, archive(files=files))


def test_archive_that_is_something_else(toy, tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        load(toy, path)


def test_archive_bombs(toy, archive, monkeypatch):
    path = archive(extra=(member("cifar-10-batches-bin/zeros", size=5_000_000),))
    load(toy, path)  # within the limits it is only a file that nobody asks for
    monkeypatch.setattr(cifar10_files, "ARCHIVE_LIMIT", 3_000_000)
    path.touch()  # the cache of decoded records knows it otherwise
    with pytest.raises(DataError, match=r"far more.*allowed: 3000000 bytes"):
        load(toy, path)
    monkeypatch.setattr(cifar10_files, "MEMBER_LIMIT", 100_000)
    with pytest.raises(DataError, match=r"data_batch_1\.bin: .*122920 bytes"):
        load(toy, path)


def test_archive_with_a_lying_size(toy, tmp_path, binary_files):
    """A header that promises more than the archive holds."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = member("cifar-10-batches-bin/data_batch_1.bin", size=len(binary_files["data_batch_1.bin"]) + 10**6)
        raw.write(info.tobuf(tar.format))
        raw.write(binary_files["data_batch_1.bin"])
    path = tmp_path / "cifar-10-binary.tar"
    path.write_bytes(raw.getvalue())
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar"):
        load(toy, path)
