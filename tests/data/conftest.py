"""Small CIFAR-10 files that the tests write themselves: 40 records a file in place of 10,000."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kfpbench.data.cifar10 import Cifar10
from kfpbench.data.cifar10_layouts import CLASSES

REAL_DATA_DIR = os.environ.get("KFPBENCH_DATA_DIR")
COUNT = 40
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


class SmallCifar10(Cifar10):
    records_per_file = COUNT


def python2_array(pixels: np.ndarray) -> bytes:
    """Opcodes of a uint8 array as Python 2 and an old numpy wrote it, as in the official files."""
    raw = pixels.tobytes()
    shape = b"".join(b"M" + int(size).to_bytes(2, "little") for size in pixels.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )


def python2_batch(records: np.ndarray) -> bytes:
    """A batch file as Python 2 wrote it: byte-string keys, labels as a list."""
    labels = b"".join(b"K" + bytes([label]) for label in records[:, 0])
    return b"\x80\x02}(U\x04data" + python2_array(records[:, 1:]) + b"U\x06labels](" + labels + b"eu."


@pytest.fixture(autouse=True)
def no_other_data(monkeypatch, tmp_path):
    """No test reads or writes the user's own files, and no test finds data it was not given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.delenv("KFPBENCH_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def records() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 256, (COUNT, 3073), dtype=np.uint8) for _ in BATCHES]
    for batch in batches:
        batch[:, 0] %= 10
        batch[0, 1:4] = (0, 255, 51)  # the ends of the scale, and one value between them
    return batches


@pytest.fixture(scope="session")
def binary_files(records) -> dict[str, bytes]:
    files = {f"{name}.bin": batch.tobytes() for name, batch in zip(BATCHES, records, strict=True)}
    return {**files, "batches.meta.txt": ("\n".join(CLASSES) + "\n\n").encode()}


@pytest.fixture(scope="session")
def python_files(records) -> dict[str, bytes]:
    files = {name: python2_batch(batch) for name, batch in zip(BATCHES, records, strict=True)}
    return {
        **files,
        "batches.meta": pickle.dumps({b"label_names": [n.encode() for n in CLASSES]}, protocol=2),
    }


def write_files(folder: Path, files: dict[str, bytes], ending: str = "") -> Path:
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (name + ending)).write_bytes(pack(content))
    return folder


def write_tar(path: Path, folder: str, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import it by name."""
    return SimpleNamespace(
        count=COUNT,
        Cifar10=SmallCifar10,
        python2_array=python2_array,
        python2_batch=python2_batch,
        write_files=write_files,
        write_tar=write_tar,
    )


@pytest.fixture
def real_data_dir() -> str:
    """What $KFPBENCH_DATA_DIR said when the tests were started."""
    if REAL_DATA_DIR is None:
        pytest.skip("set KFPBENCH_DATA_DIR to a folder with CIFAR-10 to test the real files")
    return REAL_DATA_DIR
