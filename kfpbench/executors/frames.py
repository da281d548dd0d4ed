"""Messages between a run and its worker processes: strict JSON and blobs of bytes, no pickle."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

from kfpbench.store.json_values import dumps, loads

_LENGTH = struct.Struct(">Q")


def write_frame(stream: IO[bytes], content: dict[str, Any], blobs: Mapping[str, bytes] | None = None) -> None:
    """Write one message and flush it. ``blobs`` follow the JSON text, which names their lengths."""
    blobs = blobs or {}
    text = dumps({"content": content, "blobs": {name: len(blob) for name, blob in blobs.items()}}).encode("ascii")
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    for blob in blobs.values():
        stream.write(blob)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """The next message; None at the end of the stream, also where it ends within a message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    text = stream.read(size := _LENGTH.unpack(head)[0])
    if len(text) < size:
        return None
    message = loads(text)
    blobs = {}
    for name, length in message["blobs"].items():
        blobs[name] = stream.read(length)
        if len(blobs[name]) < length:
            return None
    return message["content"], blobs
