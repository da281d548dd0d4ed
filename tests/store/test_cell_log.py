import gzip
import os
import subprocess
import sys

import pytest

from kfpbench.errors import StoreError
from kfpbench.store import cell_log
from kfpbench.store.cell_log import CellLog, latest


@pytest.fixture
def log(tmp_path):
    return CellLog(tmp_path / "cells.jsonl")


def test_an_appended_record_is_there_for_another_process(log, make_record):
    reader = "import sys; print(sum(1 for _ in open(sys.argv[1])))"
    for count in (1, 2):
        log.append(make_record(f"c{count}"))
        seen = subprocess.run([sys.executable, "-c", reader, log.path], capture_output=True, text=True, check=True)
        assert int(seen.stdout) == count
    assert [record.cell for record in log.read().records] == ["c1", "c2"]


def test_one_record_is_one_write_and_one_fsync(log, make_record, monkeypatch):
    calls = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append(("write", len(data))) or write(fd, data))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(("fsync", os.fstat(fd).st_size)) or fsync(fd))
    log.append(make_record())
    size = log.path.stat().st_size
    assert calls[:2] == [("write", size), ("fsync", size)]


def test_no_file_is_an_empty_log(log):
    content = log.read()
    assert (content.records, content.dropped_bytes, content.note) == ((), 0, "")


def test_a_line_cut_at_any_byte_is_dropped_and_does_not_harm_the_next(log, make_record):
    first, second, third = (
        make_record("c1"),
        make_record("c2", label="Gauß", spec={}, measurements=[]),
        make_record("c3"),
    )
    log.append(first)
    start = log.path.stat().st_size
    log.append(second)
    whole = log.path.read_bytes()
    fsync = os.fsync
    for cut in range(start, len(whole)):
        log.path.write_bytes(whole[:cut])
        content = log.read()
        assert content.records == (first,)
        assert content.dropped_bytes == cut - start
        assert bool(content.note) == (cut > start)
        try:
            os.fsync = lambda fd: None  # a thousand of them are slow, and not what is tested
            log.append(third)
        finally:
            os.fsync = fsync
        assert log.read().records == (first, third)
        assert log.read().dropped_bytes == 0
    log.path.write_bytes(whole)
    assert log.read().records == (first, second)


def test_a_first_line_cut_leaves_an_empty_log(log, make_record):
    log.path.write_bytes(b'{"cell": "c0"')
    assert log.read().records == ()
    log.append(make_record())
    assert log.read().records == (make_record(),)


def test_a_half_written_line_longer_than_a_block_is_cut_off(log, make_record):
    log.append(make_record("c1"))
    with log.path.open("ab") as stream:
        stream.write(b"x" * 300_000)
    log.append(make_record("c2"))
    assert [record.cell for record in log.read().records] == ["c1", "c2"]


@pytest.mark.parametrize("bad", [b"{}", b"", b"not json", b'{"cell": NaN}', b"\x00\x00"])
def test_a_corrupt_middle_line_is_named(log, make_record, bad):
    lines = [make_record(f"c{i}").to_json().encode() for i in range(3)]
    lines[1] = bad
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(StoreError, match=r"cells\.jsonl:2: line 2 is not a cell record"):
        log.read()


def test_a_full_disk_leaves_no_half_line(log, make_record, monkeypatch):
    log.append(make_record("c1"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(StoreError, match="only 10 of"):
        log.append(make_record("c2"))
    monkeypatch.undo()
    assert log.path.read_bytes().endswith(b"\n")
    assert log.read().records == (make_record("c1"),)


def test_the_last_record_of_a_cell_counts_and_the_plan_gives_the_order(make_record):
    failed = make_record("c2", status="failed", reason="no luck", measurements=[])
    records = [failed, make_record("c1"), make_record("c2")]
    assert latest(records) == [make_record("c1"), make_record("c2")]


def test_processes_that_append_at_once_keep_lines_whole(log, make_record, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from kfpbench.store.cell_log import CellLog; from kfpbench.store.records import CellRecord\n"
        "record = CellRecord.from_json(Path(sys.argv[2]).read_text())\n"
        "for _ in range(40): CellLog(Path(sys.argv[1])).append(record)\n"
    )
    one = tmp_path / "one.json"
    one.write_text(make_record(details={"filler": "x" * 20_000}).to_json())
    writers = [subprocess.Popen([sys.executable, "-c", script, log.path, one]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(log.read().records) == 80


def test_the_digest_is_of_whole_lines_only(log, make_record):
    log.append(make_record("c1"))
    digest = log.digest()
    with log.path.open("ab") as stream:
        stream.write(b"half")
    assert log.digest() == log.read().digest == digest
    log.append(make_record("c2"))
    assert log.digest() == log.read().digest != digest


def test_a_compressed_log_is_read_and_not_written(log, make_record):
    for name in ("a", "b"):
        log.append(make_record(name))
    whole = log.read()
    with gzip.open(log.packed, "wb") as file:
        file.write(log.path.read_bytes())
    log.path.unlink()
    packed = log.packed.read_bytes()
    again = CellLog(log.path)
    assert (again.read(), again.digest(), again.exists()) == (whole, log.digest(), True)
    with pytest.raises(StoreError, match=r"only read.*gunzip cells\.jsonl\.gz"):
        again.append(make_record("c"))
    assert log.packed.read_bytes() == packed
    assert not log.path.exists()


@pytest.mark.parametrize(
    "spoil",
    [lambda content: content[:-20], lambda content: b"no gzip", lambda content: content[:40] + b"x" * 9 + content[49:]],
)
def test_a_damaged_compressed_log_is_named(log, make_record, spoil):
    log.packed.write_bytes(spoil(gzip.compress(make_record("a").to_json().encode())))
    with pytest.raises(StoreError, match="cannot be unpacked"):
        log.read()


def test_a_compressed_log_may_not_unpack_to_anything(log, monkeypatch):
    monkeypatch.setattr(cell_log, "_LARGEST", 1000)
    log.packed.write_bytes(gzip.compress(b"0" * 1001))
    with pytest.raises(StoreError, match="unpacks to more than"):
        log.read()
