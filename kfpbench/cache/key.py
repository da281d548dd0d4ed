"""The name of a kept result: a hash of everything that it is a function of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from kfpbench.suite.cell import without_negative_zero

FORMAT = 1  # raise it when the meaning of what is kept changes


@dataclass(frozen=True)
class Key:
    """``kind`` is the folder of the entry (moments, features, ...), ``parts`` what it is a function of, in plain
    values.

    ``name`` is the SHA-256 of both as canonical JSON: alike in every process, and for every order of the parts.
    """

    kind: str
    parts: dict[str, Any]

    @property
    def name(self) -> str:
        """64 hexadecimal digits."""
        content = {"format": FORMAT, "kind": self.kind, "parts": without_negative_zero(_listed(self.parts))}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _listed(value: Any) -> Any:
    """Tuples as lists; raises TypeError for what has no canonical text."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("the keys of a part of a cache key are text")
        return {key: _listed(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(child) for child in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a cache key cannot hold a {type(value).__name__}")
