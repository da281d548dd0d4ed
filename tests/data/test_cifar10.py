"""CIFAR-10: the same images from every layout, from every place, with and without the cache."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from kfpbench.data.cifar10 import Cifar10
from kfpbench.data.cifar10_layouts import CLASSES
from kfpbench.errors import DataError


@pytest.fixture
def write(toy, tmp_path, binary_files, python_files):
    """Write a layout into a folder and return what to give as data_dir."""

    def writer(layout: str, root=tmp_path / "data"):
        kind, _, ending = layout.partition("+")
        files = binary_files if "bin" in kind else python_files
        folder = "cifar-10-batches-bin" if "bin" in kind else "cifar-10-batches-py"
        if kind.startswith("tar"):
            name = "cifar-10-binary" if "bin" in kind else "cifar-10-python"
            toy.write_tar(root / (name + ending), folder, files)
        else:
            toy.write_files(root if kind.startswith("bare") else root / folder, files, ending)
        return root

    return writer


LAYOUTS = [
    *(f"{place}{kind}+{ending}" for place in ("bare-", "") for kind in ("bin", "py") for ending in ("", ".gz", ".xz")),
    *(f"tar-{kind}+{ending}" for kind in ("bin", "py") for ending in (".tar.gz", ".tar", ".tar.xz", ".tgz")),
]


def content(data):
    return [
        data.train,
        data.validation,
        data.test,
        data.train_labels,
        data.validation_labels,
        data.test_labels,
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(toy, write, records, layout):
    source = toy.Cifar10(data_dir=str(write(layout)))
    every = np.concatenate(records)
    pixels, labels = every[:, 1:].astype(np.float64) / 127.5 - 1, every[:, 0]
    train, held = 5 * toy.count - toy.count // 2, 5 * toy.count
    for _ in range(2):  # from the files, then from the cache
        data = source.load()
        for ours, expected in zip(
            content(data),
            [
                pixels[:train],
                pixels[train:held],
                pixels[held:],
                labels[:train],
                labels[train:held],
                labels[held:],
            ],
            strict=True,
        ):
            np.testing.assert_allclose(ours, expected, atol=1e-7)
        assert data.fingerprint == hashlib.sha256(every.tobytes()).hexdigest()
        assert list(data.train[0, :2]) == [-1, 1]  # 0 and 255 are exact
        assert [rows.dtype for rows in content(data)] == [np.float32] * 3 + [np.int64] * 3
        assert data.image_shape == (3, 32, 32)
        assert data.classes == CLASSES
        assert data.notes == ()
        assert os.sep not in data.source  # it is published: no path of this machine
        assert source.size() == data.train.shape
        published = data.for_reference("test")
        assert source.size("test") == published.train.shape
        assert np.shares_memory(published.train, data.train)  # no second copy of 600 MB


def test_images_are_channel_first(toy, write, tmp_path):
    folder = write("bin+") / "cifar-10-batches-bin"
    one = np.zeros((toy.count, 3073), dtype=np.uint8)
    one[0, 1 : 1 + 1024] = 255  # all red
    one[1, 1 + 2048 + 32 * 5 + 7] = 255  # blue, row 5, column 7
    (folder / "data_batch_1.bin").write_bytes(one.tobytes())
    data = toy.Cifar10(data_dir=str(folder)).load()
    images = data.train.reshape(-1, *data.image_shape)
    assert (images[0, 0] == 1).all()
    assert (images[0, 1:] == -1).all()
    assert np.argwhere(images[1] == 1).tolist() == [[2, 5, 7]]


def test_places_in_their_order(toy, write, tmp_path, monkeypatch):
    stated, cache = tmp_path / "stated", tmp_path / "user-cache" / "kfpbench" / "cifar10"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError) as nothing:
        toy.Cifar10().load()
    assert str(cache) in str(nothing.value)
    assert "kfpbench data fetch cifar10" in str(nothing.value)

    write("tar-py+.tar.gz", cache)
    assert "python" in toy.Cifar10().load().source
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(stated))
    assert "python" in toy.Cifar10().load().source  # the variable's folder has none: the next place
    write("bin+", stated / "cifar10")
    assert "binary" in toy.Cifar10().load().source
    write("py+", stated)
    assert "python" in toy.Cifar10().load().source
    with pytest.raises(DataError, match="not found") as elsewhere:  # stated by the user: no other place will do
        toy.Cifar10(data_dir=str(empty)).load()
    assert str(empty) in str(elsewhere.value)
    assert str(cache) not in str(elsewhere.value)
    with pytest.raises(DataError, match="not found"):
        toy.Cifar10(data_dir=str(tmp_path / "absent")).load()


def test_an_archive_may_be_named_itself(toy, write):
    archive = write("tar-bin+.tar.gz") / "cifar-10-binary.tar.gz"
    assert len(toy.Cifar10(data_dir=str(archive)).load().test) == toy.count


def test_an_incomplete_copy_is_named_with_what_it_lacks(toy, write):
    folder = write("bin+.xz") / "cifar-10-batches-bin"
    (folder / "data_batch_3.bin.xz").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-bin lacks data_batch_3\.bin"):
        toy.Cifar10(data_dir=str(folder.parent)).load()


def test_class_names_are_checked_and_may_be_absent(toy, write):
    folder = write("bin+") / "cifar-10-batches-bin"
    meta = folder / "batches.meta.txt"
    meta.unlink()
    assert toy.Cifar10(data_dir=str(folder)).load().classes == CLASSES
    meta.write_text("apple\naquarium_fish\n")
    with pytest.raises(DataError, match=r"batches\.meta\.txt: not the classes"):
        toy.Cifar10(data_dir=str(folder)).load()


def test_inexact_records_are_noted(toy, write):
    folder = write("bin+.xz") / "cifar-10-batches-bin"
    source = toy.Cifar10(data_dir=str(folder))
    assert source.load().notes == ()
    listed = folder / "inexact_records.csv"
    listed.write_text("file,record,split,index\ndata_batch_1.bin,3,train,3\ntest_batch.bin,1,test,1\n")
    assert source.load().notes == ("2 records are declared inexact in inexact_records.csv (1 train, 1 test)",)
    listed.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in source.load().notes[0]


# ---- the cache of decoded records


@pytest.fixture
def decoded(tmp_path):
    return tmp_path / "user-cache" / "kfpbench" / "decoded"


@pytest.fixture
def cached(toy, write, monkeypatch):
    """A source that has been loaded once, and a way to see whether it decodes again."""
    source = toy.Cifar10(data_dir=str(write("bin+.xz")))
    data = source.load()
    counted: list[int] = []
    original = toy.Cifar10._decoded
    monkeypatch.setattr(toy.Cifar10, "_decoded", lambda self, src: counted.append(1) or original(self, src))
    return source, data, counted


def same(first, second):
    return first.fingerprint == second.fingerprint and all(
        np.array_equal(a, b) for a, b in zip(content(first), content(second), strict=True)
    )


def test_a_second_load_reads_the_cache(cached, decoded):
    source, data, counted = cached
    assert same(source.load(), data)
    assert counted == []
    assert sorted(path.suffix for path in decoded.iterdir()) == [".json", ".u8"]  # nothing temporary is left


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "header", "not json", "no header", "other shape"])
def test_a_damaged_entry_is_rebuilt(cached, decoded, damage):
    source, data, counted = cached
    (header,), (entry,) = decoded.glob("*.json"), decoded.glob("*.u8")
    raw = entry.read_bytes()
    match damage:
        case "flip":
            entry.write_bytes(raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:])
        case "cut":
            entry.write_bytes(raw[:-1])
        case "grow":
            entry.write_bytes(raw + b"\0")
        case "header":
            header.write_text(header.read_text().replace('"sha256": "', '"sha256": "0'))
        case "not json":
            header.write_bytes(b"\xff{")
        case "no header":
            header.unlink()
        case "other shape":
            header.write_text(header.read_text().replace("3073", "3074"))
    assert same(source.load(), data)
    assert counted == [1]
    assert entry.read_bytes() == raw
    assert same(source.load(), data)
    assert counted == [1]


def test_changed_files_replace_the_entry(toy, cached, decoded, write, binary_files):
    source, data, counted = cached
    folder = write("bin+.xz") / "cifar-10-batches-bin"  # the same again, with another mtime
    os.utime(folder / "test_batch.bin.xz", ns=(1, 1))
    assert same(source.load(), data)
    assert counted == [1]
    changed = {**binary_files, "test_batch.bin": binary_files["data_batch_1.bin"]}
    toy.write_files(folder, changed, ".xz")
    assert not same(source.load(), data)
    assert counted == [1, 1]
    assert len(list(decoded.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(toy, write, decoded):
    decoded.parent.mkdir(parents=True)
    decoded.write_text("a file where the folder would be")
    source = toy.Cifar10(data_dir=str(write("bin+.gz")))
    assert same(source.load(), source.load())
    assert decoded.is_file()


def test_plain_binary_files_are_not_kept_twice(toy, write, decoded):
    toy.Cifar10(data_dir=str(write("bin+"))).load()
    assert not decoded.exists()


# ---- the real files


def test_the_real_data_set(monkeypatch, real_data_dir, tmp_path):
    """Known numbers of CIFAR-10; the first load decodes, unless the copy is plain."""
    monkeypatch.setenv("KFPBENCH_DATA_DIR", real_data_dir)
    data = Cifar10().load()
    assert Cifar10().size() == data.train.shape == (45_000, 3072)
    assert data.test.shape == (10_000, 3072)
    assert [data.classes[i] for i in data.train_labels[:5]] == [
        "frog",
        "truck",
        "truck",
        "deer",
        "automobile",
    ]
    assert [data.classes[i] for i in data.test_labels[:3]] == ["cat", "ship", "ship"]
    published = data.for_reference("test")
    assert np.bincount(published.train_labels).tolist() == [5000] * 10
    assert np.bincount(published.test_labels).tolist() == [1000] * 10
    values = (published.train.reshape(-1, 3, 1024) + 1) / 2
    np.testing.assert_allclose(values.mean((0, 2), dtype=np.float64), [0.49140, 0.48216, 0.44653], atol=5e-5)
    np.testing.assert_allclose(values.std((0, 2), dtype=np.float64), [0.24703, 0.24348, 0.26159], atol=5e-5)
    del values, published
    again = Cifar10().load()
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.test, data.test)
    shutil.rmtree(tmp_path / "user-cache", ignore_errors=True)  # 184 MB that pytest would keep
