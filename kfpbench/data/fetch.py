"""Download the official CIFAR-10 archive: resumable, verified, and put in place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from kfpbench.cache.location import user_cache
from kfpbench.errors import DataError, ParameterError

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# The md5 is the one that the data set's web page states; the sha256 is that of the same archive.
OFFICIAL_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
OFFICIAL_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE_NAME = "cifar-10-binary.tar.gz"

# The archive has 170,052,171 bytes: a server that sends much more is not sending it, and may not fill the
# disk.
SIZE_LIMIT = 512 * 2**20
_CHUNK = 2**18

Progress = Callable[[int, int | None], None]


def fetch_cifar10(
    destination: Path | None = None,
    *,
    url: str = OFFICIAL_URL,
    sha256: str | None = OFFICIAL_SHA256,
    md5: str | None = OFFICIAL_MD5,
    progress: Progress | None = None,
    timeout: float = 60.0,
) -> Path:
    """Download the archive into the folder ``destination`` (default: where ``Cifar10`` looks last);
    return its path.

    Bytes go to ``<archive>.part``, which the next call resumes from (HTTP Range) if this one is cut off,
    and which is renamed when every stated checksum agrees. An archive that is there and agrees is left
    alone. ``progress`` is called with (bytes so far, bytes in all or None when the server does not say).
    ``timeout`` is in seconds of silence. One call at a time for one destination.

    Raises ParameterError for a URL that is not http(s), or when no checksum is given. Raises DataError when
    the download fails (the part is kept), when the result has another checksum (the part is removed), and
    when an archive is there that has another checksum (it is left alone).
    """
    checksums = {"sha256": sha256, "md5": md5}
    expected = {name: digest.lower() for name, digest in checksums.items() if digest}
    if not expected:
        raise ParameterError("no checksum to verify the download with", allowed="sha256, md5 or both", where=url)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ParameterError("not a URL to download from", got=url, allowed="http:// or https://")
    target = (user_cache() / "cifar10" if destination is None else Path(destination)) / ARCHIVE_NAME
    part = target.with_name(target.name + ".part")
    try:
        if target.exists():
            found = _digests(target, expected)
            if found == expected:
                return target
            raise _mismatch(target, found, expected, "Remove that file, then fetch again.")
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, progress, timeout)
        found = _digests(part, expected)
        if found != expected:
            size = part.stat().st_size
            part.unlink()
            raise _mismatch(
                target,
                found,
                expected,
                f"The download ({size} bytes) was removed: fetch it again, or from elsewhere.",
            )
        os.replace(part, target)
    except OSError as error:  # those of the network are dealt with in _download
        raise DataError(f"cannot be written: {error}", where=str(target)) from error
    return target


def _download(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Append to ``part`` what is missing of the file at ``url``. Raises DataError and keeps what arrived."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "kfpbench", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing is missing, or the part is of another file: the checksum tells
        raise _failed(url, have, f"the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", "") or error or type(error).__name__)
        raise _failed(url, have, why) from error
    with response:
        start, total = _extent(response, have)
        have = start
        with part.open("r+b" if part.exists() else "wb") as file:
            file.seek(start)
            file.truncate()
            while chunk := _read_chunk(response, url, have):
                have += len(chunk)
                if have > SIZE_LIMIT:
                    file.truncate(0)
                    raise DataError(
                        "the server sends far more than the archive holds",
                        got=f"{have} bytes",
                        allowed=f"{SIZE_LIMIT} bytes",
                        remedy="Check the URL.",
                        where=url,
                    )
                file.write(chunk)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise _failed(url, have, f"the connection was cut after {have} of {total} bytes")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where in the file the body begins, and the file's size if stated.

    A server without Range support answers 200 with the whole file. Raises DataError for a 206 that does not
    begin where the part ends.
    """
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0, size
    begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begin != str(have):
        raise DataError(
            "the server resumes at another place than asked for",
            got=response.headers.get("Content-Range"),
            allowed=f"bytes {have}-",
            remedy="Remove the .part file, then fetch again.",
            where=response.geturl(),
        )
    return have, None if size is None else have + size


def _read_chunk(response: http.client.HTTPResponse, url: str, have: int) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, have, f"the connection failed: {error or type(error).__name__}") from error


def _failed(url: str, have: int, why: str) -> DataError:
    return DataError(
        f"the download did not finish: {why}",
        got=f"{have} bytes so far",
        remedy="Call again to resume; or place the archive yourself in a folder named by $KFPBENCH_DATA_DIR.",
        where=url,
    )


def _mismatch(path: Path, found: dict[str, str], expected: dict[str, str], remedy: str) -> DataError:
    return DataError(
        "the archive is not the official one: its checksum differs",
        got=found,
        allowed=", ".join(f"{name} {digest}" for name, digest in expected.items()),
        remedy=remedy,
        where=str(path),
    )


def _digests(path: Path, names: dict[str, str]) -> dict[str, str]:
    digests = {}
    for name in names:
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, name).hexdigest()
    return digests
