"""Reading pickled arrays without running their code."""

from __future__ import annotations

import os
import pickle
import pickletools

import numpy as np
import pytest

from kfpbench.data.uint8_pickle import load_uint8_pickle
from kfpbench.errors import DataError

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)


class Payload:
    """What a malicious file holds: unpickled by the ordinary machine, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_written_by_python_3(protocol, order):
    content = pickle.dumps({"data": np.asarray(PIXELS, order=order), b"labels": [1, 2]}, protocol=protocol)
    value = load_uint8_pickle(content, "file")
    np.testing.assert_array_equal(value["data"], PIXELS)
    assert value["data"].dtype == np.uint8
    assert value["labels"] == [1, 2]


def test_arrays_written_by_python_2(toy):
    content = b"\x80\x02}(U\x04data" + toy.python2_array(PIXELS) + b"U\x05namesU\x03catu."
    value = load_uint8_pickle(content, "file")
    np.testing.assert_array_equal(value["data"], PIXELS)
    assert value["names"] == b"cat"
    with pytest.raises(pickle.UnpicklingError):  # the test's own opcodes are what numpy understands
        pickle.loads(b"garbage")
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], PIXELS)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_payload_is_refused_and_not_run(tmp_path, protocol):
    mark = tmp_path / "was-run"
    content = pickle.dumps({"data": Payload(mark)}, protocol=protocol)
    with pytest.raises(DataError, match=rf"^evil: .*{os.mkdir.__module__}\.mkdir"):
        load_uint8_pickle(content, "evil")
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # the payload does work, where nothing stops it


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "builtins\ngetattr",
        "numpy\nload",
        "numpy\nload.__globals__",
        "copyreg\n_reconstructor",
    ],
)
def test_other_globals_are_refused(name):
    with pytest.raises(DataError, match="names a global"):
        load_uint8_pickle(b"\x80\x02}U\x01ac" + name.encode() + b"\ns.", "file")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3.0),
        np.array([{}], dtype=object),
        np.zeros(3, dtype=[("a", "u1")]),
        np.zeros(3, dtype="S5"),
        np.zeros(3, dtype="i1"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_other_dtypes_are_refused(array):
    with pytest.raises(DataError, match="not uint8"):
        load_uint8_pickle(pickle.dumps({"data": array}, protocol=2), "file")


def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused(toy):
    content = (b"\x80\x02}U\x04data" + toy.python2_array(PIXELS) + b"s.").replace(b"M\x06\x00", b"M\x07\x00")
    with pytest.raises(DataError, match=r"shape \(4, 7\), 24 bytes"):
        load_uint8_pickle(content, "file")


def test_every_truncation_is_an_error_that_counts_the_bytes(toy):
    content = b"\x80\x02}(U\x04data" + toy.python2_array(PIXELS) + b"U\x06labels](K\x01K\x02eu."
    for length in range(len(content)):
        unlucky = content[:length].endswith(b".")  # looks whole: refused all the same, for what it names
        with pytest.raises(DataError, match="global" if unlucky else f"got '{length} bytes'"):
            load_uint8_pickle(content[:length], "file")


def test_damage_anywhere_is_an_error_or_other_data_and_nothing_else(toy):
    content = b"\x80\x02}(U\x04data" + toy.python2_array(PIXELS) + b"U\x06labels](K\x01K\x02eu."
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        try:
            load_uint8_pickle(bytes(damaged), "file")
        except DataError:
            refused += 1
    assert refused > 1000


def test_a_memo_index_of_four_billion_costs_no_memory():
    content = b"\x80\x02}r\xff\xff\xff\xff."
    assert [op.name for op, _, _ in pickletools.genops(content)] == [
        "PROTO",
        "EMPTY_DICT",
        "LONG_BINPUT",
        "STOP",
    ]
    assert load_uint8_pickle(content, "file") == {}


def test_encoding_one_text_again_and_again_is_refused():
    text = pickle.dumps("x" * 1000, protocol=2)[2:-1]
    encode = b"c_codecs\nencode\n(h\x00U\x06latin1tR"
    with pytest.raises(DataError, match="more text"):
        load_uint8_pickle(b"\x80\x02" + text + b"](" + encode * 50 + b"e.", "file")
