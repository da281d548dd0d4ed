"""The download, against a server of the test's own on the loopback interface."""

from __future__ import annotations

import hashlib
import http.server
import threading

import numpy as np
import pytest

from kfpbench.data import fetch
from kfpbench.data.cifar10_files import find_source
from kfpbench.data.fetch import ARCHIVE_NAME, fetch_cifar10
from kfpbench.data.locations import data_places
from kfpbench.errors import DataError, ParameterError

BODY = np.random.default_rng(3).bytes(1_500_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY. ``cut``: bytes after which it hangs up, once. ``ranges``: whether it knows Range."""

    body, cut, ranges, status, length, shift = BODY, None, True, 200, True, 0
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/archive"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        stated = self.headers.get("Range")
        self.server.asked.append(stated)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = 0
        if stated and self.server.ranges:
            start = int(stated.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.server.body):
                self.send_error(416)
                return
            self.send_response(206)
            first = start + self.server.shift
            self.send_header("Content-Range", f"bytes {first}-{len(self.server.body) - 1}/{len(self.server.body)}")
        else:
            self.send_response(200)
        content = self.server.body[start:]
        if self.server.length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(content[:cut])


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def part(tmp_path):
    return tmp_path / (ARCHIVE_NAME + ".part")


def get(server, tmp_path, **options):
    return fetch_cifar10(tmp_path, url=server.url, **{"sha256": SHA256, "md5": MD5, "timeout": 10, **options})


def test_whole_download(server, tmp_path, part):
    seen = []
    path = get(server, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / ARCHIVE_NAME
    assert path.read_bytes() == BODY
    assert not part.exists()
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(BODY), len(BODY))


def test_verified_file_is_left_alone(server, tmp_path):
    first = get(server, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert get(server, tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert len(server.asked) == 1


def test_another_file_in_its_place_is_an_error_and_kept(server, tmp_path):
    (tmp_path / ARCHIVE_NAME).write_bytes(b"mine")
    with pytest.raises(DataError, match="Remove that file"):
        get(server, tmp_path)
    assert (tmp_path / ARCHIVE_NAME).read_bytes() == b"mine"
    assert server.asked == []


def test_cut_connection_is_resumed(server, tmp_path, part):
    server.cut = 700_000
    with pytest.raises(DataError, match=r"cut after 700000 of 1500000 bytes.*Call again to resume"):
        get(server, tmp_path)
    assert part.read_bytes() == BODY[:700_000]
    assert not (tmp_path / ARCHIVE_NAME).exists()

    seen = []
    path = get(server, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert server.asked == [None, "bytes=700000-"]
    assert min(done for done, _ in seen) > 700_000
    assert seen[-1] == (len(BODY), len(BODY))


def test_cut_connection_without_a_stated_length_is_caught_by_the_checksum(server, tmp_path, part):
    server.cut, server.length = 700_000, False
    with pytest.raises(DataError, match=r"checksum differs.*700000 bytes\) was removed"):
        get(server, tmp_path)
    assert not part.exists()


def test_server_without_ranges_restarts(server, tmp_path, part):
    server.cut, server.ranges = 700_000, False
    with pytest.raises(DataError, match="cut after"):
        get(server, tmp_path)
    part.write_bytes(b"x" * 2_000_000)  # longer than the file, and wrong: nothing of it may remain
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=2000000-"]


def test_server_that_resumes_elsewhere_is_refused(server, tmp_path, part):
    part.write_bytes(BODY[:1000])
    server.shift = 1
    with pytest.raises(DataError, match=r"resumes at another place.*got 'bytes 1001-"):
        get(server, tmp_path)
    assert part.read_bytes() == BODY[:1000]


def test_part_that_is_whole_is_verified_and_moved(server, tmp_path, part):
    part.write_bytes(BODY)
    assert get(server, tmp_path).read_bytes() == BODY
    part.write_bytes(b"y" * len(BODY))
    (tmp_path / ARCHIVE_NAME).unlink()
    with pytest.raises(DataError, match="was removed"):
        get(server, tmp_path)
    assert not part.exists()


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"sha256": None, "md5": "0" * 32}])
def test_wrong_checksum_removes_the_part(server, tmp_path, part, wrong):
    with pytest.raises(DataError, match="checksum differs") as caught:
        get(server, tmp_path, **wrong)
    assert "0" * 32 in str(caught.value.allowed)
    assert MD5 in str(caught.value.got) or SHA256 in str(caught.value.got)
    assert "1500000 bytes" in str(caught.value)
    assert not part.exists()
    assert not (tmp_path / ARCHIVE_NAME).exists()


@pytest.mark.parametrize("checksums", [{"sha256": SHA256.upper(), "md5": None}, {"sha256": None, "md5": MD5}])
def test_one_checksum_is_enough(server, tmp_path, checksums):
    assert get(server, tmp_path, **checksums).read_bytes() == BODY


def test_error_status_keeps_the_part(server, tmp_path, part):
    part.write_bytes(BODY[:1000])
    server.status = 503
    with pytest.raises(DataError, match=r"the server answered 503.*got '1000 bytes so far'"):
        get(server, tmp_path)
    assert part.read_bytes() == BODY[:1000]


def test_no_server(tmp_path):
    with Server() as gone:
        url = gone.url
    with pytest.raises(DataError, match="did not finish") as caught:
        fetch_cifar10(tmp_path, url=url, timeout=5)
    assert caught.value.where == url
    assert "KFPBENCH_DATA_DIR" in str(caught.value)


def test_endless_download_is_stopped(server, tmp_path, part, monkeypatch):
    monkeypatch.setattr(fetch, "SIZE_LIMIT", 1_000_000)
    with pytest.raises(DataError, match="far more than the archive"):
        get(server, tmp_path)
    assert part.stat().st_size == 0


def test_impossible_arguments(tmp_path):
    with pytest.raises(ParameterError, match="no checksum"):
        fetch_cifar10(tmp_path, sha256=None, md5=None)
    (tmp_path / "local").write_bytes(BODY)
    with pytest.raises(ParameterError, match="https://"):
        fetch_cifar10(tmp_path / "to", url=(tmp_path / "local").as_uri(), sha256=SHA256, md5=None)


def test_destination_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        get(server, tmp_path / "file" / "folder")


def test_default_destination_is_where_the_data_set_looks(server):
    path = fetch_cifar10(url=server.url, sha256=SHA256, md5=MD5)
    assert find_source(data_places("cifar10", None)).batch_files == [path]
